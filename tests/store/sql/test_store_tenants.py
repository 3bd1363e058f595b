"""Tenants in the database: replaced as a whole, each number with one of them, everyone told."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest
import trio
from ended_calls import change
from psycopg.rows import TupleRow

from agent.core.errors import TenantError
from agent.core.tenant import Tenant, change_tenant, make_tenant
from agent.store.pg import Connection, open_connection
from agent.store.sql.tenants import get_tenant, list_tenants, put_tenant

pytestmark = pytest.mark.sockets
FULL = make_tenant(
    name="Harbour Dental",
    numbers="+15552223333, +15552224444",
    language="he",
    time_zone="Asia/Jerusalem",
    greeting="שלום",
    instructions="Be brief.",
    voice="marin",
    tools=["update_lead"],
    transfer_numbers=["+15559990000"],
    services=["cleaning", 'a "quoted", {odd} one'],
    webhook_url="https://hooks.example.com/x",
    delete_recordings=True,
    lookup="open",
    origins="https://harbour.example, https://harbour.example:8443",
)


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(postgres) as opened:
        yield opened


async def test_the_default_tenant_is_always_there(connection: Connection[TupleRow]) -> None:
    assert await list_tenants(connection) == [Tenant("default", "Default")]


async def test_everything_comes_back_as_it_was(connection: Connection[TupleRow]) -> None:
    assert await put_tenant(connection, FULL)
    assert await get_tenant(connection, "harbour-dental") == FULL
    assert not await put_tenant(connection, FULL)
    changed = change_tenant(FULL, numbers="+15552224444", tools=[], greeting=None, services=[])
    await put_tenant(connection, changed)
    assert await get_tenant(connection, "harbour-dental") == changed
    assert await get_tenant(connection, "nobody") is None


async def test_a_number_belongs_to_one_tenant(connection: Connection[TupleRow]) -> None:
    await put_tenant(connection, FULL)
    other = make_tenant(name="Other", numbers="+15552224444, +15557778888")
    with pytest.raises(TenantError, match=r"\+15552224444 to harbour-dental"):
        await put_tenant(connection, other)
    assert await get_tenant(connection, "other") is None
    assert await get_tenant(connection, "harbour-dental") == FULL


async def test_two_that_take_a_number_at_the_same_time(postgres: str) -> None:
    """The second waits for the first, and is told whose it is."""
    outcomes: list[str] = []

    async def put(name: str) -> None:
        async with open_connection(postgres) as connection:
            try:
                await put_tenant(connection, make_tenant(name=name, numbers="+15552223333"))
            except TenantError as error:
                outcomes.append(str(error))
            else:
                outcomes.append("")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(put, f"Tenant {number}")
    assert outcomes.count("") == 1
    assert all("+15552223333 to tenant-" in outcome for outcome in outcomes if outcome)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE tenants SET greeting = 'x'",
        "INSERT INTO tenant_numbers VALUES ('+15550001111', 'default')",
        "DELETE FROM tenants WHERE id = 'none'",
    ],
)
async def test_who_listens_is_told_of_each_change(
    connection: Connection[TupleRow], postgres: str, sql: str
) -> None:
    await connection.execute("LISTEN tenants")
    change(postgres, sql)
    with trio.fail_after(5):
        assert (await connection.notification()).channel == "tenants"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO tenants (id, name) VALUES ('Not A Slug', 'x')",
        "INSERT INTO tenants (id, name) VALUES ('x', '')",
        "INSERT INTO tenants (id, name, webhook_url) VALUES ('x', 'x', 'https://x')",
        "INSERT INTO tenants (id, name, transfer_numbers) VALUES ('x', 'x', '{911}')",
        "INSERT INTO tenant_numbers VALUES ('0551234567', 'default')",
    ],
)
def test_the_database_refuses_what_code_would_have_refused(postgres: str, sql: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        change(postgres, sql)

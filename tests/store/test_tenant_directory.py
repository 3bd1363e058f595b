"""The tenants in memory (PC-5): whose number it is, at once, whatever the database does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import psycopg
import pytest
import trio
from virtual_call import make_settings

from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.core.tenant import Tenant
from agent.store import Database
from agent.store import tenant_directory as tenant_book
from agent.store.pg import open_pool
from agent.store.sql.tenants import put_tenant
from agent.store.tenant_directory import TenantDirectory, default_tenant

NUMBER = "+15552223333"
OTHER = "+15554445555"
SHOP = Tenant("shop", "The Shop", (NUMBER,), time_zone="Asia/Tokyo")


def test_a_number_is_its_tenants() -> None:
    book = TenantDirectory(Tenant("default", ""))
    book.replace([SHOP])
    assert book.of_call("inbound", OTHER, NUMBER) == SHOP
    assert book.of_call("outbound", NUMBER, OTHER) == SHOP, "it calls by its own number"
    assert book.of_call("inbound", NUMBER, OTHER) == Tenant("default", "")
    book.replace([])
    assert book.find(NUMBER) == Tenant("default", "")


def test_the_sites_of_one_and_of_all() -> None:
    book = TenantDirectory(Tenant("default", ""))
    book.replace([attrs.evolve(SHOP, origins=("https://shop.example",)), Tenant("other", "Other")])
    for name in ("shop", NUMBER, None):
        assert book.origins_of(name) == frozenset({"https://shop.example"})
    for name in ("other", ""):
        assert book.origins_of(name) == frozenset()
    assert book.origins_of("nobody") is None


def test_nobodys_number_is_refused_if_so_set() -> None:
    book = TenantDirectory(Tenant("default", ""), "refuse")
    book.replace([SHOP])
    assert book.find(NUMBER) == SHOP
    assert book.find(OTHER) is None
    assert book.find("") == Tenant("default", ""), "who says no number (a load test) is not somebody else's"


def test_the_default_tenant_is_made_of_the_settings_and_of_its_row() -> None:
    settings = make_settings(language="he")
    book = TenantDirectory(default_tenant(settings), "refuse")
    assert book.default == Tenant("default", "", language="he")
    book.replace([Tenant("default", "Default", (NUMBER,), greeting="Shalom.")])
    assert book.default == Tenant("default", "", (NUMBER,), language="he", greeting="Shalom.")
    assert book.find(NUMBER) == book.default
    book.replace([Tenant("default", "Harbour", language="en")])
    assert (book.default.name, book.default.language) == ("Harbour", "en")
    book.replace([Tenant("default", "Harbour")])
    assert book.default.language == "he", "what the row does not say is what the settings say"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_a_zone_that_this_machine_does_not_know_harms_no_call(zone: str) -> None:
    book = TenantDirectory(Tenant("default", ""))
    book.replace([Tenant("shop", "The Shop", (NUMBER,), time_zone=zone)])
    found = book.find(NUMBER)
    assert found is not None
    assert found.time_zone == "UTC"


# On a real Postgres


async def until(true: Callable[[], bool]) -> None:
    """Wait until it is true, at most for 10 seconds."""
    with trio.fail_after(10):
        while not true():  # noqa: ASYNC110 - a book tells nobody of its changes
            await trio.sleep(0.01)


@asynccontextmanager
async def open_book(
    conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[TenantDirectory, Database, EventLog]]:
    """A book that is kept up to date."""
    monkeypatch.setattr(tenant_book, "RETRY_S", 0.05)
    book, events = TenantDirectory(Tenant("default", "")), EventLog(Telemetry())
    async with open_pool(conninfo) as pool, trio.open_nursery() as nursery:
        database = Database(conninfo, pool)
        nursery.start_soon(book.run, database, events)
        yield book, database, events
        nursery.cancel_scope.cancel()


async def put(database: Database, tenant: Tenant) -> None:
    async with database.connection() as connection:
        await put_tenant(connection, tenant)


@pytest.mark.sockets
async def test_changes_are_known_at_once(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By LISTEN: long before all are read again."""
    async with open_book(postgres, monkeypatch) as (book, database, events):
        await database.make_ready()
        await put(database, SHOP)
        await until(lambda: book.find(NUMBER) == SHOP)
        changed = Tenant("shop", "The Shop", (OTHER,), greeting="Good morning.")
        await put(database, changed)
        await until(lambda: book.find(OTHER) == changed)
        assert book.find(NUMBER) == book.default
        assert not events.counts["TENANTS_NOT_READ"]


@pytest.mark.sockets
async def test_many_tenants_are_read_in_pages(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out, none is there twice; the default one is among them."""
    monkeypatch.setattr(tenant_book, "PAGE", 3)
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("INSERT INTO tenants (id, name) SELECT 'a' || n, 'A' FROM generate_series(1, 8) n")
        other.execute(
            "INSERT INTO tenant_numbers SELECT '+1555100000' || n, 'a' || n FROM generate_series(1, 8) n"
        )
    async with open_book(postgres, monkeypatch) as (book, database, _):
        await database.make_ready()
        await until(lambda: book.find("+15551000008") != book.default)
        found = [book.find(f"+1555100000{number}") for number in range(1, 9)]
        assert [tenant.id for tenant in found if tenant] == [f"a{number}" for number in range(1, 9)]


@pytest.mark.sockets
async def test_the_book_outlives_its_connections(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed connections: what was known stays known, and what is new is read when the database is back."""
    async with open_book(postgres, monkeypatch) as (book, database, events):
        await database.make_ready()
        await put(database, SHOP)
        await until(lambda: book.find(NUMBER) == SHOP)
        for _ in range(3):
            with psycopg.connect(postgres, autocommit=True) as killer:
                killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            assert book.find(NUMBER) == SHOP
            await until(lambda: events.counts["TENANTS_NOT_READ"] > 0)
            await trio.sleep(0.1)
        monkeypatch.setattr(tenant_book, "REFRESH_S", 0.2)
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("UPDATE tenants SET greeting = 'Good evening.' WHERE id = 'shop'")
        await until(lambda: getattr(book.find(NUMBER), "greeting", None) == "Good evening.")


@pytest.mark.sockets
async def test_a_missing_table_is_no_end_of_the_server(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the database says, it is tried again."""
    async with open_book(postgres, monkeypatch) as (book, database, events):
        await database.make_ready()
        await put(database, SHOP)
        await until(lambda: book.find(NUMBER) == SHOP)
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("ALTER TABLE tenants RENAME TO gone")
            other.execute("NOTIFY tenants")
            await until(lambda: events.counts["TENANTS_NOT_READ"] > 1)
            assert book.find(NUMBER) == SHOP
            other.execute("ALTER TABLE gone RENAME TO tenants")
            other.execute("DELETE FROM tenant_numbers")
        await until(lambda: book.find(NUMBER) == book.default)

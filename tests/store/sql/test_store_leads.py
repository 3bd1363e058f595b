"""Leads and appointments in the database: each once, and what is known is not forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg
import pytest
from ended_calls import make_record, rows, sid
from psycopg.rows import TupleRow

from agent.core.tenant import make_tenant
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import keep_record
from agent.store.sql.leads import (
    STATUSES,
    add_appointment,
    appointments_in,
    appointments_of,
    find_lead,
    upsert_lead,
)
from agent.store.sql.tenants import put_tenant
from agent.store.sql.values import LeadUpdate, NewAppointment

pytestmark = pytest.mark.sockets
PHONE = "+15550100001"
NINE = datetime(2030, 1, 2, 9, tzinfo=UTC)


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(postgres) as opened:
        yield opened


def update(**fields: Any) -> LeadUpdate:
    return LeadUpdate("default", PHONE, **fields)


def wish(**changes: Any) -> NewAppointment:
    new = NewAppointment("default", sid(1), "call_1", NINE, PHONE, service="cleaning", name="Dana")
    return attrs.evolve(new, **changes)


async def test_what_is_known_is_not_replaced_by_nothing(connection: Connection[TupleRow]) -> None:
    first = await upsert_lead(connection, update(name="Dana", city="Haifa", note="in the morning"))
    again = await upsert_lead(connection, update(service="cleaning", city="Tel Aviv"))
    assert again == first
    lead = await find_lead(connection, "default", PHONE)
    assert lead is not None
    assert (lead.name, lead.city, lead.service, lead.note) == ("Dana", "Tel Aviv", "cleaning", "in the morning")
    assert lead.updated_at > lead.created_at


async def test_a_lead_of_each_tenant(connection: Connection[TupleRow]) -> None:
    await put_tenant(connection, make_tenant(name="Harbour Dental"))
    ids = {
        await upsert_lead(connection, LeadUpdate(tenant, PHONE, name=tenant))
        for tenant in ("default", "harbour-dental")
    }
    assert len(ids) == 2
    lead = await find_lead(connection, "harbour-dental", PHONE)
    assert lead is not None
    assert lead.name == "harbour-dental"
    assert await find_lead(connection, "default", "+15550100002") is None


@pytest.mark.parametrize("known", STATUSES)
@pytest.mark.parametrize("told", ["", *STATUSES])
async def test_a_status_only_moves_on(connection: Connection[TupleRow], known: str, told: str) -> None:
    await upsert_lead(connection, update(status=known))
    await upsert_lead(connection, update(status=told))
    lead = await find_lead(connection, "default", PHONE)
    assert lead is not None
    assert lead.status == max(known, told or "new", key=STATUSES.index)


@pytest.mark.parametrize(
    "wrong", [LeadUpdate("default", "anonymous"), LeadUpdate("default", PHONE, status="delighted")]
)
async def test_what_cannot_be_is_refused_by_the_database(
    connection: Connection[TupleRow], wrong: LeadUpdate
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await upsert_lead(connection, wrong)


async def test_texts_that_postgres_cannot_keep(connection: Connection[TupleRow]) -> None:
    await upsert_lead(connection, update(name="Da\0na\ud800", note="\0"))
    lead = await find_lead(connection, "default", f"{PHONE}\0")
    assert lead is not None
    assert (lead.name, lead.note) == ("Dana?", None)
    assert (await add_appointment(connection, wish(name="\0Dana", note="\udfff", tool_call_id="c\0")))[1]


async def test_an_appointment_makes_its_lead(connection: Connection[TupleRow]) -> None:
    _, created = await add_appointment(connection, wish())
    assert created
    lead = await find_lead(connection, "default", PHONE)
    assert lead is not None
    assert (lead.name, lead.service, lead.status) == ("Dana", "cleaning", "appointment")


async def test_the_same_call_of_the_tool_is_the_same_appointment(
    connection: Connection[TupleRow], postgres: str
) -> None:
    first = await add_appointment(connection, wish())
    assert first[1]
    assert await add_appointment(connection, wish()) == (first[0], False)
    # The model says it again with other words: what was made stands.
    assert await add_appointment(connection, wish(starts_at=NINE + timedelta(hours=1))) == (first[0], False)
    assert rows(postgres, "SELECT starts_at FROM appointments") == [(NINE,)]


async def test_the_same_person_at_the_same_time_is_the_same_appointment(
    connection: Connection[TupleRow],
) -> None:
    first, _ = await add_appointment(connection, wish())
    assert await add_appointment(connection, wish(call_sid=sid(2), tool_call_id="call_9")) == (first, False)
    assert (await add_appointment(connection, wish(call_sid=sid(2), tool_call_id="c", phone="+15550100002")))[1]
    assert (await add_appointment(connection, wish(tool_call_id="call_2", starts_at=NINE + timedelta(hours=1))))[
        1
    ]


async def test_of_two_in_the_way_the_one_of_this_very_call_of_the_tool(connection: Connection[TupleRow]) -> None:
    await add_appointment(connection, wish(tool_call_id="call_0"))
    own, _ = await add_appointment(connection, wish(tool_call_id="call_1", starts_at=NINE + timedelta(days=1)))
    assert await add_appointment(connection, wish(tool_call_id="call_1")) == (own, False)


async def test_an_appointment_finds_its_call_when_that_is_kept(connection: Connection[TupleRow]) -> None:
    await add_appointment(connection, wish())
    assert [found.service for found in await appointments_of(connection, "default", PHONE)] == ["cleaning"]
    call_id = await keep_record(connection, make_record())
    assert [found.starts_at for found in await appointments_in(connection, call_id)] == [NINE]


async def test_a_phone_that_is_none_makes_neither_lead_nor_appointment(
    connection: Connection[TupleRow], postgres: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await add_appointment(connection, wish(phone="anonymous"))
    assert rows(postgres, "SELECT id FROM appointments UNION ALL SELECT id FROM leads") == []

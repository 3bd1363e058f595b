"""The built-in tools: appointments, leads, callers looked up; in memory and on a real Postgres alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import trio
from databases import TestCluster
from ended_calls import make_record, sid
from fake_tools import OPEN_SHOP, PHONE, SHOP, MemoryDesk, calling

from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import Tool, ToolCall
from agent.call.tools.desk import StoreDesk, ToolDesk
from agent.core.errors import DatabaseError, ToolArgumentsError, ToolError
from agent.core.tenant import Tenant
from agent.store import Database
from agent.store.pg import Pool, open_pool
from agent.store.sql.calls import keep_record
from agent.store.sql.tenants import put_tenant
from agent.store.sql.values import NewAppointment


async def use(desk: ToolDesk, tool_name: str, call: ToolCall | None = None, /, **arguments: Any) -> Any:
    """Use a tool as the model does: its arguments are JSON."""
    tools: dict[str, Tool] = {tool.name: tool for tool in DeskTools(desk).tools()}
    tool = tools[tool_name]
    assert tool.function is not None
    return await tool.function(call or calling(), **tool.read(msgspec.json.encode(arguments).decode()))


@asynccontextmanager
async def open_store(cluster: TestCluster) -> AsyncIterator[tuple[StoreDesk, Pool]]:
    """The real desk, and its pool."""
    conninfo = cluster.make_database()
    try:
        async with open_pool(conninfo) as pool:
            database = Database(conninfo, pool)
            await database.make_ready()
            async with pool.connection() as connection:
                await put_tenant(connection, SHOP)
                await put_tenant(connection, Tenant("other", "Other"))
            yield StoreDesk(database), pool
    finally:
        cluster.drop(conninfo)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.sockets)])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[ToolDesk]:
    """Both desks, for one contract."""
    if request.param == "memory":
        yield MemoryDesk()
        return
    async with open_store(request.getfixturevalue("cluster")) as (store, _):
        yield store


# The contract of the desk


async def test_an_appointment_is_made_where_the_tenant_is(desk: ToolDesk) -> None:
    said = await use(desk, "create_appointment", starts_at="2026-11-24T14:30", service="implants", name="Dana")
    assert said == {"appointment": 1, "starts_at": "Tuesday, 2026-11-24 14:30", "already_made": False}
    [row] = await desk.appointments("shop", PHONE)
    assert row.starts_at == datetime(2026, 11, 24, 19, 30, tzinfo=UTC)
    assert (row.service, row.name, row.phone) == ("implants", "Dana", PHONE)
    lead = await desk.find_lead("shop", PHONE)
    assert lead is not None
    assert (lead.name, lead.status) == ("Dana", "appointment")
    assert await desk.find_lead("other", PHONE) is None
    assert await desk.appointments("other", PHONE) == []


async def test_an_appointment_is_made_once(desk: ToolDesk) -> None:
    """By the tool's call, should the model's event come to another process; and by who comes when."""
    first = await use(desk, "create_appointment", starts_at="2026-11-24T14:30")
    again = await use(desk, "create_appointment", starts_at="2026-11-24T14:30")
    other = await use(desk, "create_appointment", calling("call_2"), starts_at="2026-11-24T14:30")
    assert [said["already_made"] for said in (first, again, other)] == [False, True, True]
    assert again["appointment"] == other["appointment"] == first["appointment"]
    assert len(await desk.appointments("shop", PHONE)) == 1


async def test_an_appointment_for_another_number(desk: ToolDesk) -> None:
    """As people say numbers: without the country code of where the tenant is."""
    said = calling(said=("It is two one two", "five double five, oh one double nine."))
    await use(desk, "create_appointment", said, starts_at="2026-11-24T14:30", phone="(212) 555-0199")
    assert len(await desk.appointments("shop", "+12125550199")) == 1


async def test_what_is_learnt_of_a_caller_adds_up(desk: ToolDesk) -> None:
    await use(desk, "update_lead", name="Dana", city="Boston")
    assert await use(desk, "update_lead", service="implants", status="qualified", note="prefers mornings") == {
        "saved": True
    }
    known = await use(desk, "lookup_caller", calling(tenant=OPEN_SHOP))
    assert known["known"] is True
    assert {name: known[name] for name in ("name", "city", "service", "status", "note")} == {
        "name": "Dana",
        "city": "Boston",
        "service": "implants",
        "status": "qualified",
        "note": "prefers mornings",
    }
    assert known["appointments"] == known["last_calls"] == []


async def test_a_caller_is_looked_up_by_the_number_alone(desk: ToolDesk) -> None:
    assert await use(desk, "lookup_caller") == {"known": False}
    await use(desk, "update_lead", calling(phone="+12125550177"), name="Somebody else")
    assert await use(desk, "lookup_caller") == {"known": False}
    await use(desk, "create_appointment", starts_at="2026-11-24T14:30", service="cleaning")
    known = await use(desk, "lookup_caller", calling(tenant=OPEN_SHOP))
    assert known["appointments"] == [{"starts_at": "Tuesday, 2026-11-24 14:30", "service": "cleaning"}]


@pytest.mark.parametrize("phone", ["", "anonymous", "client:jane", "+1", "sip:jane@example.com"])
async def test_a_caller_without_a_number_is_asked_for_one(desk: ToolDesk, phone: str) -> None:
    for name, arguments in (
        ("update_lead", {"name": "Dana"}),
        ("create_appointment", {"starts_at": "2026-11-24T14:30"}),
        ("lookup_caller", {}),
    ):
        with pytest.raises(ToolError, match="withheld: ask the caller for one"):
            await use(desk, name, calling(phone=phone), **arguments)
    who = calling(phone=phone, said=("Call me at 212-555-0199.",))
    said = await use(desk, "create_appointment", who, starts_at="2026-11-24T14:30", phone="+12125550199")
    assert said["already_made"] is False


@pytest.mark.sockets
async def test_the_last_calls_are_looked_up_with_their_summaries(cluster: TestCluster) -> None:
    async with open_store(cluster) as (store, pool):
        async with pool.connection() as connection:
            for number in range(7):
                at = datetime(2026, 3, 1 + number, 12, tzinfo=UTC)
                changes = {"caller": PHONE, "tenant_id": "shop", "answered_at": at}
                record = make_record(number, ended_at=at + timedelta(minutes=1), **changes)
                call_id = await keep_record(connection, record)
            await connection.execute(
                "UPDATE postcall_steps SET state = 'done', result = '{\"summary\": \"Asked for implants.\"}' "
                "WHERE call_id = %s AND step = 'summary'",
                [call_id],
            )
        known = await use(store, "lookup_caller", calling(tenant=OPEN_SHOP))
        assert len(known["last_calls"]) == 5
        assert known["last_calls"][0] == {"at": "Saturday, 2026-03-07 07:00", "about": "Asked for implants."}
        assert known["last_calls"][1]["about"] == "not known"
        assert await use(store, "lookup_caller", calling(tenant=Tenant("other", "Other"))) == {"known": False}


@pytest.mark.sockets
async def test_a_desk_whose_database_is_not_there_says_so(cluster: TestCluster) -> None:
    async with open_pool(cluster.server) as pool:
        with pytest.raises(DatabaseError):
            await use(StoreDesk(Database(cluster.server, pool)), "lookup_caller")


@pytest.mark.sockets
async def test_do_4_a_caller_makes_so_many_appointments_a_day_in_all_calls(cluster: TestCluster) -> None:
    """Counted are those for a number, and those of a caller's calls; the same one again is no further one."""
    other = "+12125550199"
    async with open_store(cluster) as (store, pool):
        async with pool.connection() as connection:
            await keep_record(connection, make_record(1, caller=PHONE, tenant_id="shop"))

        async def make(number: int, hour: int, phone: str = PHONE, caller: str = PHONE) -> bool:
            at = datetime(2026, 11, 24, hour, tzinfo=UTC)
            new = NewAppointment("shop", sid(number), f"call_{hour}", at, phone, caller=caller)
            return await store.add_appointment(new, most_a_day=3) is not None

        assert await make(1, 10, phone=other)
        assert await make(1, 11)
        assert await make(2, 12, caller="anonymous"), "for that number, by whomever"
        assert not await make(1, 13), "the caller's own, and one of theirs for another number"
        assert not await make(3, 13, phone="+12125550188")
        assert await make(1, 11), "it is made already"
        assert await make(3, 13, caller="anonymous", phone=other)
        assert await make(3, 14, caller="anonymous", phone="+12125550188"), "withheld numbers are not one caller"
        assert len(await store.appointments("shop", PHONE)) == 2
        async with pool.connection() as connection:
            await connection.execute("UPDATE appointments SET created_at = now() - interval '25 hours'")
        assert await make(1, 15)


@pytest.mark.sockets
async def test_do_4_calls_at_the_same_time_make_no_more(cluster: TestCluster) -> None:
    """The check and the appointment are one: ten calls at once from one number make three."""
    made: list[bool] = []
    async with open_store(cluster) as (store, _), trio.open_nursery() as nursery:
        for number in range(10):
            at = datetime(2026, 11, 24, number, tzinfo=UTC)
            new = NewAppointment("shop", sid(number), "call_1", at, PHONE, caller=PHONE)

            @nursery.start_soon
            async def _make(new: NewAppointment = new) -> None:
                made.append(await store.add_appointment(new, most_a_day=3) is not None)

    assert sorted(made) == [False] * 7 + [True] * 3


# What the model may send


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("create_appointment", {}),
        ("create_appointment", {"starts_at": 1764000000}),
        ("create_appointment", {"starts_at": "2026-11-24T14:30", "doctor": "Who"}),
        ("create_appointment", {"starts_at": "x" * 41}),
        ("update_lead", {"status": "appointment"}),
        ("update_lead", {"name": ["Dana"]}),
        ("update_lead", {"note": "x" * 2001}),
        ("lookup_caller", {"phone": "+12125550199"}),
    ],
)
async def test_arguments_that_do_not_fit(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ToolArgumentsError):
        await use(MemoryDesk(), name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("create_appointment", {"starts_at": "tomorrow at three"}, "no date and time"),
        ("create_appointment", {"starts_at": "2026-11-20T11:59"}, "past"),
        ("create_appointment", {"starts_at": "2027-03-14T02:30"}, "does not exist"),
        ("create_appointment", {"starts_at": "2026-11-24T14:30", "phone": "ring me"}, "no telephone number"),
        ("update_lead", {}, "nothing was given"),
    ],
)
async def test_what_cannot_be_is_told_to_the_model(name: str, arguments: dict[str, Any], said: str) -> None:
    desk = MemoryDesk()
    with pytest.raises(ToolError, match=said):
        await use(desk, name, **arguments)
    assert desk.leads == {}


def test_what_writes_is_finished_and_what_reads_is_not() -> None:
    assert {tool.name: tool.writes for tool in DeskTools(MemoryDesk()).tools()} == {
        "create_appointment": True,
        "update_lead": True,
        "lookup_caller": False,
    }

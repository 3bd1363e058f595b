"""Two tell of the same thing at the same time: one row, nothing forgotten, and nobody waits for ever (PC-4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import trio
from ended_calls import TURNS, change, make_record, rows, sid
from psycopg.rows import TupleRow

from agent.core.records import RecordingCallback
from agent.core.units import RecordingSid
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import call_answered, end_crashed, keep_record, save_turn
from agent.store.sql.leads import add_appointment, find_lead, upsert_lead
from agent.store.sql.recordings import note_callback
from agent.store.sql.values import AnsweredCall, LeadUpdate, NewAppointment

pytestmark = pytest.mark.sockets
Work = Callable[[Connection[TupleRow]], Awaitable[Any]]
SID = RecordingSid("RE" + "1" * 32)
PHONE = "+15550100001"
ROUNDS = 15


async def at_once(conninfo: str, *works: Work) -> list[Any]:
    """Each on a connection of its own, begun in the same moment; an error of any is the test's."""
    results: list[Any] = [None] * len(works)
    ready, go = trio.Semaphore(0), trio.Event()

    async def run(place: int, work: Work) -> None:
        async with open_connection(conninfo) as connection:
            ready.release()
            await go.wait()
            results[place] = await work(connection)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for place, work in enumerate(works):
                nursery.start_soon(run, place, work)
            for _ in works:
                await ready.acquire()
            go.set()
    return results


def answer(number: int) -> AnsweredCall:
    record = make_record(number)
    return AnsweredCall(record.call_sid, "default", "inbound", record.caller, record.called, record.answered_at)


async def test_everybody_tells_of_the_same_call(postgres: str) -> None:
    """The answer, its turns, the record (twice: from the channel and the spool) and the carrier's callback."""
    for number in range(1, ROUNDS + 1):
        record = make_record(number, recording_sid=RecordingSid(f"RE{number}"))
        told = RecordingCallback(sid(number), RecordingSid(f"RE{number}"), "completed", "https://x", 40, 2)

        async def turns(connection: Connection[TupleRow], number: int = number) -> None:
            for turn in TURNS:
                await save_turn(connection, sid(number), turn)

        await at_once(
            postgres,
            partial(call_answered, call=answer(number)),
            turns,
            partial(keep_record, record=record),
            partial(keep_record, record=record),
            partial(note_callback, callback=told),
        )
    found = rows(
        postgres,
        "SELECT c.status, c.due_at <= now(), r.status, (SELECT count(*) FROM turns WHERE call_id = c.id), "
        "(SELECT count(*) FROM postcall_steps WHERE call_id = c.id) FROM calls c "
        "JOIN recordings r ON r.call_id = c.id",
    )
    assert found == [("ended", True, "completed", 3, 7)] * ROUNDS


async def test_the_callback_and_the_row_of_its_call_do_not_miss_each_other(postgres: str) -> None:
    """Neither sees what the other has not committed; the recording is not in the record."""
    for number in range(1, ROUNDS + 1):
        told = RecordingCallback(sid(number), RecordingSid(f"RE{number}"), "completed", "https://x")
        await at_once(
            postgres,
            partial(keep_record, record=make_record(number)),
            partial(note_callback, callback=told),
        )
    assert rows(postgres, "SELECT count(*) FROM recordings WHERE status = 'completed'") == [(ROUNDS,)]


async def test_a_call_is_held_to_have_crashed_while_its_record_comes(postgres: str) -> None:
    """Whoever is first, the record stands in the end."""
    for number in range(1, ROUNDS + 1):
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        change(
            postgres,
            "INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at) "
            "VALUES (%s, 'default', 'inbound', '', '', 'active', %s)",
            sid(number),
            long_ago,
        )
        told = RecordingCallback(sid(number), RecordingSid(f"RE{number}"), "completed", "https://x")
        await at_once(
            postgres,
            partial(keep_record, record=make_record(number)),
            end_crashed,
            end_crashed,
            partial(note_callback, callback=told),
        )
    assert rows(postgres, "SELECT DISTINCT outcome, record IS NULL, claim IS NULL FROM calls") == [
        ("caller_hung_up", False, True)
    ]
    assert rows(postgres, "SELECT count(*) FROM recordings") == [(ROUNDS,)]


def learnt(status: str, **fields: Any) -> LeadUpdate:
    return LeadUpdate("default", PHONE, status=status, **fields)


async def test_ten_learn_of_the_same_lead(postgres: str) -> None:
    fields = ["name", "city", "service", "note"]
    statuses = ["new", "qualified", "contacted"]
    updates = [learnt(status, **{field: field}) for field, status in zip(fields * 3, statuses * 4, strict=True)]
    ids = await at_once(postgres, *(partial(upsert_lead, update=update) for update in updates))
    assert len(set(ids)) == 1
    async with open_connection(postgres) as connection:
        lead = await find_lead(connection, "default", PHONE)
    assert lead is not None
    assert (lead.name, lead.city, lead.service, lead.note) == tuple(fields)
    assert lead.status == "qualified"


NINE = datetime(2030, 1, 2, 9, tzinfo=UTC)
SAME_TOOL_CALL = [
    NewAppointment("default", sid(1), "call_1", NINE + timedelta(hours=hour), PHONE) for hour in range(10)
]
SAME_TIME = [NewAppointment("default", sid(number), f"call_{number}", NINE, PHONE) for number in range(10)]


@pytest.mark.parametrize("wishes", [SAME_TOOL_CALL, SAME_TIME], ids=["tool call", "person and time"])
async def test_ten_make_the_same_appointment(postgres: str, wishes: list[NewAppointment]) -> None:
    results = await at_once(postgres, *(partial(add_appointment, new=wish) for wish in wishes))
    assert rows(postgres, "SELECT count(*) FROM appointments") == [(1,)]
    assert len({appointment_id for appointment_id, _ in results}) == 1
    assert sorted(created for _, created in results) == [False] * 9 + [True]

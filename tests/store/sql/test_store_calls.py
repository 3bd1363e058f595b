"""Calls in the database: from the answer to the record, in any order, once or twice (PC-1, PC-3, PC-4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import attrs
import psycopg
import pytest
import trio
from ended_calls import TURNS, change, make_record, rows, sid
from psycopg.rows import TupleRow

from agent.core.records import RecordingCallback, TimelineEvent, Turn
from agent.core.steps import STEPS
from agent.core.tenant import make_tenant
from agent.core.units import CallSid, RecordingSid
from agent.postcall import Ledger
from agent.store import Database
from agent.store.pg import Connection, open_connection, open_pool
from agent.store.sql import views
from agent.store.sql.calls import (
    CALLBACK_S,
    UNSEEN_S,
    call_answered,
    end_crashed,
    heartbeat,
    keep_record,
    save_turn,
)
from agent.store.sql.recordings import note_callback
from agent.store.sql.tenants import put_tenant
from agent.store.sql.text import KEY_CHARACTERS
from agent.store.sql.values import AnsweredCall

pytestmark = pytest.mark.sockets
RECORDING = RecordingSid("RE" + "1" * 32)


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(postgres) as opened:
        yield opened


def answer(number: int = 1, **changes: Any) -> AnsweredCall:
    record = make_record(number)
    call = AnsweredCall(
        record.call_sid, "default", "inbound", record.caller, record.called, record.answered_at, uuid4()
    )
    return attrs.evolve(call, **changes)


def everything(conninfo: str) -> list[list[tuple[Any, ...]]]:
    """All rows of all that a record makes, as they are to the microsecond."""
    tables = ("calls", "turns", "recordings", "postcall_steps", "appointments")
    return [rows(conninfo, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]  # noqa: S608 - of ours


async def test_from_the_answer_to_the_record(connection: Connection[TupleRow], postgres: str) -> None:
    call = answer()
    await call_answered(connection, call)
    assert rows(postgres, "SELECT status, server_id, ended_at, due_at FROM calls") == [
        ("active", call.server_id, None, None)
    ]
    for turn in TURNS:
        await save_turn(connection, call.call_sid, turn)
    call_id = await keep_record(connection, make_record())
    [(status, outcome, due)] = rows(postgres, "SELECT status, outcome, due_at <= now() FROM calls")
    assert (status, outcome, due) == ("ended", "caller_hung_up", True)
    assert tuple(await views.turns_of(connection, call_id)) == TURNS
    assert [(step.step, step.state) for step in await views.steps_of(connection, call_id)] == [
        (step, "pending") for step in STEPS
    ]


async def test_a_call_that_ended_before_its_first_frame_has_its_row_from_its_record(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await keep_record(connection, make_record())
    await call_answered(connection, answer())  # late, from the spool
    assert rows(postgres, "SELECT status, server_id FROM calls") == [("ended", None)]


async def test_an_answer_told_twice_is_one_call(connection: Connection[TupleRow], postgres: str) -> None:
    await call_answered(connection, answer())
    await call_answered(connection, answer(server_id=uuid4(), caller="+15559999999"))
    assert rows(postgres, "SELECT caller FROM calls") == [(make_record().caller,)]


async def test_the_same_record_again_changes_nothing(connection: Connection[TupleRow], postgres: str) -> None:
    record = make_record(recording_sid=RECORDING)
    first = await keep_record(connection, record)
    change(postgres, "UPDATE postcall_steps SET state = 'done', result = '{}' WHERE step = 'summary'")
    change(postgres, "UPDATE calls SET due_at = NULL")
    before = everything(postgres)
    assert await keep_record(connection, record) == first
    assert everything(postgres) == before


async def test_a_record_that_fails_in_the_middle_leaves_nothing_of_itself(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await call_answered(connection, answer())
    await save_turn(connection, sid(1), TURNS[0])
    before = everything(postgres)
    change(postgres, "ALTER TABLE postcall_steps ADD CONSTRAINT broken CHECK (step <> 'webhook') NOT VALID")
    with pytest.raises(psycopg.errors.CheckViolation):
        await keep_record(connection, make_record())
    assert everything(postgres) == before


async def test_what_is_new_of_a_turn(connection: Connection[TupleRow], postgres: str) -> None:
    """The words of a caller come after the turn; the same turn again brings them."""
    await call_answered(connection, answer())
    await save_turn(connection, sid(1), attrs.evolve(TURNS[1], text="", heard_text="", complete=False))
    await save_turn(connection, sid(1), TURNS[1])
    assert rows(postgres, "SELECT text, complete FROM turns") == [(TURNS[1].text, True)]


async def test_turns_without_an_item_have_a_name_all_the_same(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await call_answered(connection, answer())
    for started_ms in (0, 900):
        turn = Turn("caller", "", "yes", "yes", started_ms, 500, 500, interrupted=False)
        await save_turn(connection, sid(1), turn)
        await save_turn(connection, sid(1), attrs.evolve(turn, role="agent"))
    assert rows(postgres, "SELECT count(*) FROM turns") == [(4,)]


async def test_a_turn_of_a_call_that_is_not_known_or_ended_is_left_to_the_record(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await save_turn(connection, sid(1), TURNS[0])
    await keep_record(connection, make_record(turns=()))
    await save_turn(connection, sid(1), TURNS[0])
    assert rows(postgres, "SELECT * FROM turns") == []


async def test_the_record_knows_better_than_the_turns_that_were_saved(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await call_answered(connection, answer())
    await save_turn(connection, sid(1), attrs.evolve(TURNS[0], item_id="gone", text="never said"))
    call_id = await keep_record(connection, make_record())
    assert tuple(await views.turns_of(connection, call_id)) == TURNS


async def test_a_tenant_that_is_not_there_loses_no_call(connection: Connection[TupleRow], postgres: str) -> None:
    await call_answered(connection, answer(1, tenant_id="long-gone"))
    await keep_record(connection, make_record(2, tenant_id="long-gone"))
    await put_tenant(connection, make_tenant(name="Harbour Dental"))
    await keep_record(connection, make_record(3, tenant_id="harbour-dental"))
    assert rows(postgres, "SELECT tenant_id FROM calls ORDER BY id") == [
        ("default",),
        ("default",),
        ("harbour-dental",),
    ]


@pytest.mark.parametrize("nasty", ["a\0b", "a\ud800b", "\udfff\0", "שלום 🎺"])
async def test_whatever_the_text_is_no_record_is_lost(
    connection: Connection[TupleRow], postgres: str, nasty: str
) -> None:
    """Postgres has no NUL in texts and JSON, and no halves of surrogate pairs."""
    turn = attrs.evolve(TURNS[0], item_id=f"item{nasty}", text=nasty, heard_text=nasty)
    await call_answered(connection, answer(caller=nasty, called=nasty))
    await save_turn(connection, sid(1), turn)
    await note_callback(connection, RecordingCallback(sid(1), RecordingSid(f"RE{nasty}"), "failed", url=nasty))
    record = make_record(
        turns=(turn,),
        reason=nasty,
        dtmf=nasty,
        caller=nasty,
        recording_sid=RecordingSid(f"RE{nasty}"),
        timeline=(TimelineEvent(1, nasty, {nasty: [nasty, {"deep": nasty}]}),),
    )
    await keep_record(connection, record)
    kept = nasty.replace("\0", "").encode(errors="replace").decode()
    assert rows(postgres, "SELECT text, heard_text FROM turns") == [(kept, kept)]
    assert rows(postgres, "SELECT reason, record->'timeline'->0->'detail' FROM calls") == [
        (kept, {kept: [kept, {"deep": kept}]})
    ]


async def test_names_as_long_as_a_broken_peer_makes_them(connection: Connection[TupleRow], postgres: str) -> None:
    """An index has no room for them; refused as it would be, the record would wait for ever."""
    long = "".join(chr(0x4E00 + number) for number in range(9000))
    record = make_record(
        call_sid=CallSid(long),
        caller=long,
        called=long,
        recording_sid=RecordingSid(long),
        turns=(attrs.evolve(TURNS[0], item_id=long),),
    )
    await call_answered(connection, answer(call_sid=long, caller=long))
    await save_turn(connection, long, record.turns[0])
    await note_callback(connection, RecordingCallback(CallSid(long), RecordingSid(long), "completed"))
    await keep_record(connection, record)
    assert rows(postgres, "SELECT length(call_sid) FROM calls") == [(KEY_CHARACTERS,)]
    assert rows(postgres, "SELECT status FROM recordings") == [("completed",)]


async def test_clocks_that_went_back_and_figures_that_cannot_be(
    connection: Connection[TupleRow], postgres: str
) -> None:
    record = make_record(turns=(attrs.evolve(TURNS[0], audio_ms=-1, heard_ms=-5, started_ms=-3),))
    await keep_record(connection, attrs.evolve(record, ended_at=record.answered_at - timedelta(seconds=5)))
    assert rows(postgres, "SELECT ended_at = answered_at FROM calls") == [(True,)]


# When the work after a call is due


async def due_in_s(conninfo: str) -> float:
    [(seconds,)] = rows(conninfo, "SELECT extract(epoch FROM due_at - now())::float FROM calls")
    return float(seconds)


async def test_pc_2_without_a_recording_it_is_due_at_once(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await keep_record(connection, make_record())
    assert await due_in_s(postgres) <= 0


async def test_pc_2_a_recording_is_waited_for_until_the_carrier_tells_or_a_while(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await keep_record(connection, make_record(recording_sid=RECORDING))
    assert CALLBACK_S - 5 < await due_in_s(postgres) <= CALLBACK_S
    await note_callback(connection, RecordingCallback(sid(1), RECORDING, "in-progress"))
    assert await due_in_s(postgres) > CALLBACK_S - 5
    await note_callback(connection, RecordingCallback(sid(1), RECORDING, "completed", "https://x", 40, 2))
    assert await due_in_s(postgres) <= 0


async def test_pc_2_the_carrier_told_before_the_call_had_its_row(
    connection: Connection[TupleRow], postgres: str
) -> None:
    await note_callback(connection, RecordingCallback(sid(1), RECORDING, "completed", "https://x", 40, 2))
    await keep_record(connection, make_record(recording_sid=RECORDING))
    assert await due_in_s(postgres) <= 0
    assert rows(postgres, "SELECT status, url, duration_s, channels FROM recordings") == [
        ("completed", "https://x", 40, 2)
    ]


async def test_pc_2_a_record_from_the_spool_of_yesterday_is_due_at_once(
    connection: Connection[TupleRow], postgres: str
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    await keep_record(connection, make_record(recording_sid=RECORDING, answered_at=yesterday, ended_at=yesterday))
    assert await due_in_s(postgres) <= 0


def test_pc_3_the_database_itself_has_no_work_due_while_a_call_goes_on(postgres: str) -> None:
    insert = (
        "INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at, due_at) "
        "VALUES ('CA1', 'default', 'inbound', '', '', 'active', now(), now())"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        change(postgres, insert)


async def test_workers_are_told(connection: Connection[TupleRow], postgres: str) -> None:
    async with open_connection(postgres) as listener:
        await listener.execute("LISTEN postcall")
        await keep_record(connection, make_record())
        with trio.fail_after(5):
            notify = await listener.notification()
        assert (notify.channel, notify.payload) == ("postcall", "")


# Calls whose server is gone


async def answered_by(connection: Connection[TupleRow], number: int, **changes: Any) -> AnsweredCall:
    """A call that was answered an hour ago by a server that was seen then."""
    answered_at = datetime.now(UTC) - timedelta(hours=1)
    call = answer(number, answered_at=answered_at, **changes)
    assert call.server_id is not None
    await heartbeat(connection, call.server_id, "host")
    await call_answered(connection, call)
    return call


def age_server(conninfo: str, call: AnsweredCall, seconds: float) -> None:
    sql = "UPDATE servers SET seen_at = now() - %s * interval '1 s' WHERE id = %s"
    change(conninfo, sql, seconds, call.server_id)


@pytest.fixture
def _long_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests counts as having run for long."""
    came_up(monkeypatch, "'-infinity'::timestamptz")


def came_up(monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """The server counts as having come up then, whenever it did."""
    fetch_all = Connection.fetch_all

    def without_start(self: Connection[TupleRow], query: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(query, str):
            query = query.replace("pg_postmaster_start_time()", at)
        return fetch_all(self, query, *arguments, **options)

    monkeypatch.setattr(Connection, "fetch_all", without_start)


@pytest.mark.usefixtures("_long_up")
async def test_a_call_whose_server_was_not_seen_is_ended_with_the_turns_that_were_saved(
    connection: Connection[TupleRow], postgres: str
) -> None:
    seen, gone = await answered_by(connection, 1), await answered_by(connection, 2)
    await save_turn(connection, gone.call_sid, TURNS[0])
    await note_callback(
        connection, RecordingCallback(CallSid(gone.call_sid), RECORDING, "completed", "https://x")
    )
    age_server(postgres, seen, UNSEEN_S - 10)
    age_server(postgres, gone, UNSEEN_S + 5)
    assert await end_crashed(connection) == [gone.call_sid]
    [(call_id, outcome, due, seen_for)] = rows(
        postgres,
        "SELECT id, outcome, due_at <= now(), extract(epoch FROM now() - ended_at)::int FROM calls "
        "WHERE status = 'ended'",
    )
    assert (outcome, due) == ("crashed", True)
    assert UNSEEN_S <= seen_for <= UNSEEN_S + 30
    assert len(await views.turns_of(connection, call_id)) == 1
    assert len(await views.steps_of(connection, call_id)) == len(STEPS)
    assert rows(postgres, "SELECT call_id FROM recordings") == [(call_id,)]
    assert await end_crashed(connection) == []


async def test_the_calls_of_a_server_that_is_known_to_be_gone_end_at_once(
    connection: Connection[TupleRow],
) -> None:
    """The parent of several processes saw it die: nobody waits for a minute in which it is not seen."""
    other, gone = await answered_by(connection, 1), await answered_by(connection, 2)
    assert other.server_id != gone.server_id
    assert await end_crashed(connection) == []
    assert await end_crashed(connection, gone.server_id) == [gone.call_sid]
    assert await end_crashed(connection, gone.server_id) == []


async def test_calls_survive_the_databases_own_absence(
    connection: Connection[TupleRow], postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage nobody was seen for long; each server has its time to be seen again."""
    call = await answered_by(connection, 1)
    age_server(postgres, call, 3000)
    came_up(monkeypatch, f"now() - interval '{UNSEEN_S - 10} s'")
    assert await end_crashed(connection) == []
    came_up(monkeypatch, f"now() - interval '{UNSEEN_S + 5} s'")
    assert await end_crashed(connection) == [call.call_sid]


@pytest.mark.usefixtures("_long_up")
async def test_a_call_that_goes_on_is_not_ended_when_its_row_comes_late(
    connection: Connection[TupleRow], postgres: str
) -> None:
    """Its row waited on disk while the database was away, which has not seen its server since."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    ours, dead = answer(1, answered_at=long_ago), answer(2, answered_at=long_ago)
    for call in (ours, dead):
        await heartbeat(connection, call.server_id or uuid4())
        age_server(postgres, call, UNSEEN_S + 5)
    async with open_pool(postgres, max_size=1) as pool:
        database = Database(postgres, pool)
        database.ready.set()
        ledger = Ledger(database, ours.server_id)
        await ledger.keep(ours)
        await ledger.keep(dead)
    assert await end_crashed(connection) == [dead.call_sid]


@pytest.mark.usefixtures("_long_up")
async def test_a_call_of_an_unknown_server_ends_too(connection: Connection[TupleRow]) -> None:
    call = answer(1, server_id=None, answered_at=datetime.now(UTC) - timedelta(hours=1))
    await call_answered(connection, call)
    fresh = answer(2, server_id=None)
    await call_answered(connection, attrs.evolve(fresh, answered_at=datetime.now(UTC)))
    assert await end_crashed(connection) == [call.call_sid]


@pytest.mark.usefixtures("_long_up")
async def test_the_true_record_replaces_a_crash_and_its_work_begins_anew(
    connection: Connection[TupleRow], postgres: str
) -> None:
    call = await answered_by(connection, 1)
    age_server(postgres, call, UNSEEN_S + 5)
    await end_crashed(connection)
    change(postgres, "UPDATE postcall_steps SET state = 'done', result = '{}', attempts = 1")
    change(
        postgres,
        "UPDATE calls SET due_at = NULL, claim = gen_random_uuid(), claimed_by = 'w', claimed_at = now()",
    )
    call_id = await keep_record(connection, make_record())
    assert rows(postgres, "SELECT outcome, claim, due_at <= now() FROM calls") == [("caller_hung_up", None, True)]
    assert {step.state for step in await views.steps_of(connection, call_id)} == {"pending"}
    assert tuple(await views.turns_of(connection, call_id)) == TURNS


async def test_servers_that_were_not_seen_for_long_are_forgotten(
    connection: Connection[TupleRow], postgres: str
) -> None:
    old, new = uuid4(), uuid4()
    await heartbeat(connection, old)
    change(postgres, "UPDATE servers SET seen_at = now() - interval '8 days'")
    for _ in range(2):
        await heartbeat(connection, new, "host")
    assert rows(postgres, "SELECT id, host FROM servers") == [(new, "host")]

"""Keeping calls while they go on: one background INSERT a turn, and no database is noticed by a call (NB-5)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import attrs
import psycopg
import pytest
import trio
from heard_audio import heard_numbers
from memory_journal import MemoryJournal, MemorySpool, make_keeper
from trio.testing import MockClock
from virtual_call import CALL_SID, FakeServices, open_call, open_services

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.records import Outcome, Turn
from agent.core.telemetry import Telemetry
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.store import Database
from agent.store.call_writer import AWAY_S, HEARTBEAT_S, QUEUED, WRITE_S, CallWriter, write_entry
from agent.store.pg import Pool, open_pool
from agent.store.sql.calls import keep_record
from agent.store.sql.values import AnsweredCall

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CALL = AnsweredCall("CA1", "default", "inbound", "+15551230001", "+15551230002", NOW)
GREETING = Answer("Hello, how can I help?", 1500)
ANSWER = Answer("We are open from nine to five.", 2000)


def turn(number: int, text: str = "") -> Turn:
    """One of several turns of the caller."""
    words = text or f"Words {number}."
    return Turn("caller", f"item {number}", words, words, number * 1000, 500, 500, interrupted=False)


async def raises(error: Exception) -> None:
    """A database that fails."""
    await trio.lowlevel.checkpoint()
    raise error


@asynccontextmanager
async def running(keeper: CallWriter) -> AsyncIterator[None]:
    """The keeper at work."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield
        nursery.cancel_scope.cancel()


# The keeper


async def test_what_comes_is_written_in_order(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    keeper = make_keeper(journal)
    async with running(keeper):
        keeper.answered(CALL)
        for number in range(3):
            keeper.turn("CA1", turn(number))
        keeper.turn("CA1", turn(1, "Better heard."))
        await trio.sleep(1)
    assert journal.calls["CA1"].server_id == keeper.server_id
    assert [kind for _, kind in journal.writes] == ["answered", *["caller"] * 4]
    assert [entry.text for entry in journal.turns.values()] == ["Words 0.", "Better heard.", "Words 2."]


async def test_a_database_that_hangs_costs_the_rows_their_copy(autojump_clock: MockClock) -> None:
    """Each failed write is bounded and followed by a pause: the row goes to the spool, turns to the record."""
    journal, spool = MemoryJournal(partial(trio.sleep, math.inf)), MemorySpool()
    keeper = make_keeper(journal, spool)
    async with running(keeper):
        keeper.answered(CALL)
        keeper.turn("CA1", turn(1))
        await trio.sleep(WRITE_S + AWAY_S + 0.1)
        assert [call.call_sid for call in spool.calls] == ["CA1"]
        assert keeper.events.counts["TURN_LEFT_TO_RECORD"] == 1
        journal.before_each = None
        keeper.answered(attrs.evolve(CALL, call_sid="CA2"))
        keeper.turn("CA2", turn(2))
        await trio.sleep(1)
    assert list(journal.calls) == ["CA2"]
    assert [entry.item_id for entry in journal.turns.values()] == ["item 2"]


@pytest.mark.parametrize(
    "error", [psycopg.OperationalError("gone"), psycopg.InterfaceError("closed"), DatabaseError("not ready")]
)
async def test_a_database_that_is_away_is_left_alone_for_a_while(
    autojump_clock: MockClock, error: Exception
) -> None:
    asked: list[float] = []

    async def away() -> None:
        asked.append(trio.current_time())
        await raises(error)

    spool = MemorySpool()
    keeper = make_keeper(MemoryJournal(away), spool)
    async with running(keeper):
        await trio.sleep(0.1)  # the first heartbeat
        asked.clear()
        for number in range(1000):
            keeper.answered(attrs.evolve(CALL, call_sid=f"CA{number}"))
        await trio.sleep(1)
    assert len(asked) == 1
    assert len(spool.calls) == 1000


async def test_a_row_that_the_database_refuses_is_nobody_elses_trouble(autojump_clock: MockClock) -> None:
    journal = MemoryJournal(partial(raises, psycopg.DataError("no such thing")))
    keeper = make_keeper(journal)
    async with running(keeper):
        keeper.answered(CALL)
        await trio.sleep(0.1)
        journal.before_each = None
        keeper.answered(attrs.evolve(CALL, call_sid="CA2"))
        await trio.sleep(HEARTBEAT_S)
    assert list(journal.calls) == ["CA2"]
    assert keeper.events.counts["KEEPING_REFUSED"] == 1
    assert journal.beats_s


async def test_a_full_disk_besides_is_loud_and_nothing_more(autojump_clock: MockClock) -> None:
    keeper = make_keeper(MemoryJournal(partial(raises, DatabaseError("away"))), MemorySpool(fails=True))
    async with running(keeper):
        keeper.answered(CALL)
        keeper.answered(CALL)
        await trio.sleep(1)
    assert keeper.events.counts["ANSWER_NOT_KEPT"] == 2


async def test_the_queue_is_bounded(autojump_clock: MockClock) -> None:
    keeper = make_keeper(MemoryJournal())
    for number in range(QUEUED + 5):
        keeper.turn("CA1", turn(number))
    assert keeper.events.counts["NOT_KEPT_IN_TIME"] == 5


async def test_the_server_says_that_it_lives(autojump_clock: MockClock) -> None:
    """Each HEARTBEAT_S; a missed one, or one that hangs, is followed by the next."""
    journal = MemoryJournal()
    keeper = make_keeper(journal)
    async with running(keeper):
        await trio.sleep(HEARTBEAT_S * 2.5)
        assert len(journal.beats_s) == 3
        journal.before_each = partial(raises, psycopg.OperationalError("gone"))
        await trio.sleep(HEARTBEAT_S)
        journal.before_each = partial(trio.sleep, math.inf)
        await trio.sleep(HEARTBEAT_S)
        journal.before_each = None
        await trio.sleep(HEARTBEAT_S * 2)
    assert keeper.events.counts["HEARTBEAT_MISSED"] == 2
    assert len(journal.beats_s) >= 4


# Calls


@asynccontextmanager
async def open_kept_call(
    keeper: CallWriter, **settings: Any
) -> AsyncIterator[tuple[FakeServices, SimulatedStream, ScriptedRealtime]]:
    """A call that is kept."""
    model = ScriptedRealtime([GREETING, ANSWER], transcripts=["When are you open?"], transcription_delay_ms=900)
    async with (
        running(keeper),
        open_services(memory_realtime(lambda: model), keeper=keeper, **settings) as services,
        open_call(services, at_most_s=600.0) as stream,
    ):
        yield services, stream, model


async def play(stream: SimulatedStream) -> None:
    """The greeting, a question, and its answer."""
    await stream.until_heard_ms(1500)
    await trio.sleep(0.5)
    stream.say(tone(600))
    await stream.until_heard_ms(3500)
    await trio.sleep(1)
    await stream.hang_up()


async def test_nb_5_a_call_is_kept_as_it_goes(autojump_clock: MockClock) -> None:
    """NB-5, TX-9: the row after FIRST_FRAME_SENT, each turn once, when it is over, with what was heard."""
    journal = MemoryJournal()
    async with open_kept_call(make_keeper(journal)) as (services, stream, _):
        began_s = trio.current_time()
        await play(stream)
    first_frame_ms = services.record.metrics.first_audio_ms
    assert first_frame_ms is not None
    assert journal.writes[0][1] == "answered"
    assert journal.writes[0][0] - began_s >= first_frame_ms / 1000
    assert [kind for _, kind in journal.writes] == ["answered", "agent", "caller", "agent"]
    assert sorted(journal.turns.values(), key=lambda kept: kept.started_ms) == list(services.record.turns)
    call = journal.calls[CALL_SID]
    assert (call.caller, call.called, call.direction) == ("+15551230001", "+15551230002", "inbound")
    assert call.answered_at == services.record.answered_at
    assert call.tenant_id == "default"


async def test_turns_before_the_first_frame_follow_the_row(autojump_clock: MockClock) -> None:
    """The caller begins and is transcribed before the agent has said a word."""
    journal = MemoryJournal()
    model = ScriptedRealtime([Answer("Yes.", 800, first_delta_ms=3000)], transcripts=["Hello?"])
    keeper = make_keeper(journal)
    async with (
        running(keeper),
        open_services(memory_realtime(lambda: model), keeper=keeper, greeting="") as services,
        open_call(services) as stream,
    ):
        await trio.sleep(0.5)
        stream.say(tone(400))
        await stream.until_heard_ms(800)
        await trio.sleep(1)
        await stream.hang_up()
    assert [kind for _, kind in journal.writes] == ["answered", "caller", "agent"]
    assert sorted(journal.turns.values(), key=lambda kept: kept.started_ms) == list(services.record.turns)


async def test_an_interrupted_turn_is_kept_as_it_was_heard(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    async with open_kept_call(make_keeper(journal), greeting_protect_ms=0) as (services, stream, _):
        await stream.until_heard_ms(700)
        stream.say(tone(400))
        await trio.sleep(6)
        cut = [entry for entry in journal.turns.values() if entry.interrupted]
        assert len(cut) == 1
        assert cut[0].heard_ms == pytest.approx(700, abs=200)
        await stream.hang_up()
    assert cut[0] in services.record.turns


@pytest.mark.parametrize("trouble", ["hangs", "is slow", "is away"])
async def test_nb_1_no_database_is_noticed_by_a_call(autojump_clock: MockClock, trouble: str) -> None:
    """NB-1, NB-5: hanging for minutes, slow, or dead: the caller hears the same, frame by frame."""
    troubles: dict[str, Callable[[], Any]] = {
        "hangs": partial(trio.sleep, math.inf),
        "is slow": partial(trio.sleep, WRITE_S * 0.9),
        "is away": partial(raises, psycopg.OperationalError("gone")),
    }

    async def heard_with(journal: MemoryJournal) -> tuple[Any, ...]:
        async with open_kept_call(make_keeper(journal)) as (services, stream, _):
            await play(stream)
        record, figures = services.record, services.record.metrics
        assert record.outcome is Outcome.CALLER_HUNG_UP
        assert services.handed_over() == [record.call_sid]
        words = [(turn.role, turn.text, turn.heard_text, turn.interrupted) for turn in record.turns]
        gap_ms = round(figures.max_gap_ms or 0)
        return words, heard_numbers(stream), figures.frames_out, figures.fps, gap_ms, figures.stalls

    assert await heard_with(MemoryJournal(troubles[trouble])) == await heard_with(MemoryJournal())


async def test_a_call_that_nobody_keeps_is_a_call(autojump_clock: MockClock) -> None:
    """Without a database there is no keeper."""
    model = ScriptedRealtime([GREETING, ANSWER])
    async with open_services(memory_realtime(lambda: model)) as services, open_call(services) as stream:
        await play(stream)
    assert len(services.record.turns) == 3


# The real one behaves as the one in memory


@asynccontextmanager
async def open_store(conninfo: str) -> AsyncIterator[tuple[Database, Pool]]:
    """A database that is ready."""
    async with open_pool(conninfo) as pool:
        database = Database(conninfo, pool)
        await database.make_ready()
        yield database, pool


@pytest.mark.sockets
async def test_the_journal_of_the_store(postgres: str) -> None:
    """Rows in order; again changes nothing; what is new updates; of unknown calls nothing is kept."""
    with trio.fail_after(20):
        async with open_store(postgres) as (database, pool):
            fake = MemoryJournal()
            for write in (partial(write_entry, database), fake.write):
                await write(("CA1", turn(0)))
                for _ in range(2):
                    await write(CALL)
                await write(("CA1", turn(1)))
                await write(("CA1", turn(2)))
                await write(("CA1", turn(1, "Better heard.")))
                await write(uuid4())
            async with pool.connection() as connection:
                cursor = await connection.execute(
                    "SELECT item_id, text, started_ms FROM turns ORDER BY started_ms"
                )
                kept = await cursor.fetchall()
                cursor = await connection.execute("SELECT call_sid, status FROM calls")
                assert await cursor.fetchall() == [("CA1", "active")]
            assert kept == [(entry.item_id, entry.text, entry.started_ms) for entry in fake.turns.values()]


@pytest.mark.sockets
async def test_a_call_on_a_real_database(postgres: str) -> None:
    """What the keeper wrote is what the record says; the record's turns replace it without a trace."""
    with trio.fail_after(30):
        async with open_store(postgres) as (database, pool):
            keeper = CallWriter(partial(write_entry, database), EventLog(Telemetry()), MemorySpool().keep)
            async with open_kept_call(keeper) as (services, stream, _):
                await stream.until_heard_ms(1500)
                stream.say(tone(300))
                await stream.until_heard_ms(2500)
                await trio.sleep(0.5)
                await stream.hang_up()
            query = "SELECT role, text, heard_text, started_ms, heard_ms FROM turns ORDER BY started_ms"
            async with pool.connection() as connection:
                before = await (await connection.execute(query)).fetchall()
                await keep_record(connection, services.record)
                after = await (await connection.execute(query)).fetchall()
                cursor = await connection.execute("SELECT server_id, status, tenant_id FROM calls")
                assert await cursor.fetchall() == [(keeper.server_id, "ended", "default")]
            assert before[:2] == after[:2]
            assert len(after) == len(services.record.turns)

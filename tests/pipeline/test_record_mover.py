"""From the spool into the database: everything, whatever the database does meanwhile, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import attrs
import psycopg
import pytest
import trio
from cancelling import strike
from ended_calls import make_record, rows, sid

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.telemetry import Telemetry
from agent.postcall import Ledger, PostCallChannel, RecordMover, run_postcall
from agent.store import Database
from agent.store.pg import open_pool
from agent.store.spool import Spool
from agent.store.sql.values import AnsweredCall

pytestmark = pytest.mark.sockets
Entry = CallRecord | AnsweredCall


@attrs.define(eq=False)
class MemoryLedger:
    """Keeps entries in memory, unless something is in the way."""

    kept: list[str] = attrs.field(factory=list)
    obstacles: dict[str, list[Exception]] = attrs.field(factory=dict)
    """What keeping an entry of that call raises, one each time; the last one for ever."""
    away: Exception | None = None
    tries: int = 0
    changed: trio.Event = attrs.field(factory=trio.Event)

    async def keep(self, entry: Entry) -> None:
        """See Ledger."""
        await trio.lowlevel.checkpoint()
        self.tries += 1
        self.changed.set()
        self.changed = trio.Event()
        if self.away is not None:
            raise self.away
        if obstacles := self.obstacles.get(entry.call_sid):
            raise obstacles.pop(0) if len(obstacles) > 1 else obstacles[0]
        self.kept.append(entry.call_sid)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until the ledger is so."""
        await trio.lowlevel.checkpoint()
        with trio.fail_after(20):
            while not is_so():
                await self.changed.wait()


@attrs.define(eq=False)
class Moving:
    """A service that runs, with what it works on."""

    spool: Spool
    ledger: MemoryLedger
    events: EventLog
    channel: PostCallChannel

    async def end_call(self, number: int) -> None:
        """A call ends: its record becomes durable, then it is handed over."""
        record = make_record(number)
        await self.spool.save(record)
        self.channel.calls_end.send_nowait(record.call_sid)


@asynccontextmanager
async def open_moving(tmp_path: Path) -> AsyncIterator[Moving]:
    """The service, ended by its channel's end."""
    moving = Moving(Spool(tmp_path), MemoryLedger(), EventLog(Telemetry()), PostCallChannel.open())
    mover = RecordMover(moving.spool, moving.ledger.keep, moving.events)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_postcall, moving.channel.service_end, mover)
            yield moving
            moving.channel.calls_end.close()


async def test_pc_1_a_record_that_is_handed_over_is_moved_at_once_and_the_rest_before_the_end(
    tmp_path: Path,
) -> None:
    async with open_moving(tmp_path) as moving:
        await moving.end_call(1)
        await moving.ledger.until(lambda: moving.ledger.kept == [sid(1)])
        for number in range(2, 20):
            await moving.end_call(number)
    assert sorted(moving.ledger.kept) == [sid(number) for number in range(1, 20)]
    assert await moving.spool.waiting() == []
    assert moving.events.counts["RECORD_MOVED"] == 19


async def test_pc_4_what_an_earlier_process_left_is_moved_first(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        await Spool(tmp_path).save(make_record(number))
    async with open_moving(tmp_path) as moving:
        await moving.ledger.until(lambda: len(moving.ledger.kept) == 3)


@pytest.mark.parametrize(
    "away",
    [
        psycopg.OperationalError("gone"),
        DatabaseError("not there yet"),
        psycopg.InterfaceError("closed"),
        OSError(5),
    ],
)
async def test_while_the_database_is_away_records_wait_and_are_moved_when_it_is_back(
    tmp_path: Path, away: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.postcall.FIRST_PAUSE_S", 0.01)
    async with open_moving(tmp_path) as moving:
        moving.ledger.away = away
        for number in range(1, 11):
            await moving.end_call(number)
        await moving.ledger.until(lambda: moving.ledger.tries >= 3)
        assert len(await moving.spool.waiting()) == 10
        moving.ledger.away = None
        await moving.ledger.until(lambda: len(moving.ledger.kept) == 10)
    assert sorted(moving.ledger.kept) == [sid(number) for number in range(1, 11)], "each once"
    assert moving.events.counts["RECORDS_WAIT"] >= 3


@pytest.mark.parametrize(
    "refusal", [psycopg.DataError("a date in the year 12026"), ValueError("a mistake"), psycopg.IntegrityError()]
)
async def test_a_record_that_is_refused_stays_on_disk_and_blocks_no_other(
    tmp_path: Path, refusal: Exception
) -> None:
    async with open_moving(tmp_path) as moving:
        moving.ledger.obstacles[sid(1)] = [refusal]
        for number in (1, 2, 3):
            await moving.end_call(number)
        await moving.ledger.until(lambda: len(moving.ledger.kept) == 2)
    assert moving.events.counts["RECORD_REFUSED"] == 1
    assert await moving.spool.waiting() == [sid(1)], "for a person, and the next process"


async def test_one_record_that_always_fails_blocks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may look as though the database was away: then the others go first the next time."""
    monkeypatch.setattr("agent.postcall.FIRST_PAUSE_S", 0.01)
    spool = Spool(tmp_path)
    for number in range(1, 6):
        await spool.save(make_record(number))
    ledger, events = MemoryLedger(), EventLog(Telemetry())
    for number in (1, 2):
        ledger.obstacles[sid(number)] = [psycopg.errors.QueryCanceled("statement timeout")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(RecordMover(spool, ledger.keep, events).run)
        await ledger.until(lambda: len(ledger.kept) == 3)
        ledger.obstacles.clear()
        await ledger.until(lambda: len(ledger.kept) == 5)
        nursery.cancel_scope.cancel()
    assert sorted(ledger.kept) == [sid(number) for number in range(1, 6)]


async def test_a_corrupt_file_is_set_aside_counted_and_blocks_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    damaged = await spool.save(make_record(1))
    damaged.write_bytes(damaged.read_bytes()[:100])
    await spool.save(make_record(2))
    async with open_moving(tmp_path) as moving:
        await moving.ledger.until(lambda: len(moving.ledger.kept) == 1)
    assert moving.events.counts["SPOOL_CORRUPT"] == 1
    assert await spool.waiting() == []
    assert damaged.with_name(damaged.name + ".corrupt").exists()


async def test_pc_4_cancelled_at_any_checkpoint_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path, postgres: str
) -> None:
    """Three records and a call that goes on, on their way into Postgres; whoever comes next finishes it."""
    struck, server_id = 0, uuid4()
    for at in range(1000):
        spool = Spool(tmp_path / str(at))
        going_on, *numbers = range(at * 4 + 1, at * 4 + 5)
        for number in numbers:
            await spool.save(make_record(number))
        call = make_record(going_on)
        await spool.save_answered(
            AnsweredCall(
                call.call_sid, "default", "inbound", call.caller, call.called, call.answered_at, server_id
            )
        )

        async def move(spool: Spool = spool) -> None:
            async with open_pool(postgres, max_size=2) as pool:
                database = Database(postgres, pool)
                database.ready.set()
                channel = PostCallChannel.open()
                channel.calls_end.close()
                mover = RecordMover(spool, Ledger(database, server_id).keep, EventLog(Telemetry()))
                await run_postcall(channel.service_end, mover)

        with trio.fail_after(60):
            _, was_struck = await strike(at, move)
            await move()
        assert await spool.waiting() == [], f"cancelled before step {at}"
        found = rows(
            postgres,
            "SELECT c.call_sid, (SELECT count(*) FROM turns t WHERE t.call_id = c.id), "
            "(SELECT count(*) FROM postcall_steps s WHERE s.call_id = c.id AND s.state = 'pending') "
            "FROM calls c WHERE c.call_sid = ANY (%s)",
            [sid(number) for number in numbers],
        )
        assert sorted(found) == [(sid(number), 3, 7) for number in numbers], f"cancelled before step {at}"
        active = rows(postgres, "SELECT status FROM calls WHERE call_sid = %s", sid(going_on))
        assert active == [("active",)], f"cancelled before step {at}"
        struck += was_struck
        if not was_struck:
            break
    assert struck > 50

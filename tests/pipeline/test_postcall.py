"""After the call: its SID is handed over, and its record moved by a task of the server's (ST-4, PC-1).

And a worker whose database is away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import attrs
import psycopg
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid
from agent.pipeline.worker import RECONNECT_S, Worker
from agent.postcall import QUEUED_CALLS, PostCallChannel, RecordMover, run_postcall
from agent.store.spool import Spool
from agent.store.sql.values import AnsweredCall

CALL = CallSid("CA1")


def test_pc_1_handing_over_never_waits_and_the_queue_is_bounded() -> None:
    """A call hands over synchronously; a queue of a whole day is the limit."""
    channel = PostCallChannel.open()
    with channel.calls_end, channel.service_end:
        for _ in range(QUEUED_CALLS):
            channel.calls_end.send_nowait(CALL)
        with pytest.raises(trio.WouldBlock):
            channel.calls_end.send_nowait(CALL)


@pytest.mark.sockets
async def test_a_cancel_ends_it_and_closes_its_end(tmp_path: Path) -> None:
    """Calls that end later find nobody there; their records are on disk already."""

    async def refuse(entry: CallRecord | AnsweredCall) -> None:
        raise AssertionError(entry)

    channel, mover = PostCallChannel.open(), RecordMover(Spool(tmp_path), refuse, EventLog(Telemetry()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_postcall, channel.service_end, mover)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with channel.calls_end, pytest.raises(trio.BrokenResourceError):
        channel.calls_end.send_nowait(CALL)


@attrs.define(eq=False)
class AwayDatabase:
    """It was there once."""

    ready: trio.Event = attrs.field(factory=trio.Event)


async def test_a_database_that_is_away_is_said_once_and_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a second for hours would hide what matters; it is said again when it is away again."""
    said: list[str] = []
    events = EventLog(Telemetry(), listener=lambda event, _: said.append(event))
    database = AwayDatabase()
    database.ready.set()
    worker = Worker(cast("Any", database), cast("Any", None), events)
    is_there = trio.Event()

    async def session(self: Worker) -> None:
        await trio.lowlevel.checkpoint()
        if is_there.is_set():
            self._away = False
        raise psycopg.OperationalError("it is away")

    monkeypatch.setattr(Worker, "_session", session)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(10.5 * RECONNECT_S)
        assert events.counts["WORKER_RECONNECTS"] == 11
        assert said == ["WORKER_RECONNECTS"]
        is_there.set()
        await trio.sleep(RECONNECT_S)
        assert said == ["WORKER_RECONNECTS"] * 2
        worker.stop()

"""After the call: its SID is handed over, and its record moved by a task of the server's (ST-4, PC-1)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid
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

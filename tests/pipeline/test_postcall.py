"""After the call: records are handed over and worked on in a task of the server, not of any call (ST-4, PC-1)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent.core.event_log import EventLog
from agent.core.records import CallMetrics, CallRecord, Outcome
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid, StreamSid
from agent.postcall import QUEUED_CALLS, PostCallChannel, run_postcall

METRICS = CallMetrics(
    duration_ms=4000,
    barge_in_events=2,
    fps=None,
    max_gap_ms=None,
    first_audio_ms=None,
    turn_latencies_ms=(),
    frames_in=200,
    frames_out=0,
    frames_dropped=0,
    reconnects=0,
    stalls=0,
)
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def record(number: int) -> CallRecord:
    """The record of a small call."""
    return CallRecord(
        call_sid=CallSid(f"CA{number}"),
        stream_sid=StreamSid(f"MZ{number}"),
        direction="inbound",
        caller="",
        called="",
        answered_at=NOON,
        ended_at=NOON,
        outcome=Outcome.CALLER_HUNG_UP,
        reason="stop",
        turns=(),
        metrics=METRICS,
    )


@attrs.define(eq=False)
class Log:
    """An event log that remembers."""

    told: list[dict[str, Any]] = attrs.field(factory=list)
    events: EventLog = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.events = EventLog(
            Telemetry(), listener=lambda event, fields: self.told.append({"event": event, **fields})
        )


async def test_each_finished_call_is_logged_until_every_sender_is_closed() -> None:
    channel, log = PostCallChannel.open(), Log()
    one, other = channel.calls_end.clone(), channel.calls_end.clone()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_postcall, channel.service_end, log.events)
        one.send_nowait(record(1))
        one.close()
        await wait_all_tasks_blocked()
        assert log.told == [
            {
                "event": "CALL_ENDED",
                "call": "CA1",
                "outcome": "caller_hung_up",
                "reason": "stop",
                "duration_ms": 4000,
                "turns": 0,
                "barge_in_events": 2,
            }
        ]
        channel.calls_end.close()
        other.send_nowait(record(2))
        other.close()
    assert [told["call"] for told in log.told] == ["CA1", "CA2"]


async def test_what_was_handed_over_before_the_end_is_still_worked_on() -> None:
    """A server that drains closes its senders first: the queue is emptied, then the service ends."""
    channel, log = PostCallChannel.open(), Log()
    for number in range(100):
        channel.calls_end.send_nowait(record(number))
    channel.calls_end.close()
    with trio.fail_after(5):
        await run_postcall(channel.service_end, log.events)
    assert len(log.told) == log.events.counts["CALL_ENDED"] == 100


def test_pc_1_handing_over_never_waits_and_the_queue_is_bounded() -> None:
    """A call hands over synchronously; a queue of a whole day is the limit."""
    channel = PostCallChannel.open()
    with channel.calls_end, channel.service_end:
        one = record(1)
        for _ in range(QUEUED_CALLS):
            channel.calls_end.send_nowait(one)
        with pytest.raises(trio.WouldBlock):
            channel.calls_end.send_nowait(one)


async def test_a_cancel_ends_it_and_closes_its_end() -> None:
    """Calls that end later find nobody there; their records are on disk already."""
    channel, log = PostCallChannel.open(), Log()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_postcall, channel.service_end, log.events)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with channel.calls_end, pytest.raises(trio.BrokenResourceError):
        channel.calls_end.send_nowait(record(1))

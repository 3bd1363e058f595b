"""After the call: records arrive over a memory channel, already durable, and are worked on here (ST-4, PC-1).

The consumer lives in an outer nursery, not in any call, so a call that ends, however it ends, only hands over.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio

from agent.eventlog import EventLog
from agent.records import CallRecord

QUEUED_CALLS: Final = 10_000
"""Calls that wait for post-call work: a day of a busy line. The records themselves are on disk."""


@attrs.frozen(eq=False)
class PostCallChannel:
    """Both ends of the hand-over: calls hold clones of ``calls_end``, one service reads ``service_end``."""

    calls_end: trio.MemorySendChannel[CallRecord]
    service_end: trio.MemoryReceiveChannel[CallRecord]

    @classmethod
    def open(cls) -> PostCallChannel:
        """A new channel, closed by whoever opened it."""
        send, receive = trio.open_memory_channel[CallRecord](QUEUED_CALLS)
        return cls(send, receive)


async def run_postcall(service_end: trio.MemoryReceiveChannel[CallRecord], events: EventLog) -> None:
    """Log each finished call until every sender is closed. A cancel loses nothing: the records are durable."""
    with service_end:
        async for record in service_end:
            metrics = record.metrics
            events.emit(
                "CALL_ENDED",
                call=record.call_sid,
                outcome=record.outcome.value,
                reason=record.reason,
                duration_ms=metrics.duration_ms,
                turns=len(record.turns),
                barge_in_events=metrics.barge_in_events,
            )

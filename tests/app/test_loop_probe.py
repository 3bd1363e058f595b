"""NB-2: a blocked event loop is found, with what blocked it, by a thread that costs the loop nothing."""

from __future__ import annotations

import threading
import time

import pytest
import trio

from agent.app.loop_probe import LoopProbe
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry

pytestmark = pytest.mark.sockets  # real time and a real thread


def block_the_loop_on_purpose(seconds: float) -> None:
    time.sleep(seconds)


async def test_nb_2_a_blocked_loop_is_reported_with_what_was_running() -> None:
    """BLOCKING_DETECTED names the function that held the loop, once for one stall."""
    events = EventLog(Telemetry())
    seen: list[tuple[str, dict[str, object]]] = []
    reported = trio.Event()

    def listen(event: str, fields: dict[str, object]) -> None:
        seen.append((event, fields))
        reported.set()

    events.listener = listen
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(LoopProbe(events).run)
            await trio.sleep(0.1)
            block_the_loop_on_purpose(0.6)
            await reported.wait()
            nursery.cancel_scope.cancel()
    [(event, fields)] = seen
    assert event == "BLOCKING_DETECTED"
    assert isinstance(fields["max_gap_ms"], int)
    assert fields["max_gap_ms"] > 200
    assert "block_the_loop_on_purpose" in str(fields["running"])
    assert "loop probe" not in [thread.name for thread in threading.enumerate()]

"""A scripted call, cancelled at every single checkpoint it has: nothing is ever left half-done.

The call has a greeting, a barge-in, an answer, a tool and a hang-up. It is run once under the autojump clock
while a ``trio.abc.Instrument`` counts the steps of the call's own tasks; then once per step with the call
cancelled exactly there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing
from virtual_call import CALL_SID, FakeServices, open_call, open_services

from agent.core.records import Outcome
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

GRACE_S = 8.0
"""Bound of a call's ending: writers 0.5, closing 1, hang-up and record 6 at most, side by side."""
SHARDS = 4
"""The sweep runs in as many tests, so that a runner with workers can share it out."""
STRIDE = int(os.environ.get("SWEEP_STRIDE", "1"))
"""Every checkpoint by default; a larger stride samples, for a quick look while working."""


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Counts the steps of the tasks in one call, and cancels the call's scope before step ``at``."""

    at: int | None
    services: FakeServices | None = None
    steps: int = 0
    cancelled_at_s: float | None = None
    tasks: set[str] = attrs.field(factory=set)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and strike once."""
        scope = self.services.calls.active.get(CALL_SID) if self.services is not None else None  # type: ignore[call-overload]
        if scope is None or self.services is None or not self._is_of_the_call(task, self.services.calls.guests):
            return
        self.tasks.add(task.name)
        if self.steps == self.at:
            self.cancelled_at_s = trio.current_time()
            scope.cancel(reason="the sweep")
        self.steps += 1

    @staticmethod
    def _is_of_the_call(task: trio.lowlevel.Task, guests: trio.Nursery) -> bool:
        """Whether the task runs the call, is below it, or its guest: not the simulators, not the metronome."""
        current: trio.lowlevel.Task | None = task
        while current is not None:
            if current.name.endswith("agent.app.call_answer.answer"):
                return True
            parent = current.parent_nursery
            if parent is guests:
                return True
            current = parent.parent_task if parent is not None else None
        return False


Result = tuple[FakeServices, SimulatedStream, float]


def make_model() -> ScriptedRealtime:
    return ScriptedRealtime(
        [
            Answer("Hello, how can I help?", 1200, first_delta_ms=40),
            Answer("Goodbye then.", 160, first_delta_ms=40, tool_call=ToolCall("end_call", {})),
        ],
        transcription_delay_ms=20,
    )


async def run_script(instrument: CancelAt) -> Result:
    """The scripted call; returns the house, the carrier's stream, and when the call was over."""
    model = make_model()
    async with open_services(
        memory_realtime(lambda: model), greeting_protect_ms=100, vad_silence_ms=100
    ) as services:
        instrument.services = services
        async with open_call(services) as stream, trio.open_nursery() as nursery:
            services.rest.streams[CALL_SID] = stream

            @nursery.start_soon
            async def _caller() -> None:
                await stream.until_heard_ms(300)
                stream.say(tone(120))

            with trio.fail_after(60):
                await stream.until_closed()
            nursery.cancel_scope.cancel()
        with trio.fail_after(GRACE_S):
            while services.calls.active:  # noqa: ASYNC110 - the end of a call is not an event of the house
                await trio.sleep(0.01)
        return services, stream, trio.current_time()


def run_virtually(instrument: CancelAt, script: Callable[[CancelAt], Awaitable[Result]] = run_script) -> Result:
    # As Hypothesis does it: else Trio shuffles the tasks of each batch, and a step's number means nothing.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(0)
    clock = trio.testing.MockClock(autojump_threshold=0)
    result: Result = trio.run(script, instrument, clock=clock, instruments=[instrument])
    return result


def test_st_1_the_scripted_call_runs_through() -> None:
    """Uncancelled, the script is what the sweep needs: a barge-in, a tool, all children, an orderly end."""
    instrument = CancelAt(None)
    services, stream, _ = run_virtually(instrument)
    record = services.record
    assert record.outcome is Outcome.AGENT_HUNG_UP
    assert record.metrics.barge_in_events == 1
    assert record.metrics.events["END_CALL_ASKED"] == 1
    assert record.recording_sid is not None
    assert stream.close_code == 1000
    children = {"ingress", "realtime", "TX pacer", "barge-in monitor", "watch", "keepalive", "generation 1"}
    assert children <= instrument.tasks
    assert instrument.steps > 300


@pytest.mark.parametrize("shard", range(SHARDS))
def test_st_1_a_call_cancelled_at_any_checkpoint_ends_whole(shard: int) -> None:
    """Cancelled before any of its steps, the call ends within its grace and leaves nothing behind.

    One outcome is recorded, made durable and handed over, once; the caller's leg is hung up; the carrier saw
    whole WebSocket frames and a close frame; no thread was left.
    """
    total = CancelAt(None)
    run_virtually(total)
    threads = threading.active_count()
    for at in range(shard, total.steps, SHARDS * STRIDE):
        instrument = CancelAt(at)
        services, stream, over_s = run_virtually(instrument)
        where = f"cancelled before step {at} of {total.steps}"
        record = services.record
        assert instrument.cancelled_at_s is not None, where
        assert over_s - instrument.cancelled_at_s <= GRACE_S, where
        assert services.handed_over() == [CALL_SID], where
        assert record.outcome in (Outcome.SERVER_STOPPED, Outcome.AGENT_HUNG_UP), where
        assert services.rest.hung_up == [CALL_SID], where
        assert not [entry for entry in stream.wire if entry.kind == "malformed"], where
        assert stream.close_code == 1000, where
        assert "POST_CANCEL_AUDIO_VIOLATION" not in record.metrics.events, where
        assert "CALL_ERROR" not in record.metrics.events, where
        assert "GUEST_FAILED" not in record.metrics.events, where
        assert threading.active_count() <= threads, where

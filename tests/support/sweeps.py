"""A scripted call, cancelled at any checkpoint it has: how it is counted, struck, and run the same each time."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing
from virtual_call import CALL_SID, FakeServices

from agent.sim.carrier.stream import SimulatedStream

GRACE_S = 8.0
"""Bound of a call's ending: writers 0.5, closing 1, hang-up and record 6 at most, side by side."""
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


def run_virtually(instrument: CancelAt, script: Callable[[CancelAt], Awaitable[Result]]) -> Result:
    """Run a scripted call in virtual time, the same each time."""
    # As Hypothesis does it: else Trio shuffles the tasks of each batch, and a step's number means nothing.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(0)
    clock = trio.testing.MockClock(autojump_threshold=0)
    result: Result = trio.run(script, instrument, clock=clock, instruments=[instrument])
    return result

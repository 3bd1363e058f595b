"""What one pass of the scheduler costs in an hour-long call, in thread CPU time: the worst of all.

In virtual time the simulators run in the same loop; only steps of the call's own tasks are counted. The worst
pass is held against a yardstick, because machines differ: empty loops, about two milliseconds on a usual one.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from bench.parts.virtual_hour import LIVELY, HourPlan, measure_hour

LOOPS: Final = 100_000
ROUNDS: Final = 21


@attrs.frozen
class PassFigures:
    """The worst pass, in which task it was spent, and the yardstick."""

    worst_ms: float
    task: str
    at_s: float
    """When it was, in seconds after the answer."""
    passes: int
    yardstick_ms: float


@attrs.define(eq=False)
class PassTime(trio.abc.Instrument):
    """Adds up the steps of a call's tasks in each pass of the scheduler."""

    passes: int = 0
    worst_ns: int = 0
    worst_task: str = ""
    worst_s: float = 0.0
    _began_ns: int | None = None
    _spent_ns: dict[str, int] = attrs.field(factory=dict)
    _known: dict[trio.lowlevel.Task, bool] = attrs.field(factory=dict)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins."""
        of_the_call = self._known.get(task)
        if of_the_call is None:
            of_the_call = self._known[task] = _is_of_the_call(task)
        self._began_ns = time.thread_time_ns() if of_the_call else None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step ends."""
        if self._began_ns is not None:
            took_ns = time.thread_time_ns() - self._began_ns
            self._spent_ns[task.name] = self._spent_ns.get(task.name, 0) + took_ns

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """It takes no more steps."""
        self._known.pop(task, None)

    def before_io_wait(self, timeout: float) -> None:
        """A pass ends."""
        del timeout
        spent_ns, self._spent_ns = self._spent_ns, {}
        total_ns = sum(spent_ns.values())
        self.passes += 1
        if total_ns > self.worst_ns:
            self.worst_ns, self.worst_s = total_ns, trio.current_time()
            self.worst_task = max(spent_ns, key=spent_ns.__getitem__)


def measure_passes(plan: HourPlan = LIVELY) -> PassFigures:
    """Run the hour under the instrument; blocks for some minutes."""
    instrument = PassTime()
    with _garbage_aside():
        measure_hour(plan, instrument)
    return PassFigures(
        instrument.worst_ns / 1e6,
        instrument.worst_task,
        instrument.worst_s,
        instrument.passes,
        _yardstick_ns() / 1e6,
    )


def _is_of_the_call(task: trio.lowlevel.Task) -> bool:
    """The simulated model runs below the call that is connected to it."""
    current: trio.lowlevel.Task | None = task
    while current is not None and not current.name.startswith("agent.sim."):
        if current.name.endswith("agent.app.call_answer.answer"):
            return True
        nursery = current.parent_nursery
        current = nursery.parent_task if nursery is not None else None
    return False


@contextmanager
def _garbage_aside() -> Iterator[None]:
    """As the server does (``agent.app.server``): what is there already is in no garbage collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _yardstick_ns() -> int:
    """Thread CPU time of the loops: the median of ROUNDS."""
    took_ns = []
    for _ in range(ROUNDS):
        began_ns = time.thread_time_ns()
        for _ in range(LOOPS):
            pass
        took_ns.append(time.thread_time_ns() - began_ns)
    return sorted(took_ns)[ROUNDS // 2]

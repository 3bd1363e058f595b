"""What one pass of the scheduler costs in an hour-long call, in thread CPU time: the worst of all.

In virtual time the simulators run in the same loop; only steps of what a server runs are counted: the call,
the metronome, the garbage collector. The worst pass is held against a yardstick, because machines differ: empty
loops, about two milliseconds on a usual one. It is the median of three hours, because what the machine does to
one pass of a million and a half is not the call's doing.
"""

from __future__ import annotations

import time
from typing import Final

import attrs
import trio

from bench.parts.virtual_hour import LIVELY, HourPlan, measure_hour

LOOPS: Final = 100_000
ROUNDS: Final = 21
HOURS: Final = 3


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
    """Adds up the steps of the server's tasks in each pass of the scheduler, from the answer of the call."""

    passes: int = 0
    worst_ns: int = 0
    worst_task: str = ""
    worst_s: float = 0.0
    _answered: bool = False
    _began_ns: int | None = None
    _spent_ns: dict[str, int] = attrs.field(factory=dict)
    _known: dict[trio.lowlevel.Task, bool] = attrs.field(factory=dict)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """What a server does before it takes calls is in no pass."""
        self._answered = self._answered or task.name.endswith("agent.app.call_answer.answer")

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins."""
        counts = self._known.get(task)
        if counts is None:
            counts = self._known[task] = not _is_simulated(task)
        self._began_ns = time.thread_time_ns() if counts else None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step ends."""
        if self._answered and self._began_ns is not None:
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
    """Run the hour HOURS times under an instrument; blocks for some minutes."""
    hours = [PassTime() for _ in range(HOURS)]
    for instrument in hours:
        measure_hour(plan, instrument)
    hour = sorted(hours, key=lambda seen: seen.worst_ns)[HOURS // 2]
    yardstick_ms = _yardstick_ns() / 1e6
    return PassFigures(hour.worst_ns / 1e6, hour.worst_task, hour.worst_s, hour.passes, yardstick_ms)


def _is_simulated(task: trio.lowlevel.Task) -> bool:
    """Whether it is the benchmark's own task, or a simulator's; the simulated model runs below the call."""
    current: trio.lowlevel.Task | None = task
    while current is not None and not current.name.startswith("agent.sim."):
        nursery = current.parent_nursery
        current = nursery.parent_task if nursery is not None else None
    return current is not None or task.name.startswith("bench.")


def _yardstick_ns() -> int:
    """Thread CPU time of the loops: the median of ROUNDS."""
    took_ns = []
    for _ in range(ROUNDS):
        began_ns = time.thread_time_ns()
        for _ in range(LOOPS):
            pass
        took_ns.append(time.thread_time_ns() - began_ns)
    return sorted(took_ns)[ROUNDS // 2]

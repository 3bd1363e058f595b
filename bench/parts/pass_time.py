"""What one pass of the scheduler costs in an hour-long call, in thread CPU time: the worst of all.

In virtual time the simulators run in the same loop; only steps of what a server runs are counted: the call,
the metronome, the garbage collector. The worst pass is held against a yardstick, because machines differ: empty
loops, about two milliseconds on a usual one.

The hour is lived three times, and of each of its seconds the hour counts whose worst pass was the least: in
virtual time each does the same in the same second, while what a machine does to a pass (it handles somebody's
interrupts in the thread's time, or the host takes the processor away) hits another second each time.
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
_CALL: Final = "agent.app.call_answer.answer"


@attrs.frozen
class PassFigures:
    """The worst pass, in which task it was spent, and the yardstick."""

    worst_ms: float
    seen_ms: float
    """The worst of a single hour."""
    task: str
    at_s: float
    """When it was, in seconds after the answer."""
    passes: int
    yardstick_ms: float


@attrs.define(eq=False)
class PassTime(trio.abc.Instrument):
    """Adds up the steps of the server's tasks in each pass of the scheduler, while the call is there."""

    passes: int = 0
    worst: dict[int, tuple[int, str, float]] = attrs.field(factory=dict)
    """Of each second: nanoseconds, the task that took most of them, and when it was."""
    _answered: bool = False
    _began_ns: int | None = None
    _spent_ns: dict[str, int] = attrs.field(factory=dict)
    _known: dict[trio.lowlevel.Task, bool] = attrs.field(factory=dict)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """What a server does before it takes calls is in no pass."""
        self._answered = self._answered or task.name == _CALL

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
        """It takes no more steps; nor is the end of the benchmark's server in any pass."""
        self._known.pop(task, None)
        self._answered = self._answered and task.name != _CALL

    def before_io_wait(self, timeout: float) -> None:
        """A pass ends."""
        del timeout
        spent_ns, self._spent_ns = self._spent_ns, {}
        total_ns = sum(spent_ns.values())
        self.passes += 1
        now = trio.current_time()
        if total_ns > self.worst.get(int(now), (0,))[0]:
            self.worst[int(now)] = total_ns, max(spent_ns, key=spent_ns.__getitem__), now


def measure_passes(plan: HourPlan = LIVELY) -> PassFigures:
    """Run the hour HOURS times under an instrument; blocks for some minutes."""
    hours = [PassTime() for _ in range(HOURS)]
    for instrument in hours:
        measure_hour(plan, instrument)
    nothing = (0, "", 0.0)
    seconds = {second for hour in hours for second in hour.worst}
    took_ns, task, at_s = max(min(hour.worst.get(second, nothing) for hour in hours) for second in seconds)
    seen_ns, *_ = max(max(hour.worst.values()) for hour in hours)
    passes = min(hour.passes for hour in hours)
    return PassFigures(took_ns / 1e6, seen_ns / 1e6, task, at_s, passes, _yardstick_ns() / 1e6)


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

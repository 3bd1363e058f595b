"""How a simulator's tasks wait for each other: parked until woken, or until a wakeup is rung."""

from collections.abc import Callable
from math import inf

import attrs
import trio


@attrs.define(eq=False)
class Parker:
    """Parks one task until it is woken: a ParkingLot for one, at a third of the cost."""

    _task: trio.lowlevel.Task | None = None

    async def park(self) -> None:
        """Sleep until woken; two tasks at once are a mistake. A cancel leaves nothing behind."""
        if self._task is not None:
            raise trio.BusyResourceError("another task is parked here")
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def wake(self) -> None:
        """Wake the parked task, if there is one."""
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@attrs.define(eq=False)
class Wakeup:
    """Wakes one waiting task; rung while nobody waits, the next wait ends at once."""

    _parker: Parker = attrs.field(factory=Parker)
    _rung: bool = False
    _until_s: float = inf
    """Until when the present or last wait lasts by itself."""

    def ring(self) -> None:
        """Wake the waiting task, or the next that comes."""
        self._rung = True
        self._parker.wake()

    def ring_for(self, due_s: float) -> None:
        """Ring if something is due before the wait ends by itself: a task woken for nothing costs as much."""
        if due_s < self._until_s:
            self.ring()

    async def wait(self, until_s: float = inf) -> None:
        """Wait for a ring, at most until ``until_s`` on trio's clock. A cancel loses no ring."""
        self._until_s = until_s
        if not self._rung:
            if until_s == inf:
                await self._parker.park()
            else:
                with trio.CancelScope(deadline=until_s):
                    await self._parker.park()
        self._rung = False

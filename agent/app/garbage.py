"""Garbage is collected by hand: when it does no harm, and never more of it than a call can bear.

Automatic collections begin in the middle of anything, and a full one held the loop for 28 to 86 ms at 80 to 300
calls. Here what lives as long as the process is set aside at the start, young objects are looked through between
two beats, and all others when no call runs, or when so many were added that memory would grow.
"""

import gc
from collections.abc import Callable
from typing import Final

import attrs
import trio

from agent.core.units import FRAME_S

LOOK_EVERY_BEATS: Final = 10
YOUNG: Final = 2_000
"""Objects made and still there that are worth a look: a fifth of a millisecond."""
GROWTH: Final = 100_000
"""Objects that were added to the old ones: 10 MB, and 10 ms to look through beside 200 calls. A call is 350."""
IDLE_GROWTH: Final = 5_000
"""The same while no call runs."""


@attrs.define(eq=False)
class GarbageCollector:
    """Python's cyclic garbage collector, driven by a task. One in a process."""

    busy: Callable[[], bool]
    """Whether calls run."""
    growth: int = 0
    """Objects added to the old ones since these were looked through; at most so many, for some died since."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Collect until cancelled, then leave it to Python again. Started once what there is is set aside."""
        gc.collect()
        gc.freeze()
        gc.disable()
        task_status.started()
        try:
            while True:
                beat = int(trio.current_time() / FRAME_S) + LOOK_EVERY_BEATS
                await trio.sleep_until((beat + 0.5) * FRAME_S)
                self.look()
        finally:
            gc.enable()
            gc.unfreeze()

    def look(self) -> None:
        """Collect what is worth it now."""
        young = gc.get_count()[0]
        if self.growth + young >= (GROWTH if self.busy() else IDLE_GROWTH):
            gc.collect()
            self.growth = 0
        elif young >= YOUNG:
            self.growth += max(young - gc.collect(0), 0)

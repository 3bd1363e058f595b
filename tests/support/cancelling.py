"""A cancel at any step of some work that uses real threads; the sweeps of calls have a clock of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` before the so-manieth step of its tasks; counts them."""

    def __init__(self, at: int | None) -> None:
        self.at, self.steps, self.scope = at, 0, trio.CancelScope()
        self.root: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and strike once."""
        current: trio.lowlevel.Task | None = task
        while current is not None and current is not self.root:
            parent = current.parent_nursery
            current = parent.parent_task if parent is not None else None
        if current is None:
            return
        if self.steps == self.at:
            self.scope.cancel()
        self.steps += 1


async def strike(at: int | None, work: Callable[[], Awaitable[None]]) -> tuple[int, bool]:
    """Run ``work``, cancelled before its step ``at``; how many steps it took, and whether it was struck."""
    instrument = CancelAt(at)
    done = trio.Event()

    async def run() -> None:
        instrument.root = trio.lowlevel.current_task()
        with instrument.scope:
            await work()
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        trio.lowlevel.add_instrument(instrument)
        try:
            await done.wait()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.steps, instrument.scope.cancelled_caught

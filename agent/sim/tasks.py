"""Two small things every simulator stands on: a bell for its writer, and a nursery for its tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import attrs
import trio


@attrs.define(eq=False)
class Bell:
    """Wakes one waiting task; rung while nobody waits, the next wait ends at once."""

    _lot: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _rung: bool = False

    def ring(self) -> None:
        """Wake the waiting task, or the next that comes."""
        self._rung = True
        self._lot.unpark_all()

    async def wait(self, until_s: float = inf) -> None:
        """Wait for a ring, at most until ``until_s`` on trio's clock. A cancel loses no ring."""
        if not self._rung:
            if until_s == inf:
                await self._lot.park()
            else:
                with trio.CancelScope(deadline=until_s):
                    await self._lot.park()
        self._rung = False


@asynccontextmanager
async def open_crew() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with its body and that raises a lone error bare, as the body raised it."""
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            finally:
                nursery.cancel_scope.cancel(reason="the simulation is left")
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        [error] = group.exceptions
        raise error from error.__cause__

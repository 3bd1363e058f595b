"""All that is due at some time in one process: one timer of the loop for as many ticks as there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic
from typing import Final

import attrs

Tick = Callable[[float], float | None]
"""Called with the time it was due; returns when it is due again, or None."""
_LEAST_S: Final = 0.001
"""The loop's timers count milliseconds: a shorter one would spin."""


@attrs.define(eq=False)
class Clockwork:
    """Calls ticks when they are due, by ``time.monotonic``, and notes how late each was."""

    late_s: list[float] = attrs.field(factory=list)
    _due: list[tuple[float, int, Tick]] = attrs.field(factory=list)
    _count: int = 0
    _armed_s: float = float("inf")
    _timer: asyncio.TimerHandle | None = None

    def at(self, due_s: float, tick: Tick) -> None:
        """Call ``tick`` at ``due_s``, then as it says."""
        self._count += 1
        heappush(self._due, (due_s, self._count, tick))
        if due_s < self._armed_s:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_s = self._due[0][0]
        delay_s = max(self._armed_s - monotonic(), _LEAST_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._run)

    def _run(self) -> None:
        self._timer, self._armed_s = None, 0.0  # what is added meanwhile arms nothing
        due, late_s = self._due, self.late_s
        now = monotonic()
        while due and due[0][0] <= now:
            due_s, _, tick = heappop(due)
            late_s.append(now - due_s)
            again_s = tick(due_s)
            if again_s is not None:
                self._count += 1
                heappush(due, (again_s, self._count, tick))
            now = monotonic()
        self._armed_s = float("inf")
        if due:
            self._arm()

"""One clock for all simulated streams: a task that calls each of them every 20 ms.

A load of 200 streams would spend most of its time on 200 sleeping tasks; here one sleeps. Streams are
spread over ``phases`` within the 20 ms, as the calls of a real carrier are.
"""

from collections.abc import Callable
from math import ceil, inf

import attrs
import trio

from agent.core.units import FRAME_S
from agent.sim.tasks import Wakeup

Tick = Callable[[float], None]
"""Called with the time the tick was due."""


@attrs.define(eq=False)
class Ticker:
    """Start ``run`` in a nursery, then ``join`` and ``leave`` at will. Sleeps while nobody has joined."""

    phases: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    max_late_s: float = 0.0
    """How late the worst tick was; a simulator that is overloaded shows here."""
    _members: list[dict[Tick, None]] = attrs.field(init=False)
    _phase_of: dict[Tick, int] = attrs.field(factory=dict)
    _wakeup: Wakeup = attrs.field(factory=Wakeup)

    @_members.default
    def _make_members(self) -> list[dict[Tick, None]]:
        return [{} for _ in range(self.phases)]

    def join(self, tick: Tick) -> None:
        """Call ``tick`` every 20 ms from the next tick on; it must not wait and must not raise."""
        if tick not in self._phase_of:
            phase = min(range(self.phases), key=lambda index: len(self._members[index]))
            self._members[phase][tick] = None
            self._phase_of[tick] = phase
            self._wakeup.ring()

    def leave(self, tick: Tick) -> None:
        """Call ``tick`` no more; it need not have joined."""
        phase = self._phase_of.pop(tick, None)
        if phase is not None:
            del self._members[phase][tick]

    async def run(self) -> None:
        """Tick until cancelled on whole periods of trio's clock; a late tick is made up for, as by a carrier."""
        while True:
            while not self._phase_of:
                await self._wakeup.wait(inf)
            index = ceil(trio.current_time() / FRAME_S) * self.phases
            while self._phase_of:
                due_s = index / self.phases * FRAME_S
                await trio.sleep_until(due_s)
                self.max_late_s = max(self.max_late_s, trio.current_time() - due_s)
                for tick in list(self._members[index % self.phases]):
                    tick(due_s)
                index += 1

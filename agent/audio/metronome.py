"""One metronome for all pacers of a process: 20 ms ticks on absolute deadlines, one pass of the scheduler a beat.

Waking a parked task costs a fifth of a ``sleep_until`` of its own (docs/decisions.md). A late tick is not made up
for: after a stall, each slot rings once, for the latest beat, and the grid stays as it was (TX-1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Final

import attrs
import outcome
import trio

from agent.core.units import FRAME_S

_DUST: Final = 1e-6
"""Of a beat: what rounding may add to a time or take from it."""


@attrs.define(eq=False)
class PacerSlot:
    """One pacer's place at the metronome. Only its task waits on it; anyone may ``wake`` it.

    Nothing is remembered for a wait that has not begun: the pacer looks at what it was asked, then waits, with no
    checkpoint between the two.
    """

    _metronome: Metronome
    serve: Callable[[float], bool] | None = None
    """Given the deadline of a tick, may do what there is to do in the waiting task's stead; False: wake it."""
    _task: trio.lowlevel.Task | None = None
    _wants_tick: bool = False

    async def tick(self) -> float | None:
        """Wait for the next tick and return its deadline, or None if woken before.

        A checkpoint always. A cancel leaves nothing behind.
        """
        return await self._wait(wants_tick=True)

    async def idle(self) -> None:
        """Wait until woken, however many ticks pass."""
        await self._wait(wants_tick=False)

    def wake(self) -> None:
        """End the present wait."""
        self._wake(None)

    def wake_if_idle(self) -> None:
        """End the present wait if it is not for a tick: what can wait for it costs no tick."""
        if not self._wants_tick:
            self._wake(None)

    def leave(self) -> None:
        """Give the place back."""
        self._metronome.leave(self)

    async def _wait(self, *, wants_tick: bool) -> float | None:
        self._task = trio.lowlevel.current_task()
        self._wants_tick = wants_tick
        if wants_tick:
            self._metronome.expect()
        deadline: float | None = await trio.lowlevel.wait_task_rescheduled(self._abort)
        return deadline

    def _abort(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def ring(self, deadline: float) -> bool:
        """The metronome's tick, if the pacer waits for one: serves or wakes it. Whether it did wait.

        What ``serve`` raises is raised by ``tick``.
        """
        if not self.expects_tick:
            return False
        try:
            served = self.serve is not None and self.serve(deadline)
        # The boundary of one pacer: an error here would end the ticks of all.
        except Exception as error:  # noqa: BLE001
            task, self._task = self._task, None
            if task is not None:
                trio.lowlevel.reschedule(task, outcome.Error(error))
            return True
        if not served:
            self._wake(deadline)
        return True

    def _wake(self, deadline: float | None) -> None:
        task, self._task = self._task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Value(deadline))

    @property
    def expects_tick(self) -> bool:
        """Whether a pacer waits here for its tick."""
        return self._task is not None and self._wants_tick


@attrs.define(eq=False)
class Metronome:
    """Ticks for every slot that waits for one; sleeps while none does."""

    period_s: float = FRAME_S
    _slots: deque[PacerSlot] = attrs.field(factory=deque)
    _expected: trio.Event = attrs.field(factory=trio.Event)

    def attach(self) -> PacerSlot:
        """A slot of its own for a pacer, which gives it back by ``leave``."""
        slot = PacerSlot(self)
        self._slots.append(slot)
        return slot

    def leave(self, slot: PacerSlot) -> None:
        """Take a slot back; may be repeated."""
        if slot in self._slots:
            self._slots.remove(slot)

    def expect(self) -> None:
        """A slot waits for its tick: wake the metronome if it sleeps."""
        self._expected.set()

    async def run(self) -> None:
        """Tick until cancelled. A cancel leaves waiting pacers asleep: end them first.

        Deadlines are whole periods on trio's clock. In virtual time they fall together with those of other
        tickers, exactly, and the clock jumps once for all of them. A stall moves none: whole missed beats are
        skipped. Who is rung first changes from beat to beat, so that nobody's frame is always the last.
        """
        beat = silent_from = 0  # beats are counted from the zero of the clock
        while True:
            if beat >= silent_from and not any(slot.expects_tick for slot in self._slots):
                self._expected = trio.Event()
                await self._expected.wait()
                beat = max(beat, ceil(trio.current_time() / self.period_s - _DUST))
            # Also where it is overdue: it gives way to others between two beats.
            await trio.sleep_until(beat * self.period_s)
            beat = max(beat, int(trio.current_time() / self.period_s + _DUST))
            if self._ring(beat * self.period_s):
                # Who was rung needs a moment before it waits again: a whole beat without is silence.
                silent_from = beat + 2
            beat += 1

    def _ring(self, deadline: float) -> bool:
        """Ring for all; whether anybody waited. In a frame of its own, so that ``run`` holds on to no call."""
        self._slots.rotate(1)
        return any([slot.ring(deadline) for slot in self._slots])  # noqa: C419 - all of them

"""One metronome for all pacers of a process: 20 ms ticks on absolute deadlines, in a few evenly spread phases.

Waking a parked task costs a fifth of a ``sleep_until`` of its own (docs/decisions.md), and phases spread the
calls over the 20 ms so that they do not all write at once. A late tick is not made up for: after a stall, each
slot rings once, for its latest beat, and stays on the grid it had before (TX-1).
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Final

import attrs
import outcome
import trio

from agent.core.units import FRAME_S

PHASES: Final = 10
"""Phases of 2 ms: eighty calls are written in tenths, and the loop is free for reading between them."""

_DUST: Final = 1e-6
"""Of a phase: what rounding may add to a time or take from it."""


@attrs.define(eq=False)
class PacerSlot:
    """One pacer's place at the metronome. Only its task waits on it; anyone may ``wake`` it.

    Nothing is remembered for a wait that has not begun: the pacer looks at what it was asked, then waits, with no
    checkpoint between the two.
    """

    _metronome: Metronome
    phase: int
    _task: trio.lowlevel.Task | None = None
    _wants_tick: bool = False

    async def tick(self) -> float | None:
        """Wait for the next tick of this phase and return its deadline, or None if poked before.

        A checkpoint always. A cancel leaves nothing behind.
        """
        return await self._wait(wants_tick=True)

    async def idle(self) -> None:
        """Wait until poked, however many ticks pass."""
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
        """The metronome's tick: wakes the pacer if it waits for one, and says whether it did."""
        if not self.expects_tick:
            return False
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
    phases: int = PHASES
    _slots: list[list[PacerSlot]] = attrs.field(init=False)
    _expected: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._slots = [[] for _ in range(self.phases)]

    def attach(self) -> PacerSlot:
        """A slot in the phase with the fewest others."""
        phase = min(range(self.phases), key=lambda index: len(self._slots[index]))
        slot = PacerSlot(self, phase)
        self._slots[phase].append(slot)
        return slot

    def leave(self, slot: PacerSlot) -> None:
        """Take a slot back; may be repeated."""
        if slot in self._slots[slot.phase]:
            self._slots[slot.phase].remove(slot)

    def expect(self) -> None:
        """A slot waits for its tick: wake the metronome if it sleeps."""
        self._expected.set()

    async def run(self) -> None:
        """Tick until cancelled. A cancel leaves waiting pacers asleep: end them first.

        Deadlines are whole periods on trio's clock, plus the phase. In virtual time they fall together with those
        of other tickers, exactly, and the clock jumps once for all of them. A stall moves none: whole missed
        beats are skipped, and what is overdue rings in one go, the oldest first. If each phase cost a pass of the
        scheduler, they would never catch up once a pass takes longer than a phase.
        """
        step = silent_from = 0  # a step is a phase of a beat, counted from the zero of the clock
        while True:
            if step >= silent_from and not self._anyone_waits():
                self._expected = trio.Event()
                await self._expected.wait()
                step = max(step, ceil(trio.current_time() / self.period_s * self.phases - _DUST))
            step = next((later for later in range(step, step + self.phases) if self._slots_at(later)), step)
            # Also where it is overdue: it gives way to others between two goes.
            await trio.sleep_until(self._deadline(step))
            last = max(step, int(trio.current_time() / self.period_s * self.phases + _DUST))
            for due in range(max(step, last - self.phases + 1), last + 1):
                deadline = self._deadline(due)
                for slot in self._slots_at(due):
                    if slot.ring(deadline):
                        # Who was rung needs a moment before it waits again: a whole round without is silence.
                        silent_from = due + self.phases + 1
            step = last + 1

    def _slots_at(self, step: int) -> list[PacerSlot]:
        return self._slots[step % self.phases]

    def _deadline(self, step: int) -> float:
        beat, phase = divmod(step, self.phases)
        return beat * self.period_s + phase * (self.period_s / self.phases)

    def _anyone_waits(self) -> bool:
        return any(slot.expects_tick for slots in self._slots for slot in slots)

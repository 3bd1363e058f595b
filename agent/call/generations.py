"""The generations of one call: each answer is one task with one cancel scope (ST-2, DESIGN D4)."""

from collections.abc import Callable

import attrs
import trio

from agent.audio.generation import Generation
from agent.call.state import CallState
from agent.core.units import GenerationId
from agent.tx_scheduler import TxScheduler


@attrs.frozen
class _Running:
    """A generation in progress."""

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    all_sent: trio.Event = attrs.field(factory=trio.Event)
    """Set once the pacer has handed all of it to the carrier."""


@attrs.define(eq=False)
class Generations:
    """Starts and cancels the tasks of a call's answers, in the call's nursery.

    A task owns its answer's frames until the pacer takes them: the reader of the model's socket puts audio into
    the answer's slicer in the step that received it; the end of the task, heard or cancelled, drops what is left.
    The scope holds no write to a socket.
    """

    state: CallState
    pacer: TxScheduler
    on_heard: Callable[[Generation], None]
    """Told when the caller heard the last frame of one."""
    _running: dict[GenerationId, _Running] = attrs.field(factory=dict)

    def start(self, nursery: trio.Nursery, generation: Generation) -> None:
        """Register the scope, then start its task: a cancel in between is not missed."""
        running = self._running[generation.id] = _Running()
        self.pacer.queue(generation)
        nursery.start_soon(self._run, generation, running, name=f"generation {generation.id}")

    def cancel(self, generations: tuple[Generation, ...]) -> None:
        """Cancel their scopes: the only place that does, and nothing is flushed."""
        for generation in generations:
            self._running[generation.id].scope.cancel(reason="barge-in")

    def all_sent(self, generation: Generation) -> None:
        """Let the task wait for the ear; at the end of the call it may be gone before the pacer."""
        if running := self._running.get(generation.id):
            running.all_sent.set()

    async def _run(self, generation: Generation, running: _Running) -> None:
        """Hold one answer until the caller heard the last of it; a cancel takes the rest with it."""
        try:
            with running.scope:
                await running.all_sent.wait()
                await self._until_heard(generation)
                self.on_heard(generation)
        finally:
            self.pacer.withdraw(generation)
            generation.slicer.drop()
            del self._running[generation.id]

    async def _until_heard(self, generation: Generation) -> None:
        """Wait for the mark behind the last frame, within a bound; for the clock where none comes back (D6)."""
        playout = self.state.playout
        sent_ms = playout.sent_ms(generation.id)
        while not playout.proved(generation.id, sent_ms):
            now = trio.current_time()
            latest = playout.heard_by(generation.id, now)
            if now >= latest:
                return
            with trio.move_on_at(latest):
                await self.state.changed.park()

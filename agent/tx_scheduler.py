"""The TX pacer: the only writer of the carrier's socket. Next frame, send, sleep (TX-4).

Generations queue in order; the pacer pulls one frame per 20 ms tick from the first that is live. At the start of
a talk spurt, and when the carrier has run dry, it sends ``lead_ms`` at once, so that the carrier holds a little
audio and short stalls are not heard; what a stall used up of it is put back by at most one extra frame per tick
(TX-1, DESIGN D5).

Nothing here flushes: a cancelled generation leaves the queue with all it owns, and its liveness is looked at with
no checkpoint before the write, so that after a cancel not one more of its frames leaves (DESIGN D4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import trio

from agent.audio.generation import Generation
from agent.audio.metronome import PacerSlot
from agent.audio.pacer_metrics import PacerMetrics
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.caller_leg import LegEncoder, Message
from agent.core.units import FRAME_MS
from agent.playout import PlayoutClock
from agent.wire.websocket import MessageSocket

MARK_EVERY_FRAMES: Final = 10
"""A mark each 200 ms of a generation (DESIGN D6)."""


class TxObserver(Protocol):
    """What the pacer tells the call, synchronously."""

    def first_frame(self, generation: Generation, now: float) -> None:
        """The first frame of ``generation`` was written."""

    def all_sent(self, generation: Generation) -> None:
        """The last frame of ``generation`` and its mark were written."""

    def cleared(self, now: float) -> None:
        """A clear was written: the clock is frozen, truncation can be computed."""

    def violation(self, generation: Generation) -> None:
        """A frame left after its generation was cancelled. It cannot; if it ever does, say so (PL-5)."""


def frames_due(held_ms: float, lead_ms: int, *, spurt_begins: bool, late_ms: float = 0.0) -> int:
    """How many frames this tick may send while the carrier holds ``held_ms`` (TX-1).

    The lead as a whole when a talk spurt begins, or when the carrier holds nothing; else one, one more if a
    whole frame of the lead is missing, none if one more would pass the lead. ``lead_ms`` of one frame or less is
    exactly one frame per tick.

    What is missing is counted at the last beat, ``late_ms`` ago: a tick that runs late is no reason for an extra
    frame, which the next tick, on time, would have to take back by leaving one out.
    """
    if lead_ms <= FRAME_MS:
        return 1
    dry = held_ms <= 0.0
    held_ms = max(held_ms, 0.0) + max(late_ms, 0.0) % FRAME_MS
    room = max(int((lead_ms - held_ms + 0.5) // FRAME_MS), int(dry))
    return room if spurt_begins or dry else min(room, 2)


@attrs.define(eq=False)
class TxScheduler:
    """The pacer of one call. ``run`` is its only task; every other method is synchronous."""

    socket: MessageSocket
    encoder: LegEncoder
    playout: PlayoutClock
    slot: PacerSlot
    observer: TxObserver
    meter: PacerMetrics
    lead_ms: int
    comfort_silence: bool = False
    format: AudioFormat = ULAW_8K
    sending_since: float | None = None
    """When the write under way began, for the watcher of stuck carriers."""
    last_look: float = 0.0
    """When the last write was allowed: the instant its bytes went to the operating system."""
    _queue: deque[Generation] = attrs.field(factory=deque)
    _clear_asked: bool = False
    _stopping: bool = False
    _spurt: bool = False
    _silence: Message = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._silence = self.encoder.media(self.format.silence_frame)
        self.slot.serve = self._serve_tick

    # Asked by others

    def queue(self, generation: Generation) -> None:
        """Let ``generation`` speak after those before it."""
        self._queue.append(generation)

    def audio_waits(self, generation: Generation) -> None:
        """``generation`` has new audio, or is complete."""
        self.playout.owe(trio.current_time(), self.owed_frames)
        if not self._spurt and self._queue and self._queue[0] is generation:
            self.slot.wake_if_idle()

    def withdraw(self, generation: Generation) -> None:
        """A generation ended: it leaves the queue with the frames it still owns."""
        if generation in self._queue:
            self._queue.remove(generation)

    def clear(self) -> None:
        """Have the carrier drop what it holds, before anything else is sent."""
        self._clear_asked = True
        self.slot.wake()

    def stop(self) -> None:
        """Return from ``run`` at the next boundary between messages."""
        self._stopping = True
        self.slot.wake()

    @property
    def owed_frames(self) -> int:
        """Frames of live generations that are not handed over yet."""
        owed = 0
        for generation in self._queue:
            if generation.live:
                owed += generation.slicer.waiting
        return owed

    # The loop

    async def run(self) -> None:
        """Send until ``stop``. Raises SocketClosedError when the carrier is gone.

        Run it under ``run_until_stopped``: cancelled directly it may leave half a frame on the wire.
        """
        deadline: float | None = None
        while not self._stopping:
            if self._clear_asked:
                await self._send_clear()
                continue
            if self._speakable():
                await self._speak(deadline)
            else:
                await self._pause(deadline)
            if self._clear_asked or self._stopping:
                continue
            if self._spurt or self.comfort_silence:
                deadline = await self.slot.tick()
            else:
                deadline = None
                await self.slot.idle()

    def _serve_tick(self, deadline: float) -> bool:
        """A plain tick, in the stead of ``run``, which waits for it: its frames and marks, in one write.

        False leaves everything else to ``run``, which is woken: a beginning, an end, a clear, a full socket.
        """
        if self._clear_asked or self._stopping or not self._spurt or not self._speakable():
            return False
        generation, now = self._queue[0], trio.current_time()
        slicer, late_s = generation.slicer, now - deadline
        due = frames_due(self.playout.held_ms(now), self.lead_ms, spurt_begins=False, late_ms=late_s * 1000)
        if slicer.waiting <= due or not self.socket.takes_now:
            return False
        self.meter.tick(late_s)
        self.last_look = now
        messages = []
        for _ in range(due):
            messages.append(self.encoder.media(slicer.pop() or b""))
            self._account(generation, now)
            if generation.sent_frames % MARK_EVERY_FRAMES == 0:
                messages.append(self.encoder.mark(self.playout.mark_sent(generation.id, now)))
        return not messages or self.socket.send_now(*messages)

    def _speakable(self) -> bool:
        """Whether the first live generation has a frame, or only its end mark, to send."""
        queue = self._queue
        while queue and not queue[0].live:
            queue.popleft()
        if not queue:
            return False
        slicer = queue[0].slicer
        return slicer.waiting > 0 or slicer.exhausted

    async def _speak(self, deadline: float | None) -> None:
        now = trio.current_time()
        held_ms, late_s = self.playout.held_ms(now), 0.0
        begins = not self._spurt and held_ms <= FRAME_MS
        self._spurt = True
        if deadline is not None:
            late_s = now - deadline
            self.meter.tick(late_s)
        elif self.lead_ms <= FRAME_MS:
            return
        due = frames_due(held_ms, self.lead_ms, spurt_begins=begins, late_ms=late_s * 1000)
        if begins and deadline is None:
            # Between two ticks: the next one is less than a frame away and brings the lead's last frame. Sent
            # now, it would leave that tick without room, and a gap of up to 40 ms behind the burst.
            due = max(due - 1, 1)
        for _ in range(due):
            if self._clear_asked or self._stopping or not self._speakable():
                return
            await self._send_frame(self._queue[0])

    async def _pause(self, deadline: float | None) -> None:
        if self._spurt:
            self._spurt = False
            self.meter.pause(starved=bool(self._queue) and self._queue[0].sent_frames > 0)
        if self.comfort_silence and deadline is not None:
            await self._write(self._silence, self._look_at(None))
            self.playout.silence_sent(self.last_look)

    async def _send_frame(self, generation: Generation) -> None:
        frame = generation.slicer.pop()
        if frame is not None:
            if not await self._write(self.encoder.media(frame), self._look_at(generation)):
                return
            self._account(generation, self.last_look)
        ended = generation.slicer.exhausted
        sent = generation.sent_frames
        if sent and generation.live and (ended or sent % MARK_EVERY_FRAMES == 0):
            mark = self.encoder.mark(self.playout.mark_sent(generation.id, trio.current_time()))
            await self._write(mark, self._look_at(generation))
        if ended and generation.live:
            self.withdraw(generation)
            self.observer.all_sent(generation)

    def _account(self, generation: Generation, now: float) -> None:
        """A frame went to the operating system at ``now``."""
        if generation.cancelled_s is not None and generation.cancelled_s < now:
            self.observer.violation(generation)
        dry_s = now - self.playout.buffer_end if generation.sent_frames else 0.0
        self.meter.frame(now, held_ms=self.playout.held_ms(now), dry_s=dry_s)
        self.playout.frame_sent(generation.id, now, self.owed_frames)
        generation.sent_frames += 1
        if generation.first_frame_s is None:
            generation.first_frame_s = now
            self.observer.first_frame(generation, now)

    async def _send_clear(self) -> None:
        self._clear_asked = False
        self._spurt = False
        self.meter.pause(starved=False)
        await self._write(self.encoder.clear, self._freeze)
        self.observer.cleared(self.last_look)

    def _freeze(self) -> bool:
        """The clear is on the wire with our return: the marks it cleared may come back before the write does."""
        self.last_look = trio.current_time()
        self.playout.clear_sent(self.last_look)
        return True

    async def _write(self, message: Message, look: Callable[[], bool]) -> bool:
        """Write one message unless ``look`` says no at the last moment."""
        started = self.sending_since = trio.current_time()
        try:
            return await self.socket.send(message, look)
        finally:
            self.sending_since = None
            self.meter.write_took(trio.current_time() - started)

    def _look_at(self, generation: Generation | None) -> Callable[[], bool]:
        def look() -> bool:
            if generation is not None and not generation.live:
                return False
            self.last_look = trio.current_time()
            return True

        return look

"""From chunks of any size to frames of 20 ms: no byte lost, none invented but the last frame's padding (TX-2)."""

import attrs

from agent.core.audio_format import ULAW_8K, AudioFormat


@attrs.define(eq=False)
class FrameSlicer:
    """The audio of one generation, waiting: chunks in, frames out, in order.

    ``push`` takes audio of any length; ``finish`` says that no more comes, which lets the last, shorter frame go
    out padded with silence. Pure; not safe to share between threads.
    """

    format: AudioFormat = ULAW_8K
    _audio: bytearray = attrs.field(factory=bytearray, repr=False)
    finished: bool = False
    waiting: int = 0
    """How many frames ``pop`` would give now."""

    def push(self, chunk: bytes) -> None:
        """Add audio. Raises ValueError after ``finish``: a late chunk is the caller's mistake to count."""
        if self.finished:
            raise ValueError("audio after the end of its generation")
        self._audio += chunk
        self._count()

    def finish(self) -> None:
        """No more audio comes; may be repeated."""
        self.finished = True
        self._count()

    def pop(self) -> bytes | None:
        """The next frame of exactly 20 ms, or None if a whole one is not there (yet)."""
        length = self.format.frame_bytes
        frame = bytes(self._audio[:length])
        if len(frame) < length:
            if not frame or not self.finished:
                return None
            frame += self.format.silence_frame[len(frame) :]
        self.waiting -= 1
        del self._audio[:length]  # moves nothing: a bytearray begins where it likes
        return frame

    def drop(self) -> None:
        """Forget the audio that waits: the generation is over, and only its ledger is kept."""
        self._audio = bytearray()
        self.waiting = 0

    def _count(self) -> None:
        whole, rest = divmod(len(self._audio), self.format.frame_bytes)
        self.waiting = whole + (1 if rest and self.finished else 0)

    @property
    def exhausted(self) -> bool:
        """Whether all audio has gone out and none will come."""
        return self.finished and not self._audio

"""The input audio buffer of one session: what came in, where the caller spoke, and the piece that is a turn.

Synchronous: a window of 32 ms costs one run of the detector, about 0.1 ms.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import attrs

from agent.core.units import BYTES_PER_MS
from agent.local.speech.endpointing import MAX_SPEECH_MS, WINDOW_MS, Endpointer, EndpointEvent, TurnStarted

WINDOW_BYTES: Final = WINDOW_MS * BYTES_PER_MS


class Vad(Protocol):
    """A detector of speech, with the memory of one session."""

    def probability(self, window: bytes) -> float:
        """How likely these WINDOW_BYTES of mu-law hold speech, 0 to 1."""


@attrs.define(eq=False)
class Listener:
    """Audio in, endpoints out. Times are milliseconds of all audio appended in the session."""

    _vad: Vad
    endpointer: Endpointer = attrs.field(factory=Endpointer)
    trimming: bool = True
    """Forget what can no longer belong to a turn; off while the client commits turns itself."""
    _audio: bytearray = attrs.field(factory=bytearray)
    _start: int = 0
    _seen: int = 0
    voiced: bool = attrs.field(default=False, init=False)
    """Was there speech in what is buffered?"""

    @property
    def empty(self) -> bool:
        """Is nothing buffered?"""
        return not self._audio

    def append(self, ulaw: bytes) -> Iterator[EndpointEvent | None]:
        """Take audio of any length; yields once for each window it completes, with what happened in it."""
        self._audio += ulaw
        while self._start + len(self._audio) - self._seen >= WINDOW_BYTES:
            at = self._seen - self._start
            window = bytes(self._audio[at : at + WINDOW_BYTES])
            self._seen += WINDOW_BYTES
            event = self.endpointer.push(self._vad.probability(window))
            self.voiced = self.voiced or isinstance(event, TurnStarted)
            yield event
            self._trim()

    def cut(self, start_ms: int, end_ms: int) -> bytes:
        """The audio between two times, as far as it is still buffered."""
        start, end = start_ms * BYTES_PER_MS - self._start, end_ms * BYTES_PER_MS - self._start
        return bytes(self._audio[max(0, start) : max(0, end)])

    def take(self) -> bytes:
        """All that is buffered; nothing is then, and no turn is open."""
        taken = bytes(self._audio)
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget what is buffered and the open turn. The detector is not reset (WB-5), time goes on."""
        self._start += len(self._audio)
        self._seen = self._start
        self._audio.clear()
        self.voiced = False
        self.endpointer.reset(self._start // BYTES_PER_MS)

    def _trim(self) -> None:
        keep = self.endpointer.keep_from_ms * BYTES_PER_MS if self.trimming else 0
        keep = max(keep, self._seen - 2 * MAX_SPEECH_MS * BYTES_PER_MS)
        drop = keep - self._start
        if drop > 0:
            del self._audio[:drop]
            self._start = keep
            if not self.endpointer.speaking:
                self.voiced = False

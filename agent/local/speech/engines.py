"""The networks behind one seam, and the same networks run in threads.

One limiter for each network: a single thread of each at a time, so that the model's process never takes more
than two cores however many sessions it serves. A cancelled caller leaves at once; the thread finishes and its
result is dropped, which harms nobody, since none of the networks has side effects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import trio
from typing_extensions import override

from agent.core.audio_format import AudioFormat
from agent.local.speech.listening import Vad

if TYPE_CHECKING:
    from agent.local.speech.stt import WhisperStt
    from agent.local.speech.tts import HibariTts


class Engines(Protocol):
    """The networks, shared by all sessions."""

    def make_vad(self) -> Vad:
        """A detector for one session."""

    async def transcribe(self, ulaw: bytes) -> str:
        """Text of speech; empty if there is none. A cancel abandons the work."""

    def sentences(self, text: str) -> list[str]:
        """The pieces in which a text is spoken."""

    async def speak(self, sentence: str, voice: str, audio: AudioFormat) -> bytes:
        """One sentence, in mu-law or PCM16. A cancel abandons the work."""


@attrs.define(eq=False)
class LoadedEngines(Engines):
    """The real networks of the ``[local]`` extra."""

    _stt: WhisperStt
    _tts: HibariTts
    _stt_limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _tts_limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @classmethod
    def load(cls) -> LoadedEngines:
        """Load all weights (one to two seconds). Raises ImportError if the extra is missing, WeightsError."""
        from agent.local.speech.stt import WhisperStt  # noqa: PLC0415  (the extra, which a session's tests do without)
        from agent.local.speech.tts import HibariTts  # noqa: PLC0415  (likewise)
        from agent.local.speech.vad import SileroVad  # noqa: PLC0415  (likewise)

        SileroVad()
        return cls(WhisperStt.load(), HibariTts.load())

    @override
    def make_vad(self) -> Vad:
        from agent.local.speech.vad import SileroVad  # noqa: PLC0415  (loaded by ``load``)

        return SileroVad()

    @override
    async def transcribe(self, ulaw: bytes) -> str:
        return await trio.to_thread.run_sync(
            self._stt.transcribe, ulaw, abandon_on_cancel=True, limiter=self._stt_limiter
        )

    @override
    def sentences(self, text: str) -> list[str]:
        return self._tts.sentences(text)

    @override
    async def speak(self, sentence: str, voice: str, audio: AudioFormat) -> bytes:
        return await trio.to_thread.run_sync(
            self._tts.speak, sentence, voice, audio, abandon_on_cancel=True, limiter=self._tts_limiter
        )

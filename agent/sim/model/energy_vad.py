"""Server voice activity detection by loudness, for simulations: exact, repeatable and cheap. No I/O, no clock.

It counts time in the audio appended, as the provider does, so the same audio gives the same milliseconds
whatever the pace it comes at.
"""

from binascii import a2b_base64
from typing import Final

import attrs

from agent.audio.ulaw import LINEAR
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, FRAME_MS
from agent.sim.sounds import SILENCE_PAYLOAD

_ENERGY: Final = tuple((sample / 32768) ** 2 for sample in LINEAR)


@attrs.frozen
class SpeechStart:
    """Speech began; ``audio_start_ms`` counts all audio appended and includes the prefix padding."""

    audio_start_ms: int


@attrs.frozen
class SpeechEnd:
    """Speech ended; ``audio_end_ms`` counts all audio appended and includes the silence that proved it."""

    audio_end_ms: int


@attrs.define(eq=False, kw_only=True)
class EnergyVad:
    """Speech is ``min_speech_ms`` in a row louder than ``threshold_dbfs`` (RMS of 20 ms).

    It ends after ``silence_duration_ms`` without. All three are in steps of 20 ms, rounded up.
    """

    threshold_dbfs: float = -40.0
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    min_speech_ms: int = 40

    appended_bytes: int = 0
    speaking: bool = False
    _analysed_ms: int = 0
    _streak_ms: int = 0
    """How long the state has been contradicted: loud while silent, quiet while speaking."""
    _rest: bytes = b""

    @property
    def appended_ms(self) -> int:
        """Milliseconds of audio appended since the session began."""
        return self.appended_bytes // BYTES_PER_MS

    def append(self, payload: str) -> list[SpeechStart | SpeechEnd]:
        """Take base64 mu-law of any length. Raises binascii.Error for what is not base64."""
        if payload == SILENCE_PAYLOAD and not self._rest:
            self.appended_bytes += FRAME_BYTES
            return self._window(loud=False)
        audio = a2b_base64(payload, strict_mode=True)
        self.appended_bytes += len(audio)
        audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME_BYTES
        self._rest = audio[whole:]
        limit = FRAME_BYTES * 10 ** (self.threshold_dbfs / 10)
        events: list[SpeechStart | SpeechEnd] = []
        for at in range(0, whole, FRAME_BYTES):
            energy = sum(map(_ENERGY.__getitem__, audio[at : at + FRAME_BYTES]))
            events += self._window(loud=energy > limit)
        return events

    def _window(self, *, loud: bool) -> list[SpeechStart | SpeechEnd]:
        self._analysed_ms += FRAME_MS
        if loud == self.speaking:
            self._streak_ms = 0
            return []
        self._streak_ms += FRAME_MS
        if self._streak_ms < (self.silence_duration_ms if self.speaking else self.min_speech_ms):
            return []
        streak_ms, self._streak_ms = self._streak_ms, 0
        self.speaking = loud
        if loud:
            return [SpeechStart(max(0, self._analysed_ms - streak_ms - self.prefix_padding_ms))]
        return [SpeechEnd(self._analysed_ms)]

"""When a caller begins and ends to speak, from the probabilities of a voice activity detector. No clock, no I/O.

One probability covers one window of 32 ms. Times count all audio of the session, as the Realtime API counts
``audio_start_ms`` and ``audio_end_ms``: the start lies ``prefix_padding_ms`` before the first window of speech,
the end is the end of the silence that was waited for.
"""

from typing import Final

import attrs

WINDOW_MS: Final = 32
"""What one probability covers: 256 samples at 8 kHz, the window Silero VAD was trained on."""
MIN_SPEECH_MS: Final = 64
"""Speech this long is a start; a click or a single cough window is not."""
HYSTERESIS: Final = 0.15
"""A window is silent only this far below the threshold (Silero's own iterator uses the same)."""
SPECULATE_MS: Final = 160
"""Silence after which the end is likely enough to begin transcribing; longer than the pauses between words."""
MAX_SPEECH_MS: Final = 120_000
"""A turn is ended here even if the caller goes on, so that no buffer grows without limit."""


@attrs.frozen
class TurnStarted:
    """The caller speaks, from ``audio_start_ms`` on (padding included)."""

    audio_start_ms: int


@attrs.frozen
class TurnPaused:
    """The caller may have finished: worth to begin transcribing ``audio_start_ms`` to ``audio_end_ms``."""

    audio_start_ms: int
    audio_end_ms: int


@attrs.frozen
class TurnResumed:
    """The caller went on after a pause: discard what was begun at it."""


@attrs.frozen
class TurnEnded:
    """The caller finished."""

    audio_start_ms: int
    audio_end_ms: int


EndpointEvent = TurnStarted | TurnPaused | TurnResumed | TurnEnded


@attrs.define(eq=False)
class Endpointer:
    """Fed one probability a window; says what it means. The three settings may change at any time.

    A turn ends at the window nearest to ``silence_duration_ms``: 400 is 384, where rounding up would cost 32 ms
    of every answer.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    _now_ms: int = 0
    speaking: bool = attrs.field(default=False, init=False)
    """Is a turn of the caller open?"""
    _paused: bool = False
    _speech_ms: int = 0
    _silence_ms: int = 0
    _candidate_ms: int = 0
    _start_ms: int = 0

    @property
    def keep_from_ms(self) -> int:
        """Audio before this can no longer become part of a turn."""
        if self.speaking:
            return self._start_ms
        begun_ms = self._candidate_ms if self._speech_ms else self._now_ms
        return max(0, begun_ms - self.prefix_padding_ms)

    def push(self, probability: float) -> EndpointEvent | None:
        """The next window; at most one event comes of it."""
        self._now_ms += WINDOW_MS
        return self._while_speaking(probability) if self.speaking else self._while_silent(probability)

    def reset(self, now_ms: int) -> None:
        """Forget the open turn (it was committed or cleared by hand); the next window begins at ``now_ms``."""
        self._now_ms = now_ms
        self._close()

    def _while_silent(self, probability: float) -> EndpointEvent | None:
        if probability < self.threshold:
            self._speech_ms = 0
            return None
        if not self._speech_ms:
            self._candidate_ms = self._now_ms - WINDOW_MS
        self._speech_ms += WINDOW_MS
        if self._speech_ms < MIN_SPEECH_MS:
            return None
        self._start_ms = max(0, self._candidate_ms - self.prefix_padding_ms)
        self.speaking, self._paused, self._silence_ms = True, False, 0
        return TurnStarted(self._start_ms)

    def _while_speaking(self, probability: float) -> EndpointEvent | None:
        quiet = probability < self.threshold - HYSTERESIS or (self._silence_ms and probability < self.threshold)
        self._silence_ms = self._silence_ms + WINDOW_MS if quiet else 0
        too_long = self._now_ms - self._start_ms >= MAX_SPEECH_MS
        if too_long or self._silence_ms + WINDOW_MS // 2 >= self.silence_duration_ms:
            self._close()
            return TurnEnded(self._start_ms, self._now_ms)
        if self._paused and not quiet:
            self._paused = False
            return TurnResumed()
        if not self._paused and self._silence_ms >= SPECULATE_MS:
            self._paused = True
            return TurnPaused(self._start_ms, self._now_ms)
        return None

    def _close(self) -> None:
        self.speaking = self._paused = False
        self._speech_ms = self._silence_ms = 0

"""Sounds for simulations: tones, and audio of which every frame tells the answer it belongs to.

All are 8 kHz mu-law. ``numbered`` audio carries the number of its answer in the upper four bits of each byte
and the number of its 20 ms frame in the lower four, so that a frame seen on the wire can be attributed.
"""

from base64 import b64encode
from collections import Counter
from functools import cache
from typing import Final

import attrs

from agent.audio.ulaw import pcm16_to_ulaw
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, SAMPLE_RATE_HZ, SILENCE_FRAME, ULAW_SILENCE

_NUMBERS: Final = 12
"""Numbers that can be told apart; 0xC0 to 0xFF stay free, silence is among them."""
SILENCE_PAYLOAD: Final = b64encode(SILENCE_FRAME).decode()
"""20 ms of silence as it stands in a message."""


@cache
def tone(duration_ms: int, *, hz: float = 440.0, dbfs: float = -12.0) -> bytes:
    """A sine of ``duration_ms`` milliseconds; ``dbfs`` is its RMS below a full-scale square wave."""
    import numpy as np  # noqa: PLC0415  (a simulation that never plays a tone does not load it)

    time_s = np.arange(duration_ms * BYTES_PER_MS) / SAMPLE_RATE_HZ
    peak = 32768 * 2**0.5 * 10 ** (dbfs / 20)
    wave = np.clip(peak * np.sin(2 * np.pi * hz * time_s), -32635, 32635)
    return pcm16_to_ulaw(wave.round().astype(np.int16))


def silence(duration_ms: int) -> bytes:
    """``duration_ms`` milliseconds of an idle line."""
    return bytes([ULAW_SILENCE]) * (duration_ms * BYTES_PER_MS)


def numbered(number: int, duration_ms: int) -> bytes:
    """Audio of answer ``number`` (counted from 0; 12 can be told apart)."""
    length = duration_ms * BYTES_PER_MS
    frames = [bytes([number % _NUMBERS << 4 | frame]) * FRAME_BYTES for frame in range(16)]
    round_bytes = b"".join(frames)
    return (round_bytes * (length // len(round_bytes) + 1))[:length]


def numbers_in(audio: bytes) -> Counter[int]:
    """How many bytes of each answer's ``numbered`` audio are in ``audio``; silence is not counted."""
    return Counter(code >> 4 for code in audio if code < _NUMBERS << 4)


@attrs.frozen
class Utterance:
    """Speech cut into 20 ms payloads once, to be said by any number of streams; the end is padded."""

    audio: bytes = attrs.field(repr=False)
    payloads: tuple[str, ...] = attrs.field(init=False, repr=False)

    @payloads.default
    def _cut(self) -> tuple[str, ...]:
        starts = range(0, len(self.audio), FRAME_BYTES)
        frames = (self.audio[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff") for at in starts)
        return tuple(b64encode(frame).decode() for frame in frames)

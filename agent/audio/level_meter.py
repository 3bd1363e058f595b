"""Our own ear on the caller: loudness, noise floor, voiced frames, for the log (BI-7) and greeting protection.

It decides no turns, the model's voice activity detection does that. It costs about a microsecond a frame: each
mu-law byte is mapped to its magnitude code (0 to 127, roughly logarithmic) and averaged. Of PCM16 every third
sample is, as at 8 kHz, so that a level means the same in both: about five microseconds.
"""

from array import array
from collections import deque
from functools import cache
from math import log10
from typing import Any, Final

import attrs

from agent.core.audio_format import ULAW_8K, AudioFormat

_MAGNITUDE: Final = bytes(127 - (code & 0x7F) for code in range(256))
"""Mu-law code to magnitude code: 0 is silence, 127 full scale; 16 codes are a doubling (ITU-T G.711)."""
VOICED_OVER_FLOOR: Final = 14
"""A frame is voiced if its mean magnitude code is so much over the noise floor: about 5 dB."""
VOICED_AT_LEAST: Final = 16
"""And at least this: about -48 dBFS, under which a telephone line is quiet."""
QUIET_OVER_FLOOR: Final = 5
"""A frame is quiet if it is less than this over the noise floor: about 2 dB."""
QUIET_AT_MOST: Final = 8
"""Or less than this: about -54 dBFS, where no detector hears a voice."""
FLOOR_RISE: Final = 0.02
"""The floor falls at once and rises by this share of the difference a frame: it adapts in about a second."""
VOICED_MEMORY_FRAMES: Final = 8
"""160 ms: the caller still speaks if a frame of these was voiced (a gap between words is shorter)."""
_BIAS: Final = 33
_FULL_SCALE: Final = 8159


@attrs.define(eq=False)
class LevelMeter:
    """The loudness of one caller, frame by frame."""

    format: AudioFormat = ULAW_8K
    frames: int = 0
    voiced_frames: int = 0
    """Voiced frames since the last pause of VOICED_MEMORY_FRAMES."""
    voiced_total: int = 0
    """All voiced frames so far."""
    noise_floor: float = 0.0
    level: float = 0.0
    quiet: bool = True
    """Whether the last frame was none of a voice for certain; one may be neither voiced nor quiet."""
    _recent: deque[float] = attrs.field(factory=lambda: deque(maxlen=25))
    _since_voiced: int = VOICED_MEMORY_FRAMES
    _is_ulaw: bool = attrs.field(init=False)
    _silence: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._is_ulaw, self._silence = self.format == ULAW_8K, self.format.silence_frame

    def feed(self, audio: bytes) -> None:
        """A frame from the caller, of any length but none at all."""
        self.frames += 1
        if audio == self._silence:
            level = 0.0
        elif self._is_ulaw:
            level = sum(audio.translate(_MAGNITUDE)) / len(audio)
        else:
            level = _pcm16_level(audio, self.format.rate_hz // ULAW_8K.rate_hz)
        self.level = level
        self._recent.append(level)
        floor = self.noise_floor
        if level >= VOICED_AT_LEAST and level >= floor + VOICED_OVER_FLOOR:
            self.voiced_frames += 1
            self.voiced_total += 1
            self._since_voiced = 0
        elif self._since_voiced < VOICED_MEMORY_FRAMES:
            self._since_voiced += 1
        else:
            self.voiced_frames = 0
        self.quiet = level < QUIET_AT_MOST or level < floor + QUIET_OVER_FLOOR
        self.noise_floor = level if level < floor else floor + (level - floor) * FLOOR_RISE

    @property
    def voiced_now(self) -> bool:
        """Whether the last frame was voiced."""
        return self._since_voiced == 0

    @property
    def voiced(self) -> bool:
        """Whether the caller spoke within the last VOICED_MEMORY_FRAMES."""
        return self._since_voiced < VOICED_MEMORY_FRAMES

    def snapshot(self) -> dict[str, Any]:
        """The fields of a barge-in candidate: voiced frames, loudest recent level and floor in dBFS."""
        return {
            "vad_frames": self.voiced_frames,
            "rms_dbfs": _dbfs(max(self._recent, default=0.0)),
            "noise_floor_dbfs": _dbfs(self.noise_floor),
        }


def _pcm16_level(audio: bytes, step: int) -> float:
    """The mean magnitude code of every ``step``-th sample."""
    samples = array("h", audio)[::step]
    return sum(map(_pcm16_magnitudes().__getitem__, samples)) / len(samples)


@cache
def _pcm16_magnitudes() -> bytes:
    """The magnitude code of each 16-bit sample; a negative one counts from the end, as Python has it."""
    codes = b"".join(bytes([code]) * (8 << (code >> 4)) for code in range(128))
    positive = codes.ljust(1 << 15, b"\x7f")
    return positive + positive[::-1]


def _dbfs(code: float) -> float:
    """Level in dBFS of a magnitude code, by the mu-law expansion."""
    segment, step = divmod(code, 16)
    magnitude = (2 * step + _BIAS) * 2**segment - _BIAS
    return round(20 * log10(max(magnitude, 1.0) / _FULL_SCALE), 1)

"""The head of a WAV file: where the samples begin, how many there are, and how they lie. Pure.

Source: Microsoft's "Multiple channel audio data and WAVE files" and RFC 2361 (format tags). The carrier's
recordings are 16-bit PCM at 8 kHz with one or two channels.
"""

import struct
from typing import Final

import attrs

from agent.core.errors import MalformedMessageError

HEAD_BYTES: Final = 64 * 1024
"""The samples begin within this; the chunks in front of them (LIST, fact) are a few hundred bytes."""
PCM: Final = 1
SAMPLE_BYTES: Final = 2
_EXTENSIBLE: Final = 0xFFFE
_EXTENSIBLE_BYTES: Final = 26
_FMT_BYTES: Final = 16
_RIFF_BYTES: Final = 12
_CHUNK_BYTES: Final = 8
_MOST_CHANNELS: Final = 32
_UNKNOWN_LENGTHS: Final = (0x7FFFFFFF, 0xFFFFFFFF)
"""What writers that cannot go back put where the length belongs: everything up to the end of the file."""


@attrs.frozen
class WavHead:
    """How a WAV file is laid out. ``data_bytes`` None: all that follows ``data_at``."""

    tag: int
    channels: int
    rate_hz: int
    bits: int
    data_at: int
    data_bytes: int | None

    @property
    def is_pcm16(self) -> bool:
        """Whether the samples are 16-bit integers."""
        return self.tag == PCM and self.bits == SAMPLE_BYTES * 8

    @property
    def frame_bytes(self) -> int:
        """One sample of every channel."""
        return max(1, self.channels * self.bits // 8)

    def duration_s(self, file_bytes: int) -> float:
        """Seconds of sound in a file of ``file_bytes``."""
        there = max(0, file_bytes - self.data_at)
        wanted = there if self.data_bytes is None else min(there, self.data_bytes)
        return wanted // self.frame_bytes / self.rate_hz

    def missing_bytes(self, file_bytes: int) -> int:
        """How much of the promised sound a file of ``file_bytes`` lacks."""
        return max(0, self.data_at + (self.data_bytes or 0) - file_bytes)


def read_head(raw: bytes) -> WavHead:
    """Read the layout from the first bytes of a file (HEAD_BYTES are always enough).

    Raises MalformedMessageError of kind ``not_wav``, ``cut`` (the head itself is not whole) or ``format``.
    """
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise MalformedMessageError("not_wav", f"it begins with {raw[:12]!r}")
    layout: tuple[int, int, int, int] | None = None
    at = _RIFF_BYTES
    while at + _CHUNK_BYTES <= len(raw):
        name, length = struct.unpack_from("<4sI", raw, at)
        at += _CHUNK_BYTES
        if name == b"data":
            if layout is None:
                raise MalformedMessageError("format", "its samples come before their description")
            return WavHead(*layout, at, None if length in _UNKNOWN_LENGTHS else length)
        if name == b"fmt ":
            layout = _read_layout(raw[at : at + length])
        at += length + length % 2
    raise MalformedMessageError("cut", f"its head is not whole after {len(raw)} bytes")


def write_head(data_bytes: int, channels: int, rate_hz: int) -> bytes:
    """The 44 bytes in front of ``data_bytes`` of 16-bit PCM."""
    frame_bytes = channels * SAMPLE_BYTES
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + data_bytes, b"WAVE",
        b"fmt ", _FMT_BYTES, PCM, channels, rate_hz, rate_hz * frame_bytes, frame_bytes, SAMPLE_BYTES * 8,
        b"data", data_bytes,
    )  # fmt: skip


def _read_layout(body: bytes) -> tuple[int, int, int, int]:
    if len(body) < _FMT_BYTES:
        raise MalformedMessageError("cut", "its description of the samples is not whole")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= _EXTENSIBLE_BYTES:
        [tag] = struct.unpack_from("<H", body, 24)
    if not 1 <= channels <= _MOST_CHANNELS or not rate_hz or not bits:
        raise MalformedMessageError("format", f"{channels} channels of {bits} bits at {rate_hz} Hz")
    return tag, channels, rate_hz, bits

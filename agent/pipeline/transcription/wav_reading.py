"""Recordings on disk, read a second at a time: how loud each channel is, and stretches of one channel.

Everything here blocks and computes: call it in a thread. Memory is bounded by what is asked for, never by the
length of the recording. numpy is loaded with this module, which is to say when a worker starts and not in a call.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import attrs
import numpy as np
import numpy.typing as npt

from agent.core.errors import MalformedMessageError, StepDeadError
from agent.pipeline.recording.wav_format import HEAD_BYTES, WavHead, read_head, write_head
from agent.pipeline.transcription.talk_spans import WINDOW_MS, Piece

_BLOCK_S: Final = 5
_FULL_SCALE: Final = 32768.0
_FLOOR: Final = 1e-5
"""The lowest level that is told apart, -100 dB: digital silence has no logarithm."""
_RATES_HZ: Final = range(4000, 48_001)
Samples = npt.NDArray[np.int16]


@attrs.frozen
class WavFile:
    """A recording of 16-bit samples. Made by ``open_wav``; no file is held open."""

    path: Path
    head: WavHead
    frames: int
    """Samples of each channel."""

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.head.channels

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[Samples]:
        """The samples from frame ``start`` to ``end``, ``(frames, channels)``, some seconds at a time."""
        left = (self.frames if end is None else min(end, self.frames)) - start
        with self.path.open("rb") as file:
            file.seek(self.head.data_at + start * self.head.frame_bytes)
            while left > 0:
                block = self._read(file, min(left, _BLOCK_S * self.head.rate_hz))
                if not len(block):
                    return
                left -= len(block)
                yield block

    def levels(self) -> list[array[float]]:
        """Of each channel its loudness in dBFS, one value each WINDOW_MS; the last window may be shorter."""
        window = self.head.rate_hz * WINDOW_MS // 1000
        levels = [array("f") for _ in range(self.channels)]
        for block in self.blocks():
            padded = np.zeros((-(-len(block) // window) * window, self.channels), np.float32)
            padded[: len(block)] = block
            padded /= _FULL_SCALE
            power = np.square(padded).reshape(-1, window, self.channels).mean(axis=1)
            loudness = 20 * np.log10(np.maximum(np.sqrt(power), _FLOOR))
            for channel, values in enumerate(loudness.T):
                levels[channel].frombytes(values.astype(np.float32).tobytes())
        return levels

    def cut(self, channel: int, piece: Piece) -> bytes:
        """A stretch of one channel as a WAV file."""
        start, end = (at_ms * self.head.rate_hz // 1000 for at_ms in (piece.start_ms, piece.end_ms))
        samples = [block[:, channel].astype("<i2").tobytes() for block in self.blocks(start, end)]
        return b"".join([write_head(sum(map(len, samples)), 1, self.head.rate_hz), *samples])

    def _read(self, file: IO[bytes], frames: int) -> Samples:
        raw = file.read(frames * self.head.frame_bytes)
        whole = len(raw) - len(raw) % self.head.frame_bytes
        return np.frombuffer(raw[:whole], "<i2").reshape(-1, self.channels)


def open_wav(path: Path) -> WavFile:
    """Look at a recording. Raises StepDeadError when it cannot be listened to, OSError when it is not there."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = read_head(file.read(HEAD_BYTES))
    except MalformedMessageError as error:
        raise StepDeadError(f"the recording is no WAV file: {error.detail}") from None
    if not head.is_pcm16 or head.rate_hz not in _RATES_HZ:
        raise StepDeadError(
            f"the recording's encoding cannot be read: format {head.tag}, {head.bits} bits at {head.rate_hz} Hz"
        )
    return WavFile(path, head, round(head.duration_s(size) * head.rate_hz))

"""Change of sample rate: whole pieces of speech by their spectrum, a caller's audio by a filter as it comes."""

from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from agent.audio.ulaw import pcm16_to_ulaw
from agent.core.audio_format import PCM16_24K, ULAW_8K

Wave = npt.NDArray[np.float32]

_BLOCK: Final = 512
"""Pieces are padded to a multiple of this (times ``down``), so that the transform never meets a large prime."""


def resample(samples: Wave, up: int, down: int) -> Wave:
    """``samples`` at ``up / down`` times their rate, band-limited; the length is rounded up to whole samples."""
    if not len(samples):
        return samples
    block = down * _BLOCK
    padded = -(-(len(samples) + _BLOCK) // block) * block
    wanted = padded // down * up
    spectrum = np.fft.rfft(samples, padded)
    bins = wanted // 2 + 1
    resized = np.zeros(bins, spectrum.dtype)
    kept = min(bins, len(spectrum))
    resized[:kept] = spectrum[:kept]
    out = np.fft.irfft(resized, wanted) * (up / down)
    return out[: -(-len(samples) * up // down)].astype(np.float32)


_DOWN: Final = PCM16_24K.rate_hz // ULAW_8K.rate_hz
_TAPS: Final = 49
_CUTOFF: Final = 3600 / PCM16_24K.rate_hz
"""Of the sample rate: below half of 8 kHz by what the filter needs to fall."""


def _low_pass() -> Wave:
    at = np.arange(_TAPS) - (_TAPS - 1) / 2
    taps = np.sinc(2 * _CUTOFF * at) * np.hamming(_TAPS)
    low_pass: Wave = (taps / taps.sum()).astype(np.float32)
    return low_pass


_FILTER: Final = _low_pass()


@attrs.define(eq=False)
class Narrowing:
    """A caller's PCM16 at 24 kHz as mu-law at 8 kHz, piece by piece: one signal for the filter, and 1 ms late.

    One for each session.
    """

    _waiting: Wave = attrs.field(factory=lambda: np.zeros(_TAPS - 1, np.float32))
    _odd: bytes = b""

    def feed(self, pcm16: bytes) -> bytes:
        """The next piece, of any length; about a third as many bytes as there were samples come out."""
        pcm16 = self._odd + pcm16
        whole = len(pcm16) & ~1
        self._odd = pcm16[whole:]
        samples = np.concatenate((self._waiting, np.frombuffer(pcm16[:whole], "<i2").astype(np.float32)))
        count = (len(samples) - _TAPS + 1) // _DOWN
        self._waiting = samples[count * _DOWN :]
        if not count:
            return b""
        filtered = np.convolve(samples[: (count - 1) * _DOWN + _TAPS], _FILTER, "valid")[::_DOWN]
        return pcm16_to_ulaw(filtered.round().clip(-32768, 32767).astype(np.int16))

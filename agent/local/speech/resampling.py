"""Change of sample rate for whole pieces of speech, by cutting or extending the spectrum."""

from typing import Final

import numpy as np
import numpy.typing as npt

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

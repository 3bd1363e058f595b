"""The log-mel spectrogram Whisper reads: 80 bands, 25 ms windows every 10 ms at 16 kHz.

Source: ``whisper/audio.py`` and ``librosa.filters.mel`` (Slaney scale and normalisation), in numpy alone.
"""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Spectrogram = npt.NDArray[np.float32]

RATE_HZ: Final = 16_000
HOP: Final = 160
FRAMES_PER_S: Final = RATE_HZ // HOP
_WINDOW: Final = 400
_BANDS: Final = 80


def log_mel(samples: npt.NDArray[np.float32], frames: int) -> Spectrogram:
    """The spectrogram ``(80, frames)`` of 16 kHz samples in -1..1, padded with silence or cut to ``frames``."""
    half = _WINDOW // 2
    padded = np.zeros(frames * HOP + _WINDOW, np.float32)
    used = samples[: frames * HOP]
    padded[half : half + len(used)] = used
    padded[:half] = padded[_WINDOW:half:-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][:frames]
    power = np.abs(np.fft.rfft(windows * _hann(), axis=1)) ** 2
    bands = _filters() @ power.T.astype(np.float32)
    decades = np.log10(np.maximum(bands, 1e-10))
    decades = np.maximum(decades, decades.max() - 8.0)
    return np.ascontiguousarray((decades + 4.0) / 4.0, dtype=np.float32)


@cache
def _hann() -> npt.NDArray[np.float32]:
    return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


@cache
def _filters() -> npt.NDArray[np.float32]:
    """Triangles on the Slaney mel scale (linear below 1 kHz, logarithmic above), each of unit area."""
    step = np.log(6.4) / 27
    knee = 15  # mel of 1 kHz, where the scale turns logarithmic
    top = knee + np.log(RATE_HZ / 2 / 1000) / step
    mels = np.linspace(0, top, _BANDS + 2)
    edges = np.where(mels < knee, mels * 200 / 3, 1000 * np.exp(step * (mels - knee)))
    ramps = edges[:, None] - np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ)[None]
    widths = np.diff(edges)
    rising, falling = -ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float32] = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return filters

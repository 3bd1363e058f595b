"""G.711 mu-law (PCMU) to linear samples and back, and how loud it is.

Source: ITU-T G.711, section 3.2 and table 2. Samples are 16 bits wide: the standard's 14-bit values, shifted
left by two, so full scale is 32124. Measuring loudness goes by table and needs nothing but the standard
library; the two conversions of whole recordings import numpy when first called, so that a process which only
passes audio on never loads it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.int16]

_BIAS: Final = 0x84
_FULL_SCALE: Final = 32768
SILENCE_DBFS: Final = -96.0
"""What ``rms_dbfs`` says of digital silence: the floor of 16-bit audio, instead of minus infinity."""


def _expand(code: int) -> int:
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + _BIAS) << ((code & 0x70) >> 4)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


LINEAR: Final = tuple(_expand(code) for code in range(256))
"""The 16-bit sample of each mu-law code."""
_SQUARE: Final = tuple(sample * sample for sample in LINEAR)


def rms_dbfs(ulaw: bytes) -> float:
    """Loudness of mu-law audio in dB, 0 dB being a full-scale square wave; SILENCE_DBFS for none at all."""
    energy = sum(map(_SQUARE.__getitem__, ulaw))
    if not energy:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 10 * math.log10(energy / (len(ulaw) * _FULL_SCALE * _FULL_SCALE)))


def ulaw_to_pcm16(ulaw: bytes) -> Samples:
    """Linear 16-bit samples, one for each byte."""
    import numpy as np  # noqa: PLC0415  (kept out of processes that only pass audio on)

    return _expansion()[np.frombuffer(ulaw, dtype=np.uint8)]


def pcm16_to_ulaw(samples: Samples) -> bytes:
    """Mu-law codes, one byte for each 16-bit sample; the nearest code is taken."""
    import numpy as np  # noqa: PLC0415  (as above)

    codes: bytes = _compression()[np.asarray(samples, dtype=np.int16).view(np.uint16)].tobytes()
    return codes


@cache
def _expansion() -> Samples:
    import numpy as np  # noqa: PLC0415  (as above)

    return np.array(LINEAR, dtype=np.int16)


@cache
def _compression() -> npt.NDArray[np.uint8]:
    """The code of each of the 65536 samples, indexed by the sample's bits taken as unsigned."""
    import numpy as np  # noqa: PLC0415  (as above)

    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(samples), LINEAR[0x80]) + _BIAS
    segment = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    step = (magnitude >> (segment + 3)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    codes: npt.NDArray[np.uint8] = (~(sign | (segment << 4) | step) & 0xFF).astype(np.uint8)
    return codes

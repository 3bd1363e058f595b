"""The tone that says "please wait" in every language: the call-waiting tone of the telephone network. Pure.

Source: ITU-T E.180/Q.35: 400 to 450 Hz, 425 Hz preferred, at -10 dBm0 +- 5 dB; and its Supplement 2, the national
cadences, of which this is one of the most common: twice 0.2 s, 0.6 s apart, and 3 s of silence.
"""

from __future__ import annotations

import math
from bisect import bisect
from functools import cache
from itertools import pairwise
from typing import Final

from agent.audio.ulaw import LINEAR
from agent.core.units import BYTES_PER_MS, SAMPLE_RATE_HZ, ULAW_SILENCE

TONE_HZ: Final = 425
TONE_DBM0: Final = -15.0
"""The softest that the standard allows: it is heard for seconds on end."""
CADENCE_MS: Final = ((200, True), (600, False), (200, True), (3000, False))
"""How long the tone is on and off, in order, and then again."""
_FULL_SCALE_DBM0: Final = 3.17
"""A sine that reaches the largest mu-law code (ITU-T G.711, table 2)."""


@cache
def waiting_tone(duration_ms: int = sum(length_ms for length_ms, _ in CADENCE_MS)) -> bytes:
    """``duration_ms`` of the tone as 8 kHz mu-law, from the start of its cadence; by default once through it."""
    silence, tone = bytes([ULAW_SILENCE]), _tone()
    once = b"".join(
        ((tone if on else silence) * (length_ms * BYTES_PER_MS))[: length_ms * BYTES_PER_MS]
        for length_ms, on in CADENCE_MS
    )
    length = duration_ms * BYTES_PER_MS
    return (once * -(-length // len(once)))[:length]


def _tone() -> bytes:
    """The shortest piece of whole periods that whole samples, too: repeated, it does not click."""
    codes = sorted(range(256), key=LINEAR.__getitem__)
    levels = [LINEAR[code] for code in codes]
    borders = [(low + high) / 2 for low, high in pairwise(levels)]
    peak = levels[-1] * 10 ** ((TONE_DBM0 - _FULL_SCALE_DBM0) / 20)
    samples = SAMPLE_RATE_HZ // math.gcd(SAMPLE_RATE_HZ, TONE_HZ)
    angles = (2 * math.pi * TONE_HZ * at / SAMPLE_RATE_HZ for at in range(samples))
    return bytes(codes[bisect(borders, peak * math.sin(angle))] for angle in angles)

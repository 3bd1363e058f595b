"""The tone that says "please wait" in every language: the call-waiting tone of the telephone network. Pure.

Source: ITU-T E.180/Q.35: 400 to 450 Hz, 425 Hz preferred, at -10 dBm0 +- 5 dB; and its Supplement 2, the national
cadences, of which this is one of the most common: twice 0.2 s, 0.6 s apart, and 3 s of silence.
"""

import math
import struct
from bisect import bisect
from functools import cache
from itertools import pairwise
from typing import Final

from agent.audio.ulaw import LINEAR
from agent.core.audio_format import ULAW_8K, AudioFormat

TONE_HZ: Final = 425
TONE_DBM0: Final = -15.0
"""The softest that the standard allows: it is heard for seconds on end."""
CADENCE_MS: Final = ((200, True), (600, False), (200, True), (3000, False))
"""How long the tone is on and off, in order, and then again."""
_FULL_SCALE_DBM0: Final = 3.17
"""A sine that reaches the largest mu-law code (ITU-T G.711, table 2)."""


@cache
def waiting_tone(
    duration_ms: int = sum(length_ms for length_ms, _ in CADENCE_MS), audio: AudioFormat = ULAW_8K
) -> bytes:
    """``duration_ms`` of the tone, from the start of its cadence; by default once through it, for the phone."""
    tone = _tone(audio)
    once = b"".join(
        (tone * length_ms)[: length_ms * audio.bytes_per_ms] if on else audio.silence_of(length_ms)
        for length_ms, on in CADENCE_MS
    )
    length = duration_ms * audio.bytes_per_ms
    return (once * -(-length // len(once)))[:length]


def _tone(audio: AudioFormat) -> bytes:
    """The shortest piece of whole periods that is whole samples, too: repeated, it does not click."""
    peak = max(LINEAR) * 10 ** ((TONE_DBM0 - _FULL_SCALE_DBM0) / 20)
    samples = audio.rate_hz // math.gcd(audio.rate_hz, TONE_HZ)
    wave = [peak * math.sin(2 * math.pi * TONE_HZ * at / audio.rate_hz) for at in range(samples)]
    if audio != ULAW_8K:
        return struct.pack(f"<{samples}h", *map(round, wave))
    codes = sorted(range(256), key=LINEAR.__getitem__)
    levels = [LINEAR[code] for code in codes]
    borders = [(low + high) / 2 for low, high in pairwise(levels)]
    return bytes(codes[bisect(borders, sample)] for sample in wave)

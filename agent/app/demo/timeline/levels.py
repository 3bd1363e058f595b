"""Where there is speech in 8 kHz mu-law, by loudness. Pure, standard library only."""

from typing import Final

from agent.audio.ulaw import SILENCE_DBFS, rms_dbfs
from agent.core.units import FRAME_BYTES, FRAME_MS

FLOOR_DBFS: Final = -50.0
"""Quieter than this is an idle line, whatever else is in the audio."""
BELOW_PEAK_DB: Final = 35.0
"""Quieter than the loudest frame by this is no speech: room and line noise."""


def loud_frames(audio: bytes) -> list[bool]:
    """For each 20 ms of ``audio``, whether there is speech in it."""
    levels = [rms_dbfs(audio[at : at + FRAME_BYTES]) for at in range(0, len(audio), FRAME_BYTES)]
    threshold = max(FLOOR_DBFS, max(levels, default=SILENCE_DBFS) - BELOW_PEAK_DB)
    return [level > threshold for level in levels]


def stretches(audio: bytes, *, pause_ms: int) -> list[slice]:
    """The stretches of speech in ``audio`` (in bytes) that are at least ``pause_ms`` of silence apart."""
    found: list[slice] = []
    for index, loud in enumerate(loud_frames(audio)):
        if not loud:
            continue
        begin, end = index * FRAME_BYTES, min((index + 1) * FRAME_BYTES, len(audio))
        if found and begin - found[-1].stop < pause_ms // FRAME_MS * FRAME_BYTES:
            found[-1] = slice(found[-1].start, end)
        else:
            found.append(slice(begin, end))
    return found


def trimmed(audio: bytes) -> bytes:
    """``audio`` without the silence before and after it."""
    whole = stretches(audio, pause_ms=len(audio))
    return audio[whole[0]] if whole else b""

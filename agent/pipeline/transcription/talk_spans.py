"""Where somebody talks in one channel of a recording, and the pieces in which it is best transcribed. Pure.

A channel of a phone call is silent half the time, and speech recognition invents words for silence. So only
stretches with sound in them are sent, cut where it is quietest when they are too long for one request.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

WINDOW_MS: Final = 50
"""What one level covers."""
QUIET_DBFS: Final = -50.0
"""Below this a window is silent: speech on the phone is 20 dB above, an idle line 10 dB below."""
PAD_MS: Final = 250
"""Kept around each stretch, so that no soft beginning is cut off."""
_SEARCH: Final = 0.2
"""A piece that is too long is cut within this last part of it."""


@attrs.frozen
class Piece:
    """A stretch of one channel, in milliseconds of the recording."""

    start_ms: int
    end_ms: int


def plan_pieces(levels: Sequence[float], *, join_ms: int, most_ms: int) -> tuple[Piece, ...]:
    """The pieces to transcribe of a channel whose windows have ``levels`` (dBFS, one each WINDOW_MS).

    Talk less than ``join_ms`` apart stays in one piece while that is not longer than ``most_ms``.
    """
    pieces: list[Piece] = []
    for span in _talk(levels):
        last = pieces[-1] if pieces else None
        if last and span.start_ms - last.end_ms < join_ms and span.end_ms - last.start_ms <= most_ms:
            pieces[-1] = Piece(last.start_ms, span.end_ms)
        else:
            pieces.extend(_cut(span, levels, most_ms))
    return tuple(pieces)


def has_sound(levels: Sequence[float], start_ms: int, end_ms: int) -> bool:
    """Whether any window between the two times is not silent."""
    first = max(0, start_ms // WINDOW_MS)
    return any(level > QUIET_DBFS for level in levels[first : max(first, end_ms // WINDOW_MS) + 1])


def _talk(levels: Sequence[float]) -> Iterator[Piece]:
    """Stretches with sound, padded; those whose padding touches are one."""
    length_ms = len(levels) * WINDOW_MS
    start_ms = end_ms = -1
    for index, level in enumerate(levels):
        if level <= QUIET_DBFS:
            continue
        at_ms = index * WINDOW_MS
        if start_ms >= 0 and at_ms - PAD_MS > end_ms:
            yield Piece(start_ms, min(end_ms, length_ms))
            start_ms = -1
        if start_ms < 0:
            start_ms = max(0, at_ms - PAD_MS, end_ms)
        end_ms = at_ms + WINDOW_MS + PAD_MS
    if start_ms >= 0:
        yield Piece(start_ms, min(end_ms, length_ms))


def _cut(span: Piece, levels: Sequence[float], most_ms: int) -> Iterator[Piece]:
    """``span`` in pieces of at most ``most_ms``, each cut at the quietest window near its end."""
    start_ms = span.start_ms
    while span.end_ms - start_ms > most_ms:
        last = (start_ms + most_ms) // WINDOW_MS - 1
        first = max(start_ms // WINDOW_MS + 1, last - round(most_ms * _SEARCH / WINDOW_MS))
        quietest = min(range(first, last + 1), key=lambda index: (levels[index], -index))
        cut_ms = quietest * WINDOW_MS + WINDOW_MS // 2
        yield Piece(start_ms, cut_ms)
        start_ms = cut_ms
    yield Piece(start_ms, span.end_ms)

"""The browser's rows: must, measured, ok. Pure."""

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import Final

from bench.parts.browser.measuring import Away, BrowserFigures
from bench.reporting.table import Row

FIRST_WORD_MS: Final = (700, 900)
PAGE_KB: Final = 100
FIRST_PAINT_MS: Final = 300
BACK_S: Final = 1.5
FRAME_MS: Final = 20


def browser_rows(figures: BrowserFigures) -> list[Row]:
    """A row for each figure."""
    words = figures.first_words
    middle, p95 = median(words), p_of(words, 95)
    errors = [abs(error) for error in figures.heard_errors]
    paint, size_kb = figures.first_paint, figures.page_bytes / 1000
    return [
        Row(
            "browser, press of Call to the first word in the speaker, median / p95",
            f"<= {FIRST_WORD_MS[0]} / {FIRST_WORD_MS[1]} ms",
            f"{middle:.0f} / {p95:.0f} ms of {len(words)}",
            middle <= FIRST_WORD_MS[0] and p95 <= FIRST_WORD_MS[1],
        ),
        _times("end of speech to first audio leaving the server, median", figures.leaving, 50, 500),
        _times("end of speech to first audio in the speaker, median", figures.in_speaker, 50, 600),
        _times("start of speech to silence in the speaker, p95", figures.to_silence, 95, 250),
        _times("heard by the record against played by the page, p99", errors, 99, 40),
        _away("a connection closed in mid-answer", figures.closed),
        _away("a black hole of 5 s in mid-answer", figures.black_hole),
        Row("the page, transferred", f"< {PAGE_KB} KB", f"{size_kb:.0f} KB", size_kb < PAGE_KB),
        Row("the page, first paint", f"< {FIRST_PAINT_MS} ms", f"{paint:.0f} ms", paint < FIRST_PAINT_MS),
    ]


def p_of(values: Sequence[float], percent: int) -> float:
    """The value that ``percent`` of them do not exceed; infinite without any."""
    return sorted(values)[ceil(len(values) * percent / 100) - 1] if values else float("inf")


def _times(what: str, values: Sequence[float], percent: int, most_ms: float) -> Row:
    measured = p_of(values, percent)
    return Row(
        f"browser, {what}", f"<= {most_ms:.0f} ms", f"{measured:.0f} ms of {len(values)}", measured <= most_ms
    )


def _away(what: str, away: Away) -> Row:
    """What was played is as long as the answer, its last frame filled up: no word lost, none twice."""
    whole = 0 <= away.played_ms - away.length_ms <= FRAME_MS and away.heard_ms == away.length_ms
    return Row(
        f"browser, {what}: silence heard after it is back; played and heard of the answer",
        f"<= {BACK_S} s; all of it, once",
        f"{away.silent_s:.2f} s; {away.played_ms:.0f} and {away.heard_ms} of {away.length_ms} ms",
        away.silent_s <= BACK_S and whole,
    )

"""The browser's benchmark: what its ear makes of levels and marks, and its rows."""

from typing import Any

import attrs
import pytest

from bench.parts.browser.ear import Heard, Spell, answer_times_ms, played_of_each, silence_times_ms, spells
from bench.parts.browser.measuring import Away, BrowserFigures, heard_errors_ms, silence_after
from bench.parts.browser.rows import browser_rows

AWAY = Away(silent_s=0.4, played_ms=9680, length_ms=9669, heard_ms=9669)
GOOD = BrowserFigures([600.0] * 20, [400.0], [500.0], [200.0], [-3.0, 2.0], AWAY, AWAY, 40_000, 120.0)


def test_a_short_pause_and_a_click_are_no_end_and_no_speech() -> None:
    levels = [(float(at), 0.2 if 100 <= at < 400 or 700 <= at < 900 or at == 3000 else 0.0) for at in range(4000)]
    assert spells(levels) == [Spell(100, 899)]


def test_how_much_was_played_of_each_generation() -> None:
    """A clear ends the one before it where it stands; the next begins there."""
    told = [("a:200", 200.0), ("a:400", 400.0), ("", 470.0), ("b:200", 670.0), ("b:340", 830.0)]
    assert played_of_each(told) == {"a": 470, "b": 360}


def test_answers_and_interruptions_are_told_apart() -> None:
    microphone = [Spell(1000, 2000), Spell(4000, 5000), Spell(9000, 9500)]
    heard = Heard(microphone, [Spell(0, 500), Spell(2400, 4150), Spell(5600, 8000)], 10.0, {})
    assert answer_times_ms(heard) == [410, 610]
    assert silence_times_ms(heard) == [160]
    assert silence_after(heard, 4000) == 0
    assert silence_after(heard, 5000) == 600
    assert silence_after(heard, 9000) == float("inf")


def test_the_last_frames_silence_is_nothing_to_hear() -> None:
    agent = {"role": "agent", "audio_ms": 990, "heard_ms": 990}
    turns = [agent, {"role": "caller", "heard_ms": 0}, {**agent, "audio_ms": 3000, "heard_ms": 1500}]
    assert heard_errors_ms({"a": 1000.0, "b": 1490.0}, {"turns": turns}) == [0, 10]


def test_all_is_well() -> None:
    assert [row.what for row in browser_rows(GOOD) if not row.ok] == []


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"first_words": [600.0] * 18 + [950.0] * 2}, "first word"),
        ({"leaving": [501.0]}, "leaving the server"),
        ({"to_silence": []}, "to silence"),
        ({"heard_errors": [-41.0]}, "heard by the record"),
        ({"closed": attrs.evolve(AWAY, played_ms=9700)}, "closed in mid-answer"),
        ({"black_hole": attrs.evolve(AWAY, heard_ms=9600)}, "black hole"),
        ({"page_bytes": 100_000}, "transferred"),
    ],
)
def test_a_figure_that_misses_is_told(changed: dict[str, Any], what: str) -> None:
    [missed] = [row.what for row in browser_rows(attrs.evolve(GOOD, **changed)) if not row.ok]
    assert what in missed

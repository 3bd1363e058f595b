"""Days and times as callers say them."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest

from agent.local.receptionist.dates import When, read_when

NOW = datetime(2026, 11, 21, 10, 30)  # noqa: DTZ001 - local and naive; a Saturday
TUESDAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("Tuesday at three", "2026-11-24 15:00"),
        ("next Monday at half past nine", "2026-11-23 09:30"),
        ("monday the 23rd at 14:00", "2026-11-23 14:00"),
        ("tomorrow at 10 in the morning", "2026-11-22 10:00"),
        ("the day after tomorrow, around 11", "2026-11-23 11:00"),
        ("quarter to five tomorrow", "2026-11-22 16:45"),
        ("quarter to one on Monday", "2026-11-23 12:45"),
        ("tonight at eight", "2026-11-21 20:00"),
        ("3 p.m. on Friday", "2026-11-27 15:00"),
        ("Monday, 12 a.m.", "2026-11-23 00:00"),
        ("12 pm on Monday", "2026-11-23 12:00"),
        ("Saturday at 9", "2026-11-28 09:00"),
        ("this Saturday at 4", "2026-11-21 16:00"),
        ("December 3rd at noon", "2026-12-03 12:00"),
        ("December 3 at 3", "2026-12-03 15:00"),
        ("the 5th of May at 2:30", "2027-05-05 14:30"),
        ("the 31st at one", "2026-12-31 13:00"),
    ],
)
def test_a_day_and_a_time(words: str, moment: str) -> None:
    assert str(read_when(words, NOW).moment)[:16] == moment


@pytest.mark.parametrize(
    ("words", "when"),
    [
        ("Tuesday", When(TUESDAY)),
        ("on Tuesday morning", When(TUESDAY)),
        ("the 24th", When(TUESDAY)),
        ("at seven thirty in the evening", When(None, time(19, 30))),
        ("at 25 o'clock", When()),
        ("at 3:75", When()),
        ("at sixty", When()),
        ("next week", When()),
        ("February 30th", When()),
        ("", When()),
    ],
)
def test_what_was_not_said_is_not_made_up(words: str, when: When) -> None:
    assert read_when(words, NOW) == when


def test_halves_make_a_whole_and_the_later_word_counts() -> None:
    when = When()
    for words in ("Tuesday", "at three", "no, at four"):
        when = when.completed_by(read_when(words, NOW), NOW)
    assert when == When(TUESDAY, time(16))
    assert when.completed_by(read_when("Wednesday", NOW), NOW) == When(date(2026, 11, 25), time(16))


def test_a_moment_that_is_past_lacks_its_time() -> None:
    assert When().completed_by(read_when("today at nine", NOW), NOW) == When(NOW.date())


@pytest.mark.parametrize(
    ("at", "spoken"),
    [
        (time(15), "Tuesday, November 24, at 3 PM"),
        (time(9, 5), "Tuesday, November 24, at 9:05 AM"),
        (time(0), "Tuesday, November 24, at 12 AM"),
        (time(12, 30), "Tuesday, November 24, at 12:30 PM"),
        (None, ""),
    ],
)
def test_it_is_said_back_whole_or_not_at_all(at: time | None, spoken: str) -> None:
    assert When(TUESDAY, at).spoken == spoken

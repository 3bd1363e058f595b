"""When an appointment is to be: days and times as callers say them. Pure, English only.

What is said is read in halves, a day and a time, so that "Tuesday" and then "at three" make one appointment.
Without "a.m." or "p.m." a time is taken to be in the hours that offices are open: seven to six.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Final

import attrs

_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_WORDS: Final = {
    word: number
    for number, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        start=1,
    )
}
_HOUR: Final = rf"(?P<hour>\d{{1,2}}(?!\d|st\b|nd\b|rd\b|th\b)|(?:{'|'.join(_WORDS)})\b)"
_CLOCK: Final = re.compile(
    rf"\b(?:(?P<past>half past|quarter past|quarter to) )?{_HOUR}(?::(?P<minute>\d\d)| (?P<said>thirty|fifteen))?"
    r"(?: ?(?P<half>[ap])\.?m\b)?"
)
_MINUTES: Final = {"half past": 30, "quarter past": 15, "quarter to": -15, "thirty": 30, "fifteen": 15}
_NOON: Final = re.compile(r"\b(?:noon|midday)\b")
_BEFORE_NOON: Final = re.compile(r"\bmorning\b")
_AFTER_NOON: Final = re.compile(r"\b(?:afternoon|evening|tonight)\b")
_WEEKDAY: Final = re.compile(rf"\b(?P<this>this )?(?P<day>{'|'.join(_DAYS)})s?\b")
_MONTHLY: Final = re.compile(
    rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)(?: of (?P<month>{'|'.join(_MONTHS)}))?\b"
    rf"|\b(?P<month_first>{'|'.join(_MONTHS)}) (?:the )?(?P<day_last>\d{{1,2}})(?:st|nd|rd|th)?\b"
)
_OPENS, _NOON_H, _DAY_H, _HOUR_MIN = 7, 12, 24, 60


@attrs.frozen
class When:
    """A day and a time, as far as they were said."""

    day: date | None = None
    time: time | None = None

    def completed_by(self, later: When, now: datetime) -> When:
        """With what was said later; a moment that is past by then still lacks its time."""
        when = When(later.day or self.day, later.time or self.time)
        return attrs.evolve(when, time=None) if when.moment is not None and when.moment <= now else when

    @property
    def moment(self) -> datetime | None:
        """Both, local and naive."""
        return None if self.day is None or self.time is None else datetime.combine(self.day, self.time)

    @property
    def spoken(self) -> str:
        """The moment, to be said back: ``Tuesday, November 24, at 3:30 PM``; empty while a half is missing."""
        at = self.moment
        if at is None:
            return ""
        hour = f"{(at.hour - 1) % _NOON_H + 1}" + (f":{at.minute:02d}" if at.minute else "")
        return f"{at:%A}, {at:%B} {at.day}, at {hour} {'AM' if at.hour < _NOON_H else 'PM'}"


def read_when(words: str, now: datetime) -> When:
    """What ``words`` say of a day and a time; ``now`` is local and naive."""
    words = words.lower()
    return When(_day(words, now.date()), _time(_MONTHLY.sub("", words)))


def _day(words: str, today: date) -> date | None:
    if "day after tomorrow" in words:
        return today + timedelta(days=2)
    if "tomorrow" in words:
        return today + timedelta(days=1)
    if re.search(r"\b(?:today|tonight)\b", words):
        return today
    if found := _MONTHLY.search(words):
        return _monthly(int(found["day"] or found["day_last"]), found["month"] or found["month_first"], today)
    if found := _WEEKDAY.search(words):
        ahead = (_DAYS.index(found["day"]) - today.weekday()) % len(_DAYS)
        return today + timedelta(days=ahead if ahead or found["this"] else len(_DAYS))
    return None


def _monthly(day: int, month: str | None, today: date) -> date | None:
    """The next such day; None if there is none within a year, or at all."""
    for ahead in range(len(_MONTHS) + 1):
        index = today.month - 1 + ahead
        if month is not None and _MONTHS[index % len(_MONTHS)] != month:
            continue
        try:
            found = date(today.year + index // len(_MONTHS), index % len(_MONTHS) + 1, day)
        except ValueError:
            continue
        if found >= today:
            return found
    return None


def _time(words: str) -> time | None:
    if _NOON.search(words):
        return time(_NOON_H)
    found = _CLOCK.search(words)
    if found is None:
        return None
    hour = _WORDS.get(found["hour"]) or int(found["hour"])
    minute = int(found["minute"] or 0) or _MINUTES.get(found["past"] or found["said"], 0)
    if hour >= _DAY_H or minute >= _HOUR_MIN:
        return None
    minutes = (_in_day(hour, found["half"], words) * _HOUR_MIN + minute) % (_DAY_H * _HOUR_MIN)
    return time(minutes // _HOUR_MIN, minutes % _HOUR_MIN)


def _in_day(hour: int, half: str | None, words: str) -> int:
    """An hour as it is said, without a.m. or p.m., as an hour of the day."""
    if hour > _NOON_H:
        return hour
    if half is None and _BEFORE_NOON.search(words):
        half = "a"
    elif half is None and _AFTER_NOON.search(words):
        half = "p"
    if half is None:
        return hour if hour >= _OPENS else hour + _NOON_H
    return hour % _NOON_H + (_NOON_H if half == "p" else 0)

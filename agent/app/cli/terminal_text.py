"""What others wrote, made fit for a terminal, and moments as people read them. Pure.

A transcript holds what a caller said, a tenant what somebody imported: neither may move the cursor.
"""

import re
import unicodedata
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

_FIRST_STRONG_ISOLATE: Final = "\N{FIRST STRONG ISOLATE}"
_POP: Final = "\N{POP DIRECTIONAL ISOLATE}"
_RIGHT_TO_LEFT: Final = ("R", "AL")
_KEPT: Final = "\n\t"
_AGO: Final = re.compile(r"(\d{1,6})\s*([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def shown(text: str) -> str:
    """``text`` without control characters; right-to-left text is isolated, so that what is beside it stays there.

    Letters keep their logical order: turning them round is the terminal's part (Unicode UAX 9).
    """
    plain = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(letter) == "Cc" and letter not in _KEPT else letter
        for letter in text
    )
    if any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in plain):
        return _FIRST_STRONG_ISOLATE + plain + _POP
    return plain


def moment(at: datetime, zone: tzinfo | None) -> str:
    """A moment in ``zone`` (None: the local one of this machine), with the zone's name."""
    there = at.astimezone(zone)
    return f"{there:%a %Y-%m-%d %H:%M:%S} {there.tzname() or ''}".rstrip()


def length(seconds: float) -> str:
    """A length of time as a clock shows it: 4:07, or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def read_since(text: str, now: datetime) -> datetime:
    """A moment people write: 90m, 12h, 3d or 2w before ``now``, or an ISO 8601 date or time.

    A time without a zone is in that of this machine. Raises ValueError.
    """
    try:
        if ago := _AGO.fullmatch(text.strip().lower()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; such are 90m, 12h, 3d, 2026-11-20, 2026-11-20T14:30") from None

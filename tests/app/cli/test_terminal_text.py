"""Text and times made fit for a terminal."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from agent.app.cli.terminal_text import length, moment, read_since, shown

FIRST_STRONG_ISOLATE, POP = "\u2068", "\u2069"
NOW = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)


def test_text_does_not_move_the_cursor() -> None:
    assert shown("a\x1b[2Jb\x07\r\x9b1m\nc\td") == "a\ufffd[2Jb\ufffd\ufffd\ufffd1m\nc\td"


def test_right_to_left_text_is_isolated_and_in_logical_order() -> None:
    for text in ("שלום, Ada", "مرحبا"):
        assert shown(text) == f"{FIRST_STRONG_ISOLATE}{text}{POP}"
    assert shown("日本語, Ünï, +15552223333") == "日本語, Ünï, +15552223333"


def test_a_moment_has_its_zone() -> None:
    assert moment(NOW, ZoneInfo("Asia/Jerusalem")) == "Fri 2026-11-20 16:30:00 IST"
    assert moment(NOW, UTC) == "Fri 2026-11-20 14:30:00 UTC"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (247, "4:07"), (3723.6, "1:02:04")])
def test_length(seconds: float, text: str) -> None:
    assert length(seconds) == text


def test_since() -> None:
    assert read_since("90m", NOW) == NOW - timedelta(minutes=90)
    assert read_since(" 3D ", NOW) == NOW - timedelta(days=3)
    assert read_since("2026-11-19T10:00+02:00", NOW) == datetime(2026, 11, 19, 8, tzinfo=UTC)
    assert read_since("2026-11-19", NOW).astimezone() == datetime(2026, 11, 19).astimezone()


@pytest.mark.parametrize("text", ["", "yesterday", "3", "3y", "-3d", "2026-13-01", "999999w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; such are 90m"):
        read_since(text, NOW)

"""What strangers say does not move the cursor, forge a line, or leave their number in a log."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.log_text import (
    MOST_CHARACTERS,
    MOST_ITEMS,
    MOST_TRACEBACK,
    mask_numbers,
    tidy,
    tidy_text,
    tidy_traceback,
)


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("+15551234567", "+*********67"),
        ("+972-50-123-4567", "+***-**-***-**67"),
        ("calling +442071838750: HTTP 400", "calling +**********50: HTTP 400"),
        ("sip:+15551234567@example.com", "sip:+*********67@example.com"),
        ("From=%2B15551234567&To=%2b972501234567", "From=%2B*********67&To=%2b**********67"),
        ("transferred to 0501234567.", "transferred to ********67."),
        ("(555) 123-4567", "(***) ***-**67"),
        ("/numbers/15551234567/calls", "/numbers/*********67/calls"),
        ("a card: 4111 1111 1111 1111", "a card: **** **** **** **11"),
        ("+15551234567+15557654321", "+*********67+*********21"),
    ],
)
def test_a_phone_number_is_masked_wherever_it_stands(text: str, logged: str) -> None:
    assert mask_numbers(text) == logged


@pytest.mark.parametrize(
    "text",
    [
        "CA" + "1" * 32,
        "12345678-1234-1234-1234-123456789012",
        "2026-11-28 17:39:04",
        "2026-11-28T17:39:04.123456Z",
        "192.168.100.200:54321",
        "127.0.0.1:8080",
        "0.12345678901",
        "12345678.5 s",
        "gpt-realtime-2025-08-28",
        "HTTP 400 after 1234567 bytes",
        "item_12345678901",
        "2001:db8:12345678::1",
        "",
    ],
)
def test_what_only_has_digits_stays(text: str) -> None:
    assert mask_numbers(text) == text


@given(st.text())
def test_a_text_is_one_line_without_control_characters(text: str) -> None:
    logged = tidy_text(text)
    assert len(logged.splitlines()) <= 1
    assert "\x1b" not in logged
    logged.encode()


def test_escapes_and_newlines_are_shown_for_what_they_are() -> None:
    assert tidy_text("a\x1b[2Jb\r\nc\x9bd\u202ee\ud800") == "a\\x1b[2Jb\\x0d\\x0ac\\x9bd\\u202ee\\ud800"
    assert tidy_text("שלום, עולם") == "שלום, עולם"


def test_a_traceback_keeps_its_lines_but_none_begins_as_a_line_of_the_log_does() -> None:
    logged = tidy_traceback("ValueError: x\n12:00:00 [error] forged\x1b[0m +15551234567")
    assert logged == "  ValueError: x\n  12:00:00 [error] forged\\x1b[0m +*********67"


def test_nothing_is_logged_whole_that_is_long() -> None:
    assert len(tidy_text("x" * 10 * MOST_CHARACTERS)) < MOST_CHARACTERS + 50
    assert len(tidy_traceback("x" * 10 * MOST_TRACEBACK)) < MOST_TRACEBACK + 50
    assert len(tidy([1] * 10 * MOST_ITEMS)) == len(tidy({n: n for n in range(10 * MOST_ITEMS)})) == MOST_ITEMS


def test_collections_and_objects_are_tidied_inside() -> None:
    @attrs.frozen
    class Caller:
        number: str

    deep: object = "+15551234567"
    for _ in range(9):
        deep = [deep]
    seen = tidy({"a\n": ["+15551234567", 15551234567, None, 1.5, True], "b": Caller("+15551234567"), "c": deep})
    assert seen["a\\x0a"] == ["+*********67", 15551234567, None, 1.5, True]
    assert "15551234567" not in repr(seen["b"]) + repr(seen["c"])
    assert tidy("+15551234567", show_numbers=True) == "+15551234567"

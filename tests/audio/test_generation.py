"""The ledger of one answer, and the words of it that fit into what was heard (PL-8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audio.generation import SPEECH_CHARS_PER_S, Generation, Part, Purpose, heard_text
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, GenerationId, ItemId, ResponseId


def part_of(text: str, length_ms: int) -> Part:
    return Part(ItemId("item"), 0, 0, length_ms * BYTES_PER_MS, text)


def generation() -> Generation:
    return Generation(GenerationId(1), ResponseId("r1"), Purpose.ANSWER, 0.0)


@pytest.mark.parametrize(
    ("heard_ms", "words"),
    [
        (0, ""),
        (-5, ""),
        (1, ""),
        (300, ""),
        (500, "one"),
        (700, "one"),
        (999, "one two"),
        (1000, "one two"),
        (1500, "one two three"),
        (1999, "one two three"),
        (2000, "one two three four"),
        (9999, "one two three four"),
    ],
)
def test_words_are_kept_as_far_as_they_were_heard(heard_ms: int, words: str) -> None:
    assert heard_text(part_of("one two three four", 2000), heard_ms, complete=True) == words


def test_text_runs_ahead_of_its_audio() -> None:
    """A second was received of a text that takes four to speak: all of the second is a quarter of the words."""
    text = "one two three four " * 4
    assert len(text) / SPEECH_CHARS_PER_S > 4
    heard = heard_text(part_of(text, 1000), 1000, complete=False)
    assert heard
    assert len(heard) < len(text) / 3
    assert heard_text(part_of(text, 1000), 1000, complete=True) == text


@given(
    text=st.text(alphabet=st.sampled_from("אבגדה שלום é漢🙂ab \t\n"), max_size=120),
    length_ms=st.integers(0, 20_000),
    heard_ms=st.integers(-100, 25_000),
    complete=st.booleans(),
)
def test_bi_8_any_text_is_cut_at_a_word(text: str, length_ms: int, heard_ms: int, *, complete: bool) -> None:
    """In every script: what is kept is a beginning of the text, made of whole words."""
    heard = heard_text(part_of(text, length_ms), heard_ms, complete=complete)
    assert text.startswith(heard)
    assert heard in ("", text) or text[len(heard)].isspace()
    heard.encode()


@given(
    text=st.text(max_size=80),
    length_ms=st.integers(0, 5000),
    times=st.lists(st.integers(0, 6000), min_size=2, max_size=2),
)
def test_more_heard_is_never_fewer_words(text: str, length_ms: int, times: list[int]) -> None:
    part = part_of(text, length_ms)
    less, more = (heard_text(part, ms, complete=True) for ms in sorted(times))
    assert more.startswith(less)


def test_parts_share_what_was_heard() -> None:
    answer = generation()
    answer.accept(ItemId("first"), 0, bytes(1000 * BYTES_PER_MS))
    answer.accept(ItemId("second"), 1, bytes(500 * BYTES_PER_MS))
    answer.accept(ItemId("first"), 0, bytes(8))
    first, second = answer.parts
    assert (first.length_ms, second.length_ms, answer.received_ms) == (1001, 500, 1501)
    assert [(first.heard_of(ms), second.heard_of(ms)) for ms in (0, 400, 1000, 1200, 9999)] == [
        (0, 0),
        (400, 0),
        (1000, 0),
        (1001, 200),
        (1001, 500),
    ]
    assert (second.content_index, second.begin_bytes) == (1, 8000)


def test_st_2_a_cancel_counts_once_and_says_what_was_still_owned() -> None:
    answer = generation()
    answer.slicer.push(bytes(5 * FRAME_BYTES + 10))
    assert answer.cancel(7.0) == 5
    assert answer.cancel(8.0) == 0
    assert not answer.live
    assert answer.cancelled_s == 7.0


def test_received_text_leaves_out_words_without_audio() -> None:
    answer = generation()
    answer.part_of(ItemId("first")).text = "hello there my friend, " * 3
    answer.part_of(ItemId("silent")).text = "never spoken"
    answer.accept(ItemId("first"), 0, bytes(1000 * BYTES_PER_MS))
    assert answer.text.endswith("never spoken")
    assert answer.received_text
    assert "never" not in answer.received_text
    assert answer.text.startswith(answer.received_text)

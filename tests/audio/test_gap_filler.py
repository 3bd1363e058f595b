"""Repair of the caller's audio (MO-6, DESIGN D14): late is not lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.audio.gap_filler import FILL_AT_MOST_MS, SILENT_AFTER_S, GapFiller


def test_d14_a_hole_in_the_timestamps_becomes_silence() -> None:
    """Three frames are missing: 60 ms of silence go before the next one."""
    repair = GapFiller()
    assert repair.media(0, 20, 0.0) == 0
    assert repair.media(20, 20, 0.02) == 0
    assert repair.media(100, 20, 0.1) == 60


def test_d14_jitter_and_repeats_are_no_holes() -> None:
    repair = GapFiller()
    for timestamp in (0, 20, 60, 60, 40, 80):
        assert repair.media(timestamp, 20, timestamp / 1000) == 0


@given(st.lists(st.integers(0, int(SILENT_AFTER_S * 1000) - 1), max_size=40))
def test_mo_6_audio_that_is_only_late_has_no_silence_put_into_it(stalls_ms: list[int]) -> None:
    """The line stalls before any frame, as often as it likes, by less than what counts as silence."""
    repair, now = GapFiller(), 0.0
    for index, stall_ms in enumerate(stalls_ms):
        assert repair.media(index * 20, 20, now) == 0
        now += stall_ms / 1000
        assert repair.silence_due(now) == 0


def test_mo_6_a_carrier_that_sends_nothing_is_made_up_for_once() -> None:
    repair = GapFiller()
    assert repair.due_s is None, "nothing came yet, so nothing is missing"
    repair.media(0, 20, 1.0)
    assert repair.due_s == 1.0 + SILENT_AFTER_S
    assert repair.silence_due(1.0 + SILENT_AFTER_S) == FILL_AT_MOST_MS
    assert repair.due_s is None
    assert repair.silence_due(60.0) == 0


@pytest.mark.parametrize(
    ("timestamp_ms", "silence_ms"),
    [
        (20, -FILL_AT_MOST_MS),  # all of it came late
        (420, 400 - FILL_AT_MOST_MS),  # 400 ms were lost, the rest was late
        (20 + FILL_AT_MOST_MS, 0),  # what was made up for was lost
        (20 + FILL_AT_MOST_MS + 300, 300),
        (10**9, FILL_AT_MOST_MS),
    ],
)
def test_mo_6_what_comes_after_all_says_how_far_the_model_is_ahead(timestamp_ms: int, silence_ms: int) -> None:
    repair = GapFiller()
    repair.media(0, 20, 0.0)
    repair.silence_due(SILENT_AFTER_S)
    assert repair.media(timestamp_ms, 20, 3.0) == silence_ms
    assert repair.media(timestamp_ms + 20, 20, 3.0) == 0


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 5000)), max_size=30))
def test_d14_no_hole_costs_more_than_a_second(arrivals: list[tuple[int, int]]) -> None:
    """Whatever timestamps a broken carrier invents."""
    repair, now = GapFiller(), 0.0
    for timestamp, wait_ms in arrivals:
        now += wait_ms / 1000
        ahead_ms = repair.silence_due(now)
        assert ahead_ms in {0, FILL_AT_MOST_MS}
        assert -ahead_ms <= repair.media(timestamp, 20, now) <= FILL_AT_MOST_MS

"""When the embedded model thinks the caller begins and ends to speak."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from agent.local.speech.endpointing import (
    MAX_SPEECH_MS,
    MIN_SPEECH_MS,
    SPECULATE_MS,
    WINDOW_MS,
    Endpointer,
    EndpointEvent,
    TurnEnded,
    TurnPaused,
    TurnResumed,
    TurnStarted,
)


def feed(endpointer: Endpointer, probabilities: Iterable[float]) -> list[EndpointEvent]:
    return [event for value in probabilities if (event := endpointer.push(value)) is not None]


def windows(ms: int, probability: float) -> list[float]:
    return [probability] * (ms // WINDOW_MS)


def test_a_turn_starts_with_padding_and_ends_with_the_silence_waited_for() -> None:
    endpointer = Endpointer(silence_duration_ms=320, prefix_padding_ms=96)
    events = feed(endpointer, windows(320, 0.0) + windows(640, 0.9) + windows(640, 0.0))
    assert events == [
        TurnStarted(320 - 96),
        TurnPaused(224, 960 + SPECULATE_MS),
        TurnEnded(224, 960 + 320),
    ]
    assert not endpointer.speaking


def test_wb_7_a_turn_ends_at_the_nearest_window() -> None:
    """400 ms were 416: half a window too much in each answer."""
    for asked_ms, waited_ms in ((400, 384), (410, 416), (500, 512), (100, 96)):
        events = feed(Endpointer(silence_duration_ms=asked_ms), windows(640, 0.9) + windows(640, 0.0))
        assert [event.audio_end_ms for event in events if isinstance(event, TurnEnded)] == [640 + waited_ms]


def test_padding_never_reaches_before_the_session() -> None:
    assert feed(Endpointer(prefix_padding_ms=300), windows(64, 0.9)) == [TurnStarted(0)]


def test_a_click_is_no_speech() -> None:
    """Speech shorter than MIN_SPEECH_MS starts nothing, however often it comes."""
    click = windows(MIN_SPEECH_MS - WINDOW_MS, 0.9) + windows(WINDOW_MS, 0.1)
    assert feed(Endpointer(), click * 20) == []


def test_the_end_needs_a_clearly_lower_probability() -> None:
    """Just below the threshold speech goes on; once silence has begun, it does not end there."""
    endpointer = Endpointer(threshold=0.5, silence_duration_ms=320)
    feed(endpointer, windows(320, 0.9))
    assert feed(endpointer, windows(3200, 0.4)) == []
    assert endpointer.speaking
    events = feed(endpointer, [0.1, *windows(320 - WINDOW_MS, 0.4)])
    assert [type(event) for event in events] == [TurnPaused, TurnEnded]


def test_a_pause_inside_a_turn_is_taken_back() -> None:
    endpointer = Endpointer(silence_duration_ms=500, prefix_padding_ms=0)
    pause = windows(320, 0.0)
    events = feed(endpointer, windows(320, 0.9) + pause + windows(320, 0.9) + pause + windows(320, 0.0))
    assert [type(event) for event in events] == [
        TurnStarted,
        TurnPaused,
        TurnResumed,
        TurnPaused,
        TurnEnded,
    ]


def test_a_short_end_point_needs_no_pause_event() -> None:
    """A silence shorter than the speculation ends the turn at once."""
    events = feed(Endpointer(silence_duration_ms=96), windows(320, 0.9) + windows(320, 0.0))
    assert [type(event) for event in events] == [TurnStarted, TurnEnded]


def test_an_endless_turn_is_ended() -> None:
    """A caller (or a radio) that never pauses cannot make a buffer grow without limit."""
    events = feed(Endpointer(), windows(MAX_SPEECH_MS + 1000, 0.9))
    assert isinstance(events[1], TurnEnded)
    assert events[1].audio_end_ms - events[1].audio_start_ms >= MAX_SPEECH_MS
    assert isinstance(events[2], TurnStarted)


def test_reset_forgets_the_turn_and_sets_the_clock() -> None:
    endpointer = Endpointer(prefix_padding_ms=0)
    feed(endpointer, windows(320, 0.9))
    endpointer.reset(1000)
    assert not endpointer.speaking
    assert feed(endpointer, windows(320, 0.0) + windows(64, 0.9)) == [TurnStarted(1320)]


@given(
    st.lists(st.floats(0, 1), max_size=300),
    st.integers(50, 1000),
    st.integers(0, 500),
)
def test_events_alternate_and_turns_do_not_forget_audio(
    probabilities: list[float], silence_ms: int, padding_ms: int
) -> None:
    """Whatever comes in: start, (pause, resume)*, stop; and audio of an open turn is never given up."""
    endpointer = Endpointer(silence_duration_ms=silence_ms, prefix_padding_ms=padding_ms)
    allowed: dict[type, set[type]] = {
        TurnEnded: {TurnStarted},
        TurnStarted: {TurnPaused, TurnEnded},
        TurnPaused: {TurnResumed, TurnEnded},
        TurnResumed: {TurnPaused, TurnEnded},
    }
    last: type = TurnEnded
    kept = 0
    for probability in probabilities:
        event = endpointer.push(probability)
        if event is not None:
            assert type(event) in allowed[last]
            last = type(event)
            if isinstance(event, TurnStarted):
                assert event.audio_start_ms >= kept
            if isinstance(event, TurnEnded):
                assert event.audio_start_ms == kept
        assert endpointer.speaking == (last is not TurnEnded)
        if endpointer.speaking or event is None:
            assert endpointer.keep_from_ms >= kept
            kept = endpointer.keep_from_ms

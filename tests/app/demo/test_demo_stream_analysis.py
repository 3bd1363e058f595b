"""What the carrier saw, from its wire and its tapes: gaps, stale frames, latencies, levels."""

from __future__ import annotations

import pytest

from agent.app.demo.timeline.levels import stretches, trimmed
from agent.app.demo.timeline.stream_analysis import (
    Interval,
    Latency,
    joined,
    latencies,
    sent_intervals,
    speech_of,
    whose_frames,
)
from agent.core.units import BYTES_PER_MS, SILENCE_FRAME
from agent.sim.carrier.stream import WireEntry
from agent.sim.carrier.tape import Tape
from agent.sim.sounds import silence, tone


def frames(count: int, at_s: float, step_s: float = 0.02) -> list[WireEntry]:
    return [WireEntry(at_s + index * step_s, "tx", "media", audio=SILENCE_FRAME) for index in range(count)]


def mark(name: str, at_s: float = 0.0) -> WireEntry:
    return WireEntry(at_s, "tx", "mark", name)


def clear(at_s: float = 0.0) -> WireEntry:
    return WireEntry(at_s, "tx", "clear")


BARGE_IN = [
    *frames(10, 0.0), mark("1:200"), *frames(5, 0.2), clear(0.3),
    WireEntry(0.3, "rx", "mark", "1:200"),
    *frames(10, 2.0), mark("2:200"), *frames(3, 2.2), mark("2:260"),
]  # fmt: skip


def test_a_clean_barge_in_has_nothing_stale_and_small_gaps() -> None:
    """PL-5: every frame after the clear is counted by a mark of a later generation."""
    seen = whose_frames(BARGE_IN)
    assert (seen.stale, seen.unproven) == (0, 0)
    assert seen.max_gap_ms == pytest.approx(20)


def test_a_frame_of_the_old_answer_after_the_clear_is_stale() -> None:
    """It makes one frame too many before the next answer's first mark, however late or early it comes."""
    at = BARGE_IN.index(clear(0.3)) + 1
    assert whose_frames([*BARGE_IN[:at], *frames(1, 0.31), *BARGE_IN[at:]]).stale == 1
    assert whose_frames([*BARGE_IN[:-1], *frames(1, 2.26), BARGE_IN[-1]]).stale == 1


def test_a_mark_of_the_old_answer_after_the_clear_makes_its_frames_stale() -> None:
    at = BARGE_IN.index(clear(0.3)) + 1
    old = [*frames(5, 0.31), mark("1:400")]
    assert whose_frames([*BARGE_IN[:at], *old, *BARGE_IN[at:]]).stale == 5


def test_frames_no_mark_stands_behind_are_not_called_proven() -> None:
    """An answer cut before its first mark."""
    at = BARGE_IN.index(clear(0.3)) + 1
    assert whose_frames([*BARGE_IN[:at], *frames(4, 2.0), clear(2.1)]).unproven == 4
    assert whose_frames([*frames(10, 0.0), mark("1:200"), *frames(4, 2.0), clear(2.1)]).unproven == 4


def test_a_gap_is_inside_an_answer_and_a_pause_is_between_two() -> None:
    """TX-3 is about talk spurts: what lies between two answers is no gap, however short."""
    inside = [*frames(5, 0.0), *frames(5, 0.18), mark("1:200")]
    seen = whose_frames(inside, -1.0)
    assert seen.max_gap_ms == pytest.approx(100)
    [gap] = seen.long_gaps
    assert [gap.at_s, gap.gap_s] == pytest.approx([1.08, 0.1])
    between = [*frames(10, 0.0), mark("1:200"), *frames(10, 0.28), mark("2:200")]
    assert whose_frames(between).max_gap_ms == pytest.approx(20)


def test_marks_that_are_not_the_agents_own_mean_nothing() -> None:
    assert whose_frames([*frames(2, 0.0), mark("hello"), *frames(8, 0.04), mark("1:200")]).stale == 0


def test_latency_is_from_the_last_sound_to_the_next_answer() -> None:
    """An answer that began before the caller ended is none; one after the next turn is that turn's."""
    caller = [Interval(1, 2), Interval(4, 5), Interval(7, 8)]
    heard = [Interval(0, 1.1), Interval(2.5, 4.2), Interval(8.6, 9)]
    assert latencies(caller, heard) == (Latency(2, 2.5), Latency(8, 8.6))
    assert [latency.ms for latency in latencies(caller, heard)] == [500, 600]
    assert latencies([], heard) == ()


def test_intervals_close_together_are_one() -> None:
    assert joined([Interval(0, 1), Interval(1.1, 2), Interval(2.5, 3)]) == (Interval(0, 2), Interval(2.5, 3))


def test_what_was_sent_reaches_beyond_what_was_played() -> None:
    """Ten frames at once are 200 ms of audio; a clear ends them, and the next begins at its own time."""
    wire = [*frames(10, 10.0, step_s=0.0), clear(10.05), *frames(1, 11.0)]
    [first, second] = sent_intervals(wire, 10.0)
    assert [first.begin_s, first.end_s, second.begin_s, second.end_s] == pytest.approx([0.0, 0.2, 1.0, 1.02])


def test_speech_is_what_is_loud_and_a_pause_parts_it() -> None:
    audio = silence(300) + tone(500) + silence(200) + tone(500) + silence(900) + tone(400) + silence(100)
    first, second = stretches(audio, pause_ms=700)
    assert first == slice(300 * BYTES_PER_MS, 1500 * BYTES_PER_MS)
    assert second == slice(2400 * BYTES_PER_MS, 2800 * BYTES_PER_MS)
    assert trimmed(audio) == audio[first.start : second.stop]
    assert trimmed(silence(500)) == trimmed(b"") == b""
    assert stretches(silence(500), pause_ms=700) == []


def test_noise_under_speech_is_no_speech() -> None:
    audio = tone(400, dbfs=-48) + tone(400, dbfs=-10) + tone(400, dbfs=-48)
    assert trimmed(audio) == tone(400, dbfs=-10)


def test_the_callers_tape_becomes_times() -> None:
    tape = Tape()
    tape.write(105.0, silence(100) + tone(500) + silence(100), joined=False)
    [interval] = speech_of(tape, 100.0)
    assert [interval.begin_s, interval.end_s] == pytest.approx([5.1, 5.6])

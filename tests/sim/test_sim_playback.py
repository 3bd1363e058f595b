"""The carrier's playback buffer: what it says was heard is exactly what was heard."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sim.carrier.arrivals import Arrivals, Histogram
from agent.sim.carrier.playback import DueMark, PlaybackBuffer
from agent.sim.carrier.tape import Tape

FRAME = bytes(160)


def test_marks_come_back_when_playback_reaches_them() -> None:
    """A mark is due at the very sample before which it stands, and is not a cleared one."""
    playback = PlaybackBuffer()
    playback.media(bytes(1600), now=5.0)
    playback.mark("a", now=5.0)
    playback.media(bytes(800), now=5.05)
    playback.mark("b", now=5.05)
    assert playback.next_due() == pytest.approx(5.2)
    assert playback.advance(5.19) == []
    assert playback.advance(5.25) == [DueMark(5.0 + 1600 / 8000, "a", cleared=False)]
    assert playback.advance(9.0) == [DueMark(5.0 + 2400 / 8000, "b", cleared=False)]
    assert playback.next_due() == inf
    assert [(span.start_s, len(span.audio)) for span in playback.tape.spans] == [(5.0, 2400)]


def test_a_clear_returns_the_marks_of_what_it_forgets_at_once() -> None:
    """DESIGN D6: cleared marks come back too, and the segment knows how much of it was heard."""
    playback = PlaybackBuffer()
    playback.media(bytes(range(160)) * 10, now=0.0)
    playback.mark("a", now=0.0)
    playback.clear(now=0.05)
    assert playback.next_due() == -inf
    assert playback.advance(0.05) == [DueMark(0.05, "a", cleared=True)]
    heard = playback.heard("a")
    assert (heard.received_bytes, heard.played_bytes, heard.cleared_bytes) == (1600, 400, 1200)
    assert playback.tape.audio() == (bytes(range(160)) * 10)[:400]
    assert not playback.audible(0.05)


def test_a_mark_with_nothing_before_it_is_due_at_once() -> None:
    playback = PlaybackBuffer()
    playback.mark("first", now=1.0)
    assert playback.next_due() == -inf
    assert [mark.name for mark in playback.advance(1.0)] == ["first"]
    with pytest.raises(KeyError):
        playback.heard("first")


def test_a_late_frame_is_an_underrun_and_a_pause_is_not() -> None:
    """Less than 300 ms of nothing inside a talk spurt is a gap the caller hears; more is a new talk spurt."""
    playback = PlaybackBuffer()
    playback.media(FRAME, now=0.0)
    playback.media(FRAME, now=0.02)
    playback.media(FRAME, now=0.09)
    [underrun] = playback.underruns
    assert (underrun.at_s, underrun.gap_s) == pytest.approx((0.04, 0.05))
    playback.media(FRAME, now=1.0)
    assert len(playback.underruns) == 1
    assert playback.advance(2.0) == []
    assert [span.start_s for span in playback.tape.spans] == pytest.approx([0.0, 0.09, 1.0])
    assert playback.runs == 3


def test_the_end_of_an_answer_and_a_clear_end_the_talk_spurt() -> None:
    """What follows a clear, or a mark that says the answer is over, is not late."""
    playback = PlaybackBuffer(ends_spurt=lambda name: name == "end")
    playback.media(FRAME, now=0.0)
    playback.mark("end", now=0.0)
    playback.media(FRAME, now=0.1)
    playback.clear(now=0.11)
    playback.media(FRAME, now=0.2)
    assert playback.underruns == []


def test_a_jitter_buffer_hides_what_is_less_late_than_its_delay() -> None:
    playback = PlaybackBuffer(delay_s=0.04)
    for number, late_s in enumerate((0.0, 0.01, 0.035, 0.0)):
        playback.media(FRAME, now=0.02 * number + late_s)
    assert playback.advance(1.0) == []
    assert playback.underruns == []
    assert [(span.start_s, len(span.audio)) for span in playback.tape.spans] == [(0.04, 640)]


def test_without_record_only_counters_are_kept() -> None:
    playback = PlaybackBuffer(record=False)
    playback.media(FRAME, now=0.0)
    playback.mark("a", now=0.0)
    playback.advance(1.0)
    assert playback.played_bytes == 160
    assert playback.tape.spans == []
    assert playback.segments == []


steps = st.lists(
    st.tuples(st.sampled_from(["media", "media", "mark", "clear", "wait"]), st.integers(0, 700)), max_size=60
)


@given(steps=steps)
def test_every_byte_and_every_mark_is_accounted_for(steps: list[tuple[str, int]]) -> None:
    """Played + cleared + pending is what was received; marks return once, in order, within a sample of truth."""
    playback = PlaybackBuffer()
    now, sent, reference = 1000.0, bytearray(), _Reference()
    returned: list[DueMark] = []
    for number, (what, amount) in enumerate(steps):
        reference.play(now)
        if what == "media":
            audio = bytes([number % 251]) * amount
            sent += audio
            playback.media(audio, now)
            reference.media(amount, now)
        elif what == "mark":
            playback.mark(str(number), now)
            reference.mark(str(number))
        elif what == "clear":
            playback.clear(now)
            reference.clear()
        else:
            now += amount / 8000
        returned += playback.advance(now)
        reference.play(now)
        assert playback.played_bytes + playback.cleared_bytes + playback.pending_bytes == playback.received_bytes
        assert abs(playback.played_bytes - reference.played) <= 1
    returned += playback.advance(now + 1000)
    reference.play(now + 1000)
    assert [(mark.name, mark.cleared) for mark in returned] == reference.returned
    assert [mark.t_s for mark in returned] == sorted(mark.t_s for mark in returned)
    assert len(playback.tape.audio()) == playback.played_bytes
    assert sum(segment.played_bytes for segment in playback.segments) == playback.played_bytes
    assert sum(segment.cleared_bytes for segment in playback.segments) == playback.cleared_bytes
    assert len(sent) == playback.received_bytes
    for earlier, later in zip(playback.tape.spans, playback.tape.spans[1:], strict=False):
        assert later.start_s >= earlier.end_s - 1e-6


class _Reference:
    """The same, sample by sample: slow and obviously right. Its samples are due at whole ticks of 1/8000 s."""

    def __init__(self) -> None:
        self.queue: list[str | None] = []
        self.returned: list[tuple[str, bool]] = []
        self.played = 0
        self.at = 1000.0

    def media(self, amount: int, now: float) -> None:
        if None not in self.queue:
            self.at = max(self.at, now)
        self.queue += [None] * amount

    def mark(self, name: str) -> None:
        self.queue.append(name)
        self._return_reached()

    def clear(self) -> None:
        self.returned += [(name, True) for name in self.queue if name is not None]
        self.queue.clear()
        self.at = 0.0

    def play(self, now: float) -> None:
        while self.queue and self.at + 1 / 8000 <= now + 1e-6:
            self.queue.pop(0)
            self.played += 1
            self.at += 1 / 8000
            self._return_reached()

    def _return_reached(self) -> None:
        while self.queue and (name := self.queue[0]) is not None:
            self.returned.append((name, False))
            self.queue.pop(0)


def test_a_tape_renders_the_time_line_with_silence_in_its_holes() -> None:
    tape = Tape()
    tape.write(1.0, b"\x01" * 80, joined=False)
    tape.write(1.01, b"\x02" * 80, joined=True)
    tape.write(1.05, b"\x03" * 160, joined=False)
    assert tape.render(1.01, 1.06) == b"\x02" * 80 + b"\xff" * 240 + b"\x03" * 80
    assert tape.render(0.99, 1.005) == b"\xff" * 80 + b"\x01" * 40
    assert tape.render(2.0, 2.001) == b"\xff" * 8


def test_lateness_is_measured_from_the_steadiest_schedule_seen() -> None:
    """A lead sent in advance is not early and does not make what follows late; a late frame is."""
    arrivals = Arrivals()
    for _ in range(5):
        arrivals.observe(0.0, 160, run=1)
    for number in range(1, 10):
        arrivals.observe(0.02 * number + (0.012 if number == 5 else 0.0), 160, run=1)
    assert arrivals.lateness.max_s == pytest.approx(0.012)
    assert arrivals.gaps.max_s == pytest.approx(0.032)
    assert arrivals.lateness.percentile_s(50) <= 0.0005
    assert arrivals.long_gaps == 0
    arrivals.observe(0.3, 160, run=2)
    assert arrivals.long_gaps == 1
    assert arrivals.lateness.max_s == pytest.approx(0.012), "after a hole the schedule begins again"


def test_histograms_merge() -> None:
    one, other = Histogram(), Histogram()
    for value_ms in range(100):
        (one if value_ms % 2 else other).add(value_ms / 1000)
    other.add(3.0)
    whole = Histogram.merged([one, other])
    assert whole.total == 101
    assert whole.percentile_s(50) == pytest.approx(0.05, abs=0.001)
    assert whole.percentile_s(100) == 3.0
    assert Histogram().percentile_s(99) == 0.0

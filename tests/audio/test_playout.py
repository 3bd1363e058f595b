"""The playout clock against its requirements, and against the simulated carrier's playback buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.units import GenerationId
from agent.playout import (
    FIRST_TRIP_S,
    GRACE_S,
    NO_MARKS_S,
    OVERDUE_S,
    UNPROVED_S,
    MarkOutcome,
    PlayoutClock,
)
from agent.sim.carrier.playback import PlaybackBuffer

NOBODY, ONE = GenerationId(0), GenerationId(1)
FRAME = b"\x11" * 160


def speaking(frames: int, *, at: float = 0.0, owed: int = 0) -> PlayoutClock:
    """A clock that was told of ``frames`` frames at ``at``."""
    clock = PlayoutClock()
    for _ in range(frames):
        clock.frame_sent(ONE, at, owed)
    return clock


# PL-3: the eight named cases. With a complete clock the queue and fallback cases collapse into PL-2's one rule.


def test_pl_3_playout_truth_active() -> None:
    """Audio handed over is still playing."""
    assert speaking(50).audible(0.5)


def test_pl_3_playout_truth_expired() -> None:
    """It was played, and the grace is over."""
    assert not speaking(50).audible(1.001 + GRACE_S)


def test_pl_3_tx_queue_with_recent_audio() -> None:
    """Little was handed over, much is owed: what is owed will be heard, so it counts."""
    assert speaking(1, owed=100).audible(1.5)


def test_pl_3_tx_queue_with_old_audio() -> None:
    """What was owed long ago and never came is not heard now, however it was once queued."""
    assert not speaking(1, owed=100).audible(2.02 + GRACE_S)


def test_pl_3_legacy_fallback_recent() -> None:
    """Just after the last frame: the grace covers network and jitter buffer, no second clock is needed."""
    assert speaking(1).audible(0.02 + GRACE_S - 0.001)


def test_pl_3_legacy_fallback_old() -> None:
    """400 ms after the last frame nothing is heard."""
    assert not speaking(1).audible(0.42)


def test_pl_3_playout_priority_over_legacy() -> None:
    """The model sent its last audio six seconds ago, and the caller still hears it: playout decides (PL-1)."""
    assert speaking(5, owed=300).audible(6.0)


def test_pl_3_no_audio_state() -> None:
    """Nothing was ever said."""
    clock = PlayoutClock()
    assert not clock.audible(0.0)
    assert clock.status(0.0) == {"playout_status": "none"}


# PL-2


def test_pl_2_audible_until_is_backlog_frame_and_grace() -> None:
    """Backlog x 20 ms + this frame + 250 ms."""
    clock = speaking(1, at=10.0, owed=7)
    assert clock.audible_until == pytest.approx(10.0 + 7 * 0.020 + 0.020 + 0.250)


@given(st.lists(st.tuples(st.sampled_from(["sent", "owe", "wait"]), st.integers(0, 40)), max_size=60))
def test_pl_2_it_only_moves_forward(steps: list[tuple[str, int]]) -> None:
    """Frames, promises and time passing never move it back."""
    clock, now, before = PlayoutClock(), 0.0, float("-inf")
    for what, amount in steps:
        if what == "wait":
            now += amount / 100
        elif what == "sent":
            clock.frame_sent(ONE, now, amount)
        else:
            clock.owe(now, amount)
        assert clock.audible_until >= before
        before = clock.audible_until


def test_pl_2_cancelling_moves_it_to_what_the_carrier_holds() -> None:
    """100 ms are held and five seconds were owed: after the cancel 100 ms can be heard, after the clear none."""
    clock = speaking(5, owed=250)
    clock.cancelled(0.0)
    assert clock.audible_until == pytest.approx(0.1)
    clock.clear_sent(0.03)
    assert not clock.audible(0.03)


def test_pl_2_a_finished_drain_clears_it() -> None:
    clock = speaking(5)
    clock.drained()
    assert not clock.audible(0.0)


def test_pl_7_status_says_what_remains_or_since_when_it_is_over() -> None:
    clock = speaking(50)
    assert clock.status(0.5) == {"playout_remaining_ms": 750}
    assert clock.status(1.75) == {"playout_status": "ended_500ms_ago"}


# PL-4 and D6: marks


def test_pl_4_a_played_mark_beats_what_was_computed() -> None:
    """The carrier says 200 ms were played; by schedule it was 100 ms."""
    clock = speaking(10)
    mark = clock.mark_sent(ONE, 0.0)
    assert clock.heard_ms(ONE, 0.1) == 100
    assert clock.mark_returned(mark, 0.1) is MarkOutcome.PLAYED
    assert clock.heard_ms(ONE, 0.1) == 200


def test_d6_marks_of_cleared_audio_prove_nothing() -> None:
    """The trap: Twilio returns them too."""
    clock = speaking(10)
    mark = clock.mark_sent(ONE, 0.0)
    clock.clear_sent(0.06)
    assert clock.mark_returned(mark, 0.07) is MarkOutcome.CLEARED
    assert clock.heard_ms(ONE, 5.0) == 60


def test_marks_unknown_and_repeated_are_told_apart() -> None:
    clock = speaking(10)
    mark = clock.mark_sent(ONE, 0.0)
    assert clock.mark_returned("never:sent", 0.1) is MarkOutcome.UNKNOWN
    assert clock.mark_returned(mark, 0.3) is MarkOutcome.PLAYED
    assert clock.mark_returned(mark, 0.3) is MarkOutcome.UNKNOWN


def test_pl_4_playback_that_fell_behind_is_seen_in_two_late_marks() -> None:
    """A second of the carrier's playback is lost to its network: from the second late mark on the clock knows."""
    clock = PlayoutClock()
    marks = []
    for count in range(200):
        clock.frame_sent(ONE, count * 0.02)
        if count % 10 == 9:
            marks.append(clock.mark_sent(ONE, 0.0))
    rtt = 0.08
    for index, mark in enumerate(marks[:5]):
        clock.mark_returned(mark, (index + 1) * 0.2 + rtt)
    clock.mark_returned(marks[5], 1.2 + rtt + 0.1)
    assert clock.lag_s == 0, "one late mark may be the network's doing"
    clock.mark_returned(marks[6], 1.4 + rtt + 0.1)
    assert clock.lag_s == pytest.approx(0.1)
    clock.mark_returned(marks[7], 1.6 + rtt + 0.1)
    clock.mark_returned(marks[8], 1.8 + rtt + 0.1)
    assert clock.heard_ms(ONE, 2.0) == pytest.approx(1900, abs=1)


def test_marks_that_never_return_cost_no_memory() -> None:
    clock = PlayoutClock()
    for count in range(5000):
        clock.frame_sent(ONE, count * 0.02)
        clock.mark_sent(ONE, 0.0)
    assert len(clock._marks) <= 1000


def test_comfort_silence_takes_its_time_and_is_not_audible() -> None:
    """TX-6: silence frames delay what follows them by their length and are nothing to interrupt."""
    clock = PlayoutClock()
    clock.silence_sent(0.0)
    assert not clock.audible(0.01)
    clock.frame_sent(ONE, 0.005)
    assert clock.heard_ms(ONE, 0.03) == 10


# The reference: the simulated carrier's own playback


@attrs.define(eq=False)
class Line:
    """The clock on one end, the carrier's playback on the other, ``delay_s`` of network between them.

    Until ``held_until_s`` the network lets nothing through to the carrier; then all of it arrives at once.
    """

    delay_s: float
    clock: PlayoutClock = attrs.field(factory=PlayoutClock)
    carrier: PlaybackBuffer = attrs.field(factory=PlaybackBuffer)
    now: float = 0.0
    generation: GenerationId = ONE
    sent_ms: int = 0
    best_ms: int = 0
    held_until_s: float = 0.0
    back_held_until_s: float = 0.0
    """As ``held_until_s``, for what comes back."""
    jitter_s: deque[float] = attrs.field(factory=deque)
    """Added to the way of each of the next marks that come back."""
    ear_ms: int = 0
    """What the carrier had played of the last generation when the last clear was through."""
    exact: bool = True
    """Whether a clear is to find both ends within a frame of each other."""
    _played: list[tuple[GenerationId, int]] = attrs.field(factory=list)
    """Whose audio, and how many bytes of it, the carrier got and did not clear; silence is nobody's."""
    _there: deque[tuple[float, str, GenerationId]] = attrs.field(factory=deque)
    _back: deque[tuple[float, str]] = attrs.field(factory=deque)

    def frames(self, count: int) -> None:
        """Frames are written, all at once."""
        for _ in range(count):
            self.clock.frame_sent(self.generation, self.now)
            self._send("frame", self.generation)
        self.sent_ms += 20 * count

    def mark(self, _amount: int) -> None:
        """A mark is written behind them."""
        if self.sent_ms:
            self._send(self.clock.mark_sent(self.generation, self.now))

    def silence(self, _amount: int) -> None:
        """A frame of comfort silence is written."""
        self.clock.silence_sent(self.now)
        self._send("frame", NOBODY)

    def wait(self, amount: int) -> None:
        """Time passes, and things arrive at both ends."""
        until = self.now + amount / 50
        while self._there and self._there[0][0] <= until:
            at, what, whose = self._there.popleft()
            self._collect(at)
            if what == "frame":
                self.carrier.media(FRAME, at)
                self._played.append((whose, len(FRAME)))
            elif what == "clear":
                self._clear(at)
            else:
                self.carrier.mark(what, at)
        self._collect(until)
        while self._back and self._back[0][0] <= until:
            at, name = self._back.popleft()
            self.clock.mark_returned(name, at)
        self.now = until

    def clear(self, _amount: int) -> None:
        """A barge-in: the clear is written, arrives, and both ends are compared."""
        heard_ms = self.clock.heard_ms(self.generation, self.now)
        self.clock.clear_sent(self.now)
        self._send("clear")
        self.wait(100)
        assert self.clock.heard_ms(self.generation, self.now) == heard_ms, "frozen by the clear"
        self.ear_ms = self._heard_ms()
        assert not self.exact or abs(heard_ms - self.ear_ms) <= 20
        self.generation, self.sent_ms, self.best_ms = GenerationId(self.generation + 1), 0, 0

    def check(self) -> None:
        """Within what was sent, and monotonic but for what an overdue mark of a line that stalled contradicts."""
        heard_ms = self.clock.heard_ms(self.generation, self.now)
        assert 0 <= heard_ms <= self.sent_ms
        assert self.best_ms <= heard_ms or self.held_until_s
        self.best_ms = heard_ms

    def _send(self, what: str, whose: GenerationId = NOBODY) -> None:
        self._there.append((max(self.now, self.held_until_s) + self.delay_s, what, whose))

    def _clear(self, at: float) -> None:
        self.carrier.clear(at)
        left = self.carrier.played_bytes
        for index, (whose, length) in enumerate(self._played):
            self._played[index] = (whose, min(length, left))
            left -= min(length, left)

    def _heard_ms(self) -> int:
        """What the carrier played of the present generation, once all it got was played or cleared."""
        return sum(length for whose, length in self._played if whose == self.generation) // 8

    def _collect(self, at: float) -> None:
        for due in self.carrier.advance(at):
            arrives_s = max(due.t_s, self.back_held_until_s) + self.delay_s
            arrives_s += self.jitter_s.popleft() if self.jitter_s else 0.0
            self._back.append((max(arrives_s, self._back[-1][0] if self._back else 0.0), due.name))


Step = tuple[str, int]
some_steps = st.lists(
    st.tuples(
        st.sampled_from(["frames", "frames", "frames", "mark", "clear", "silence", "wait"]), st.integers(1, 30)
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(steps=some_steps, delay_ms=st.sampled_from([0, 5, 40, 150]))
def test_pl_8_any_interleaving_stays_within_a_frame_of_the_carrier(steps: list[Step], delay_ms: int) -> None:
    """Sent, marked, cleared and waited in any order: heard_ms is monotonic and within what was sent.

    At each clear it is within one frame of what the carrier's playback really played of the generation.
    """
    line = Line(delay_ms / 1000)
    for what, amount in steps:
        getattr(line, what)(amount)
        line.check()


@settings(deadline=None)
@given(
    hold_ms=st.integers(0, 600),
    delay_ms=st.sampled_from([0, 40, 150]),
    more_ticks=st.integers(50, 150),
)
def test_pl_4_a_carrier_that_fell_behind_is_followed(hold_ms: int, delay_ms: int, more_ticks: int) -> None:
    """The network held everything back for a while: the playback of it is late from then on.

    As the pacer sends it: a lead of 100 ms, a frame a tick, a mark each 200 ms. A second later, when two marks
    have told, a clear is again within one frame of what the carrier played.
    """
    line = Line(delay_ms / 1000)
    line.frames(4)
    for tick in range(100 + more_ticks):
        if tick == 50:
            line.held_until_s = line.now + hold_ms / 1000
        line.frames(1)
        if tick % 10 == 9:
            line.mark(0)
        line.wait(1)
        line.check()
    line.clear(0)


@settings(deadline=None)
@given(steps=some_steps, holds=st.lists(st.integers(0, 40), max_size=60), delay_ms=st.sampled_from([0, 40]))
def test_pl_8_whatever_the_network_does_heard_is_within_what_was_sent(
    steps: list[Step], holds: list[int], delay_ms: int
) -> None:
    """With a network that stops at any moment: within what was sent, frozen by the clear."""
    line = Line(delay_ms / 1000, exact=False)
    for index, (what, amount) in enumerate(steps):
        if index < len(holds):
            line.held_until_s = max(line.held_until_s, line.now + holds[index] / 100)
        getattr(line, what)(amount)
        line.check()


# MO-8: a line that stalls


LEAD_S = 0.1
MARK_S = 0.2
JITTER_S = 0.02


def pace(line: Line, ticks: int) -> None:
    """Send as the pacer does: a frame a tick, a mark each 200 ms, ahead by the lead of the first tick."""
    for _ in range(ticks):
        line.frames(5 if not line.sent_ms else 1)
        if line.sent_ms % 200 == 0:
            line.mark(0)
        line.wait(1)
        line.check()


@settings(deadline=None, max_examples=300)
@given(
    before=st.integers(20, 120),
    hold_ticks=st.integers(0, 150),
    into=st.integers(1, 250),
    delay_ms=st.sampled_from([0, 20, 60]),
    jitter_ms=st.lists(st.integers(0, 20), max_size=40),
)
@example(before=20, hold_ticks=7, into=20, delay_ms=0, jitter_ms=[])
def test_mo_8_a_barge_in_into_a_stall_finds_what_the_ear_had(
    before: int, hold_ticks: int, into: int, delay_ms: int, jitter_ms: list[int]
) -> None:
    """The line stalls at any moment for up to 3 s, the caller speaks at any moment after that.

    Once a mark has had the time to be overdue never more is told than the ear had (until then, at most what the
    stall took); at most a mark's distance and its patience are missing; and it is within 40 ms either way while
    the line is well, and once two marks have come back since.
    """
    line = Line(delay_ms / 1000, exact=False, jitter_s=deque(each / 1000 for each in jitter_ms))
    pace(line, before)
    began_s, ends_s = line.now, line.now + hold_ticks * 0.02
    line.held_until_s = ends_s
    pace(line, into)
    asked_s, generation = line.now, line.generation
    line.clear(0)
    line.wait(200)
    heard_ms = line.clock.heard_ms(generation, line.now)
    round_trip_s = 2 * line.delay_s + JITTER_S
    overdue_s = began_s + LEAD_S + MARK_S + round_trip_s + OVERDUE_S
    blind_ms = (asked_s - began_s) * 1000 if hold_ticks and asked_s <= overdue_s else 0
    assert heard_ms <= line.ear_ms + 40 + blind_ms
    assert heard_ms >= line.ear_ms - 40 - (MARK_S + round_trip_s + OVERDUE_S) * 1000
    if not hold_ticks or asked_s > ends_s + LEAD_S + 2 * MARK_S + round_trip_s + JITTER_S:
        assert heard_ms >= line.ear_ms - 40


def stalled(*, frames: int = 100) -> tuple[PlayoutClock, str]:
    """``frames`` a frame a tick with all marks back at once but the last: the clock, and that mark's name."""
    clock = PlayoutClock()
    waiting: deque[tuple[float, str]] = deque()
    for count in range(frames):
        clock.frame_sent(ONE, count * 0.02)
        if count % 10 == 9:
            waiting.append((clock.buffer_end, clock.mark_sent(ONE, 0.0)))
    for at, name in tuple(waiting)[:-1]:
        clock.mark_returned(name, at)
    return clock, waiting[-1][1]


def test_mo_8_an_overdue_mark_freezes_what_counts_as_heard_at_the_latest_proof() -> None:
    clock, mark = stalled()
    assert clock.heard_ms(ONE, 1.95) == 1950, "it is not due yet"
    assert clock.heard_ms(ONE, 2.0 + OVERDUE_S - 0.001) == 2000
    assert clock.heard_ms(ONE, 2.0 + OVERDUE_S + 0.001) == 1800
    clock.mark_returned(mark, 5.0)
    assert clock.heard_ms(ONE, 5.0) == 2000


def test_mo_8_nothing_counts_as_heard_of_what_was_sent_after_an_overdue_mark() -> None:
    """The next answer follows into a line that stands still."""
    clock, _ = stalled()
    later = GenerationId(2)
    for count in range(50):
        clock.frame_sent(later, 2.0 + count * 0.02)
    assert clock.heard_ms(later, 3.0) == 0


def test_mo_8_what_no_mark_has_shown_yet_is_audible_within_a_bound() -> None:
    clock, mark = stalled()
    assert clock.audible(2.0 + GRACE_S + 1.0)
    assert clock.status(2.0 + GRACE_S + 1.0) == {"playout_remaining_ms": 0}
    assert not clock.audible(2.0 + UNPROVED_S + 0.001)
    clock.mark_returned(mark, 4.0)
    assert not clock.audible(4.0 + GRACE_S)


def test_mo_8_an_answer_counts_as_heard_without_its_last_mark_only_after_a_bound() -> None:
    """A carrier that returned marks is waited for; one that never did goes by the schedule."""
    clock, _ = stalled()
    assert clock.heard_by(ONE, 2.0) == pytest.approx(2.0 + UNPROVED_S)
    silent = speaking(50)
    silent.mark_sent(ONE, 0.0)
    assert silent.heard_by(ONE, 1.0) == pytest.approx(1.0 + NO_MARKS_S)
    none_s = 1.0 + NO_MARKS_S + 0.001
    assert silent.heard_by(ONE, none_s) == pytest.approx(1.0 + GRACE_S)
    assert silent.heard_ms(ONE, none_s) == 1000
    assert not silent.audible(none_s)


def test_mo_8_a_line_that_stalls_at_once_is_believed_no_longer_than_a_first_mark_takes() -> None:
    """Before any mark is back a round trip of half a second is taken for granted."""
    clock = speaking(10)
    clock.mark_sent(ONE, 0.0)
    overdue_s = 0.2 + FIRST_TRIP_S + OVERDUE_S
    assert clock.heard_ms(ONE, overdue_s - 0.001) == 200
    assert clock.heard_ms(ONE, overdue_s + 0.001) == 0
    assert clock.audible(overdue_s + 0.001)
    assert clock.heard_ms(ONE, 0.2 + NO_MARKS_S) == 200, "this carrier returns none"


@pytest.mark.parametrize("end", [lambda clock: clock.clear_sent(3.0), lambda clock: clock.drained()])
def test_mo_8_after_a_clear_or_a_drain_no_mark_is_waited_for(end: Callable[[PlayoutClock], None]) -> None:
    clock, mark = stalled()
    end(clock)
    assert not clock.audible(3.0)
    clock.frame_sent(GenerationId(2), 3.0)
    assert clock.heard_ms(GenerationId(2), 3.02) == 20
    assert clock.mark_returned(mark, 3.1) is not MarkOutcome.UNKNOWN


def test_mo_8_a_mark_that_the_carrier_passed_over_is_not_waited_for() -> None:
    """A later one came back, so the earlier one was played."""
    clock = speaking(10)
    passed_over = clock.mark_sent(ONE, 0.0)
    for _ in range(10):
        clock.frame_sent(ONE, 0.2)
    clock.mark_returned(clock.mark_sent(ONE, 0.0), 0.4)
    assert clock.heard_ms(ONE, 9.0) == 400
    assert not clock.audible(9.0)
    assert clock.mark_returned(passed_over, 9.0) is MarkOutcome.PLAYED
    assert clock.heard_ms(ONE, 9.0) == 400


def test_pl_8_what_a_clear_meets_in_the_callers_device_was_not_heard() -> None:
    """A browser plays audio some time after it came; the carrier's schedule alone would count that as heard."""
    clock = PlayoutClock(device_s=0.06)
    for frame in range(10):
        clock.frame_sent(GenerationId(1), frame * 0.02)
    assert clock.heard_ms(GenerationId(1), 0.16) == 100
    clock.clear_sent(0.16)
    assert clock.heard_ms(GenerationId(1), 1.0) == 100

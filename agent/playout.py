"""The playout clock: what of the agent's audio the caller has heard, and until when there is something to hear.

One question has one answer in one place (PL-1). The clock models the carrier's playback buffer: each frame
begins when it was handed over or when the frame before it ended, whichever is later. Because a ``clear`` takes as
long to reach the carrier as audio does, this estimate needs no network delay to be right about what a clear cuts
off. Marks correct it (PL-4, DESIGN D6): a mark that was *played* proves its position; marks that come later than
the quickest ones did show by how much playback fell behind; one that does not come shows that playback stands
still, and then only what was proved counts as heard (MO-8). Marks that come back after a clear prove nothing. All
of this needs a carrier that returns marks: one whose first is a second late is taken to return none, and the
schedule alone counts.

Pure: times are seconds on the monotonic clock and come in as arguments. Nothing here waits.
"""

import enum
from collections import deque
from math import inf
from typing import Any, Final

import attrs

from agent.core.units import FRAME_MS, FRAME_S, GenerationId

GRACE_S: Final = 0.250
"""How long after the computed end audio may still be in the caller's ear (PL-2)."""
MARKS_REMEMBERED: Final = 250
"""Marks whose quickest return tells the round trip: 50 s of speech at one each 200 ms."""

MARKS_PENDING: Final = 1000
"""Marks waited for; a carrier that returns none must not cost memory."""
OVERDUE_S: Final = 0.080
"""A mark this much behind the quickest ones is overdue: four frames, more than a steady network's jitter."""
STEADY_S: Final = 0.040
"""How far apart the round trips of a steady network are at the most."""
FIRST_TRIP_S: Final = 0.5
"""The round trip that is taken for granted until the first mark is back."""
NO_MARKS_S: Final = 1.0
"""A first mark that is so late will not come: the carrier returns none, and the schedule alone counts."""
UNPROVED_S: Final = 10.0
"""How long after the schedule audio without its mark may still be heard: as long as a write may block."""


class MarkOutcome(enum.Enum):
    """What a returned mark meant."""

    PLAYED = "played"
    CLEARED = "cleared"
    UNKNOWN = "unknown"


@attrs.define
class _Stretch:
    """Audio of one generation that plays without a gap: schedule start, and its place in the generation."""

    start: float
    begin_ms: int
    length_ms: int


@attrs.define(eq=False)
class _HeardSoFar:
    """What was handed over of one generation, and what is known to have been heard."""

    sent_ms: int = 0
    proved_ms: int = 0
    stretches: list[_Stretch] = attrs.field(factory=list)
    frozen_ms: int | None = None
    """What was heard when a clear cut it off."""


@attrs.define
class _SentMark:
    generation: GenerationId
    position_ms: int
    due: float


@attrs.define(eq=False)
class PlayoutClock:
    """The playback of one call. All methods are synchronous, so that they are atomic to other tasks."""

    grace_s: float = GRACE_S
    buffer_end: float = -inf
    """When the carrier will have played all it was handed, by schedule; the past if it holds nothing."""
    audible_until: float = -inf
    """When the last audio handed over or owed will have been heard, grace included (PL-2)."""
    lag_s: float = 0.0
    """By how much playback is behind the schedule in this talk spurt, as its marks tell."""
    device_s: float = 0.0
    """How long audio is in the caller's device before it is heard: what a clear meets there is not."""
    _heard: dict[GenerationId, _HeardSoFar] = attrs.field(factory=dict)
    _marks: dict[str, _SentMark] = attrs.field(factory=dict)
    """What is waited for, in the order it was sent, which is the order it comes back in."""
    _settled: dict[str, MarkOutcome] = attrs.field(factory=dict)
    """Marks whose return proves nothing any more, and what it means."""
    _round_trip_s: float | None = None
    """From a mark's due time to its return, by the quickest one; None until the first is back."""
    _returns_marks: bool = True
    """Whether the carrier is taken to return marks; wrongly, if the first one is late for too long."""
    _returns: deque[float] = attrs.field(factory=lambda: deque(maxlen=MARKS_REMEMBERED))
    _excess: tuple[float, ...] = ()
    """Of the last two marks, what their returns took over the round trip."""

    # What the pacer reports

    def frame_sent(self, generation: GenerationId, now: float, owed_frames: int = 0) -> None:
        """A frame of ``generation`` was written at ``now``; ``owed_frames`` wait behind it."""
        account = self._heard_of(generation)
        start = self._next_start(now)
        stretches = account.stretches
        if stretches and stretches[-1].start + stretches[-1].length_ms / 1000 >= start - 1e-6:
            stretches[-1].length_ms += FRAME_MS
        else:
            stretches.append(_Stretch(start, account.sent_ms, FRAME_MS))
        account.sent_ms += FRAME_MS
        self.buffer_end = start + FRAME_S
        self.owe(now, owed_frames)

    def silence_sent(self, now: float) -> None:
        """A frame of comfort silence was written: it takes its time to play, but there is nothing to hear."""
        self.buffer_end = self._next_start(now) + FRAME_S

    def _next_start(self, now: float) -> float:
        """When audio written at ``now`` begins to play; after a gap, playback is back on schedule."""
        gap = now - self.buffer_end
        if gap <= 0:
            return self.buffer_end
        self.lag_s = max(self.lag_s - gap, 0.0)
        if not self.lag_s:
            self._excess = ()
        return now

    def owe(self, now: float, owed_frames: int) -> None:
        """``owed_frames`` of live generations wait to be handed over: the end moves forward, never back."""
        end = max(self.buffer_end + self.lag_s, now) + owed_frames * FRAME_S + self.grace_s
        if (owed_frames or self.buffer_end > now) and end > self.audible_until:
            self.audible_until = end

    def mark_sent(self, generation: GenerationId, now: float) -> str:
        """Name a mark at the present end of ``generation``: it is sent now, behind its frame or later."""
        position_ms = self._heard_of(generation).sent_ms
        name = f"{generation}:{position_ms}"
        if len(self._marks) >= MARKS_PENDING:
            del self._marks[next(iter(self._marks))]
        self._marks.setdefault(name, _SentMark(generation, position_ms, max(self.buffer_end, now)))
        return name

    def clear_sent(self, now: float) -> None:
        """A ``clear`` was written: what is not heard yet never will be, and pending marks prove nothing."""
        for generation, account in self._heard.items():
            if account.frozen_ms is None:
                account.frozen_ms = self.heard_ms(generation, now)
        self._settle(tuple(self._marks), MarkOutcome.CLEARED)
        self.buffer_end = min(self.buffer_end, now)
        self.audible_until = min(self.audible_until, now)
        self.lag_s = 0.0
        self._excess = ()

    # What the carrier reports

    def mark_returned(self, name: str, now: float) -> MarkOutcome:
        """The carrier sent ``name`` back: played, or removed by our clear, or not one of ours."""
        mark = self._marks.get(name)
        if mark is None:
            return self._settled.pop(name, MarkOutcome.UNKNOWN)
        # What a carrier passes over was played too: marks come back in the order they were sent.
        while (earlier := next(iter(self._marks))) != name:
            self._settle((earlier,), MarkOutcome.PLAYED)
        del self._marks[name]
        account = self._heard_of(mark.generation)
        account.proved_ms = max(account.proved_ms, mark.position_ms)
        self._correct(now - mark.due)
        return MarkOutcome.PLAYED

    def _correct(self, delay: float) -> None:
        """Learn from a mark that came ``delay`` after its schedule.

        Its quickest return is the round trip; what is over it is playback behind the schedule. A single late
        mark may be the network's doing, two in a row are not.
        """
        self._returns_marks = True
        self._returns.append(delay)
        self._round_trip_s = min(self._returns)
        self._excess = (*self._excess[-1:], delay - self._round_trip_s)
        behind = min(self._excess) if len(self._excess) > 1 else 0.0
        self.lag_s = min(delay, behind)
        end = self.buffer_end + self.lag_s + self.grace_s
        self.audible_until = max(self.audible_until, end)

    # What others ask

    def audible(self, now: float) -> bool:
        """Is agent audio being heard by the caller right now? (PL-1).

        What a mark has not shown yet may be, for at most UNPROVED_S: a line that stalled plays it when it can.
        """
        if now < self.audible_until or not self._marks:
            return now < self.audible_until
        return now < next(reversed(self._marks.values())).due + self._patience_s(now)

    def held_ms(self, now: float) -> float:
        """Milliseconds the carrier holds and has not played, by schedule."""
        return max(self.buffer_end - now, 0.0) * 1000

    def sent_ms(self, generation: GenerationId) -> int:
        """Milliseconds of ``generation`` handed over, the last frame's padding included."""
        account = self._heard.get(generation)
        return account.sent_ms if account else 0

    def heard_ms(self, generation: GenerationId, now: float) -> int:
        """Milliseconds of ``generation`` heard by ``now``: never less than proved, never more than sent.

        It grows with time, except that marks can contradict what was estimated.
        """
        account = self._heard.get(generation)
        if account is None:
            return 0
        if account.frozen_ms is not None:
            return account.frozen_ms
        at = now - self._behind(now) - self.device_s
        for stretch in reversed(account.stretches):
            played = at - stretch.start
            if played > 0:
                reached = stretch.begin_ms + min(int(played * 1000 + 1e-6), stretch.length_ms)
                return max(account.proved_ms, reached)
        return account.proved_ms

    def _behind(self, now: float) -> float:
        """By how much playback is behind its schedule; infinite if the oldest mark underway says it stands still.

        A single late mark is no proof of a lag, but over STEADY_S it is the likeliest one until the next is back.
        """
        last = self._excess[-1] if self._excess else 0.0
        behind = max(self.lag_s, last) if last > STEADY_S else self.lag_s
        oldest = next(iter(self._marks.values()), None)
        if oldest is None or not self._patience_s(now):
            return behind
        trip_s = FIRST_TRIP_S if self._round_trip_s is None else self._round_trip_s
        return inf if now - oldest.due - trip_s - OVERDUE_S > behind else behind

    def _patience_s(self, now: float) -> float:
        """How long after the schedule audio without its mark may still be heard; 0 if no marks are to be had."""
        oldest = next(iter(self._marks.values()), None)
        if self._round_trip_s is not None:
            return UNPROVED_S
        if oldest is not None and now - oldest.due >= NO_MARKS_S:
            self._returns_marks = False
        return NO_MARKS_S if self._returns_marks else 0.0

    def proved(self, generation: GenerationId, position_ms: int) -> bool:
        """Whether a mark showed that ``position_ms`` of ``generation`` was played."""
        account = self._heard.get(generation)
        return account is not None and account.proved_ms >= position_ms

    def heard_by(self, generation: GenerationId, now: float) -> float:
        """When what was handed over of ``generation`` counts as heard without a mark; the past if nothing was.

        Where the carrier returns marks they are waited for; a line that stalls returns them late.
        """
        account = self._heard.get(generation)
        if account is None or not account.stretches:
            return -inf
        last = account.stretches[-1]
        patience_s = max(self._patience_s(now), self.grace_s)
        return last.start + last.length_ms / 1000 + self.lag_s + patience_s

    def status(self, now: float) -> dict[str, Any]:
        """The fields logged at each speech start (PL-7)."""
        if self.audible(now):
            return {"playout_remaining_ms": max(round((self.audible_until - now) * 1000), 0)}
        if self.audible_until == -inf:
            return {"playout_status": "none"}
        return {"playout_status": f"ended_{round((now - self.audible_until) * 1000)}ms_ago"}

    # What ends

    def cancelled(self, now: float) -> None:
        """All live generations were cancelled: only what the carrier still holds can be heard (PL-2)."""
        self.audible_until = min(self.audible_until, max(self.buffer_end + self.lag_s, now))

    def drained(self) -> None:
        """A drain was waited for and is over: nothing is audible any more (PL-6)."""
        self.audible_until = -inf
        self._settle(tuple(self._marks), MarkOutcome.PLAYED)

    def forget(self, generation: GenerationId) -> None:
        """Drop the ledger of an ended generation; its marks still underway prove nothing any more."""
        self._heard.pop(generation, None)
        names = tuple(name for name, mark in self._marks.items() if mark.generation == generation)
        self._settle(names, MarkOutcome.CLEARED)

    def _settle(self, names: tuple[str, ...], outcome: MarkOutcome) -> None:
        for name in names:
            del self._marks[name]
            if len(self._settled) >= MARKS_PENDING:
                del self._settled[next(iter(self._settled))]
            self._settled[name] = outcome

    def _heard_of(self, generation: GenerationId) -> _HeardSoFar:
        account = self._heard.get(generation)
        if account is None:
            account = self._heard[generation] = _HeardSoFar()
        return account

"""What the caller heard, as the carrier knows it: playback at 8000 bytes a second.

Pure: times are monotonic floats passed in, nothing sleeps. Ask ``next_due`` when to call ``advance`` again::

    playback = PlaybackBuffer()
    playback.media(bytes(1600), now=0.0)  # 200 ms of audio
    playback.mark("greeting", now=0.0)
    assert playback.next_due() == 0.2
    assert playback.advance(0.2) == [DueMark(0.2, "greeting", cleared=False)]

Twilio returns a mark when playback reaches it, and at once when a ``clear`` removes it (DESIGN D6).
"""

from collections import deque
from collections.abc import Callable
from math import floor, inf
from typing import Final

import attrs

from agent.core.units import SAMPLE_RATE_HZ
from agent.sim.carrier.tape import Tape

_ROUNDING_BYTES: Final = 1e-3
"""An eighth of a microsecond: what adding up floats may be off by."""


@attrs.frozen
class DueMark:
    """A mark to be sent back: ``cleared`` when its audio was not played to the mark."""

    t_s: float
    name: str
    cleared: bool


@attrs.frozen
class Underrun:
    """Playback ran dry at ``at_s`` in the middle of a talk spurt and went on ``gap_s`` later."""

    at_s: float
    gap_s: float


@attrs.define(eq=False)
class MarkedSpan:
    """The audio between two marks; ``mark`` names the one that ends it, None while it is open."""

    mark: str | None = None
    received_bytes: int = 0
    played_bytes: int = 0
    cleared_bytes: int = 0


def _never(_: str) -> bool:
    return False


@attrs.define(eq=False, kw_only=True)
class PlaybackBuffer:
    """Plays what it is given, in order, and records exactly what was played when.

    ``delay_s`` is a jitter buffer: how long playback waits after the first audio of a run. A gap shorter than
    ``spurt_gap_s`` and longer than ``tolerance_s`` is an underrun, unless a ``clear`` or a mark for which
    ``ends_spurt(name)`` holds came before it. Without ``record`` only the counters are kept.
    """

    delay_s: float = 0.0
    spurt_gap_s: float = 0.3
    tolerance_s: float = 0.001
    ends_spurt: Callable[[str], bool] = _never
    record: bool = True

    tape: Tape = attrs.field(factory=Tape)
    segments: list[MarkedSpan] = attrs.field(factory=list)
    underruns: list[Underrun] = attrs.field(factory=list)
    received_bytes: int = 0
    played_bytes: int = 0
    cleared_bytes: int = 0
    pending_bytes: int = 0
    runs: int = 0
    """Stretches of playback without a hole, the current one included."""

    _pieces: deque[tuple[bytes, MarkedSpan]] = attrs.field(factory=deque)
    _head_bytes: int = 0
    """How much of the first piece was played."""
    _marks: deque[tuple[int, str]] = attrs.field(factory=deque)
    """Marks not yet reached, each with its position in the run."""
    _due: list[DueMark] = attrs.field(factory=list)
    _run_start_s: float = -inf
    _run_bytes: int = 0
    """How much of the run was played."""
    _spurt_over: bool = True
    _written: bool = False
    """Whether something of this run is on the tape."""
    _segment: MarkedSpan = attrs.field(factory=MarkedSpan)

    def media(self, audio: bytes, now: float) -> None:
        """Take ``audio`` (mu-law, any length) to be played after all that came before."""
        self._play(now)
        if not audio:
            return
        if not self.pending_bytes:
            self._begin_or_go_on(now)
        if self._segment.received_bytes == 0 and self.record:
            self.segments.append(self._segment)
        self._segment.received_bytes += len(audio)
        self.received_bytes += len(audio)
        self.pending_bytes += len(audio)
        self._pieces.append((audio, self._segment))

    def mark(self, name: str, now: float) -> None:
        """Take a mark: due when all that came before it was played, at once if nothing is left to play."""
        self._play(now)
        self._segment.mark = name
        self._segment = MarkedSpan()
        if self.pending_bytes:
            self._marks.append((self._run_bytes + self.pending_bytes, name))
            return
        self._reached(now, name)

    def clear(self, now: float) -> None:
        """Forget what was not played yet; the marks in it are due now, as cleared ones."""
        self._play(now)
        for audio, segment in self._pieces:
            segment.cleared_bytes += len(audio)
        if self._pieces:
            self._pieces[0][1].cleared_bytes -= self._head_bytes
        self.cleared_bytes += self.pending_bytes
        self._due += [DueMark(now, name, cleared=True) for _, name in self._marks]
        self._pieces.clear()
        self._marks.clear()
        self.pending_bytes = self._head_bytes = 0
        self._spurt_over = True

    def advance(self, now: float) -> list[DueMark]:
        """Play up to ``now``; the marks that became due since the last call, in order."""
        self._play(now)
        due, self._due = self._due, []
        return due

    def next_due(self) -> float:
        """When a mark will be due if nothing else happens; -inf if one is now, inf if there is none."""
        if self._due:
            return -inf
        return self._time_of(self._marks[0][0]) if self._marks else inf

    def audible(self, now: float) -> bool:
        """Whether the caller hears audio at ``now``."""
        self._play(now)
        return bool(self.pending_bytes)

    def ends_s(self) -> float:
        """When playback will be, or was, through with all it got; -inf if it never got anything."""
        return self._time_of(self._run_bytes + self.pending_bytes)

    def heard(self, mark: str) -> MarkedSpan:
        """The last segment ended by the mark ``mark``. Raises KeyError (also when not recording)."""
        for segment in reversed(self.segments):
            if segment.mark == mark:
                return segment
        raise KeyError(mark)

    def _begin_or_go_on(self, now: float) -> None:
        """Audio comes while nothing is pending: the run goes on only if it comes not a sample late."""
        gap_s = now - self._time_of(self._run_bytes)
        if gap_s * SAMPLE_RATE_HZ <= _ROUNDING_BYTES and not self._spurt_over:
            return
        if not self._spurt_over and self.tolerance_s < gap_s < self.spurt_gap_s:
            self.underruns.append(Underrun(now - gap_s, gap_s + self.delay_s))
        self.runs += 1
        self._run_start_s, self._run_bytes = now + self.delay_s, 0
        self._spurt_over = self._written = False

    def _play(self, now: float) -> None:
        if not self.pending_bytes:
            return
        reached = floor((now - self._run_start_s) * SAMPLE_RATE_HZ + _ROUNDING_BYTES)
        step = min(reached - self._run_bytes, self.pending_bytes)
        if step <= 0:
            return
        self._consume(step)
        while self._marks and self._marks[0][0] <= self._run_bytes:
            position, name = self._marks.popleft()
            self._reached(self._time_of(position), name)

    def _consume(self, step: int) -> None:
        self.pending_bytes -= step
        self.played_bytes += step
        while step:
            audio, segment = self._pieces[0]
            part = audio[self._head_bytes : self._head_bytes + step]
            if self.record:
                self.tape.write(self._time_of(self._run_bytes), part, joined=self._written)
                self._written = True
            segment.played_bytes += len(part)
            self._run_bytes += len(part)
            self._head_bytes += len(part)
            step -= len(part)
            if self._head_bytes == len(audio):
                self._pieces.popleft()
                self._head_bytes = 0

    def _reached(self, at_s: float, name: str) -> None:
        self._due.append(DueMark(at_s, name, cleared=False))
        if self.ends_spurt(name):
            self._spurt_over = True

    def _time_of(self, position: int) -> float:
        return self._run_start_s + position / SAMPLE_RATE_HZ

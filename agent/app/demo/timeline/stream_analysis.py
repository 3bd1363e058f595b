"""What the carrier saw of a call: times, gaps, latencies, and whose every frame was. Pure.

Times are seconds since the media stream began. A mark of the agent is named after its generation and how many
milliseconds of it went before (``3:200``): counting frames between marks and clears proves whose they were.
"""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

import attrs

from agent.app.demo.timeline.levels import stretches
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, SAMPLE_RATE_HZ
from agent.sim.carrier.arrivals import GAP_LIMIT_S
from agent.sim.carrier.stream import SimulatedStream, WireEntry
from agent.sim.carrier.tape import Tape

SPURT_GAP_S: Final = 0.3
"""A silence on the wire of at least this, and nobody is cut off: another answer begins."""
TURN_PAUSE_MS: Final = 700


@attrs.frozen
class Interval:
    """From ``begin_s`` to ``end_s``."""

    begin_s: float
    end_s: float


@attrs.frozen
class Latency:
    """The caller ended at ``caller_s``, the answer's first frame arrived at ``agent_s``."""

    caller_s: float
    agent_s: float

    @property
    def ms(self) -> int:
        """Milliseconds in between."""
        return round((self.agent_s - self.caller_s) * 1000)


@attrs.frozen
class Gap:
    """Nothing from ``at_s`` on for ``gap_s``."""

    at_s: float
    gap_s: float


@attrs.frozen
class Frames:
    """The agent's audio messages by the generation they belonged to."""

    max_gap_ms: float = 0.0
    """Longest time between two messages of one generation."""
    long_gaps: tuple[Gap, ...] = ()
    """Those over the limit (TX-3), whether or not the carrier's buffer hid them."""
    stale: int = 0
    """Frames of a generation that had been cut off by a clear."""
    unproven: int = 0
    """Frames behind which neither a mark nor the call's end tells whose they were; at most nine an answer."""


@attrs.frozen(kw_only=True)
class StreamAnalysis:
    """One call as the carrier saw it."""

    duration_s: float
    caller: tuple[Interval, ...]
    """The caller's speech."""
    sent: tuple[Interval, ...]
    """The agent's audio as it would have been played had nothing been cleared."""
    heard: tuple[Interval, ...]
    """The agent's audio as it was played."""
    clears_s: tuple[float, ...]
    underruns: tuple[Gap, ...]
    """Where playback ran dry in the middle of an answer."""
    latencies: tuple[Latency, ...]
    frames: Frames
    first_audio_s: float | None
    heard_ms: int
    sent_ms: int
    cleared_ms: int
    unplayed_ms: int
    """Left in the playback buffer when the agent closed the stream."""
    protocol_errors: tuple[str, ...]

    @property
    def median_latency_ms(self) -> int | None:
        """The median from the end of the caller's speech to the first audio of the answer."""
        return round(median(latency.ms for latency in self.latencies)) if self.latencies else None


def analyse(stream: SimulatedStream, ended_s: float) -> StreamAnalysis:
    """What a recorded stream amounts to; ``ended_s`` is when it ended, on the stream's clock."""
    start_s, playback = stream.started_s, stream.playback
    caller = speech_of(stream.said, start_s)
    heard = joined(_intervals(playback.tape, start_s))
    sent = sent_intervals(stream.wire, start_s)
    first_s = stream.arrivals.first_s
    return StreamAnalysis(
        duration_s=ended_s - start_s,
        caller=caller,
        sent=sent,
        heard=heard,
        clears_s=tuple(
            entry.t_s - start_s for entry in stream.wire if (entry.direction, entry.kind) == ("tx", "clear")
        ),
        underruns=tuple(Gap(dry.at_s - start_s, dry.gap_s) for dry in playback.underruns),
        latencies=latencies(caller, heard),
        frames=whose_frames(stream.wire, start_s),
        first_audio_s=None if first_s is None else first_s - start_s,
        heard_ms=playback.played_bytes // BYTES_PER_MS,
        sent_ms=playback.received_bytes // BYTES_PER_MS,
        cleared_ms=playback.cleared_bytes // BYTES_PER_MS,
        unplayed_ms=playback.pending_bytes // BYTES_PER_MS,
        protocol_errors=tuple(stream.protocol_errors),
    )


def speech_of(tape: Tape, start_s: float) -> tuple[Interval, ...]:
    """When there was speech on ``tape``, from its first sound to its last, silence around it left out."""
    return tuple(
        Interval(
            span.start_s - start_s + found.start / SAMPLE_RATE_HZ,
            span.start_s - start_s + found.stop / SAMPLE_RATE_HZ,
        )
        for span in tape.spans
        for found in stretches(bytes(span.audio), pause_ms=TURN_PAUSE_MS)
    )


def joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Intervals less than SPURT_GAP_S apart as one."""
    whole: list[Interval] = []
    for interval in intervals:
        if whole and interval.begin_s - whole[-1].end_s < SPURT_GAP_S:
            whole[-1] = Interval(whole[-1].begin_s, max(whole[-1].end_s, interval.end_s))
        else:
            whole.append(interval)
    return tuple(whole)


def sent_intervals(wire: Sequence[WireEntry], start_s: float) -> tuple[Interval, ...]:
    """When each message of agent audio would be played if no ``clear`` came, joined."""
    ends_s = 0.0
    intervals = []
    for entry in wire:
        if entry.direction == "tx" and entry.kind == "clear":
            ends_s = 0.0
        elif entry.direction == "tx" and entry.kind == "media":
            begin_s = max(ends_s, entry.t_s - start_s)
            ends_s = begin_s + len(entry.audio) / SAMPLE_RATE_HZ
            intervals.append(Interval(begin_s, ends_s))
    return joined(intervals)


def latencies(caller: Sequence[Interval], heard: Sequence[Interval]) -> tuple[Latency, ...]:
    """For each turn of the caller, the first talk spurt of the agent that began after it and before the next."""
    ends_s = [*(interval.begin_s for interval in caller[1:]), float("inf")]
    found = []
    for turn, next_s in zip(caller, ends_s, strict=False):
        begins_s = [spurt.begin_s for spurt in heard if turn.end_s <= spurt.begin_s < next_s]
        if begins_s:
            found.append(Latency(turn.end_s, begins_s[0]))
    return tuple(found)


def whose_frames(wire: Sequence[WireEntry], start_s: float = 0.0) -> Frames:
    """Count the agent's frames against its marks: gaps inside a generation, frames of one that was cut off."""
    owners = _FrameOwners()
    for entry in wire:
        if entry.direction != "tx":
            continue
        if entry.kind == "media":
            owners.media(entry.t_s, len(entry.audio))
        elif entry.kind == "mark":
            owners.mark(entry.detail)
        elif entry.kind == "clear":
            owners.clear()
    owners.clear()
    gaps = owners.gaps
    return Frames(
        max_gap_ms=round(max((gap.gap_s for gap in gaps), default=0.0) * 1000, 1),
        long_gaps=tuple(Gap(gap.at_s - start_s, gap.gap_s) for gap in gaps if gap.gap_s >= GAP_LIMIT_S),
        stale=owners.stale,
        unproven=owners.unproven,
    )


@attrs.define(eq=False)
class _FrameOwners:
    gaps: list[Gap] = attrs.field(factory=list)
    stale: int = 0
    unproven: int = 0
    _last: tuple[float, int] | None = None
    """When the last frame that a mark covered came, and its generation."""
    _waiting: list[float] = attrs.field(factory=list)
    """Arrivals of the frames since the last mark or clear."""
    _waiting_bytes: int = 0
    _position_ms: dict[int, int] = attrs.field(factory=dict)
    _cleared: bool = False
    _cut: int = 0
    """Generations up to this number were cut off."""

    def media(self, t_s: float, length: int) -> None:
        self._waiting.append(t_s)
        self._waiting_bytes += length

    def mark(self, name: str) -> None:
        number, _, position = name.partition(":")
        if not (number.isdecimal() and position.isdecimal()):
            return
        generation, position_ms = int(number), int(position)
        owed_bytes = (position_ms - self._position_ms.get(generation, 0)) * BYTES_PER_MS
        if generation <= self._cut:
            self.stale += max(len(self._waiting), 1)
        else:
            self.stale += abs(self._waiting_bytes - owed_bytes) // FRAME_BYTES
        self._position_ms[generation] = position_ms
        self._measure(generation)
        self._forget()

    def clear(self) -> None:
        """Frames behind the last mark belong with it, unless a clear or a silence lies in between."""
        last = self._last
        if last and self._waiting and not self._cleared and self._waiting[0] - last[0] < SPURT_GAP_S:
            self._measure(last[1])
        else:
            self.unproven += len(self._waiting)
        self._cut = max([self._cut, *self._position_ms])
        self._forget()
        self._cleared = True

    def _measure(self, generation: int) -> None:
        for t_s in self._waiting:
            if self._last is not None and self._last[1] == generation:
                self.gaps.append(Gap(self._last[0], t_s - self._last[0]))
            self._last = (t_s, generation)
        if self._waiting:
            self._cleared = False

    def _forget(self) -> None:
        self._waiting, self._waiting_bytes = [], 0


def _intervals(tape: Tape, start_s: float) -> list[Interval]:
    return [Interval(span.start_s - start_s, span.end_s - start_s) for span in tape.spans]

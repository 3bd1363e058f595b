"""The picture of a call, before it is drawn: lanes of speech and text on one time axis. Pure.

All times are seconds since the media stream began. The record counts from the answer of the call on the agent's
clock; the first agent frame, which both sides timed, lays one over the other.
"""

from collections.abc import Iterable
from typing import Final

import attrs

from agent.app.cli.calls.transcript_view import unheard
from agent.app.demo.timeline.stream_analysis import Gap, Interval, Latency, StreamAnalysis
from agent.audio.ulaw import LINEAR
from agent.core.records import CallRecord, Turn
from agent.sim.carrier.tape import Tape

POINTS_PER_S: Final = 100
"""Points of an envelope; more than there are pixels."""
_FULL_SCALE: Final = 32768


@attrs.frozen
class Envelope:
    """How loud a lane was: the peak (0 to 1) of each 1/POINTS_PER_S second from ``begin_s`` on."""

    begin_s: float
    peaks: tuple[float, ...]


@attrs.frozen
class AnswerLane:
    """One answer of the agent: generated to ``end_s`` if it had not been cut, heard to ``heard_s``."""

    begin_s: float
    heard_s: float
    end_s: float
    heard_text: str
    unheard_text: str
    interrupted: bool


@attrs.frozen
class Words:
    """What was said between two moments."""

    begin_s: float
    end_s: float
    text: str


@attrs.frozen(kw_only=True)
class Timeline:
    """Everything in the picture."""

    title: str
    subtitle: str
    duration_s: float
    caller: tuple[Envelope, ...]
    heard: tuple[Envelope, ...]
    sent: tuple[Interval, ...]
    said: tuple[Words, ...]
    answers: tuple[AnswerLane, ...]
    barge_ins_s: tuple[float, ...]
    gaps: tuple[Gap, ...]
    latencies: tuple[Latency, ...]


def make_timeline(record: CallRecord, seen: StreamAnalysis, said: Tape, heard: Tape, start_s: float) -> Timeline:
    """Lay the record, what the carrier saw and the tapes over each other; ``start_s`` is the stream's begin."""
    origin_s = (seen.first_audio_s or 0.0) - (record.metrics.first_audio_ms or 0) / 1000
    metrics = record.metrics
    latency_ms = seen.median_latency_ms
    parts = [
        f"{metrics.barge_in_events} barge-ins",
        f"longest gap {seen.frames.max_gap_ms:.0f} ms",
        f"{len(seen.underruns)} underruns",
        f"{seen.frames.stale} stale frames",
        *([f"speech to answer {latency_ms} ms (median)"] if latency_ms is not None else []),
    ]
    return Timeline(
        title=f"{seen.duration_s:.1f} s, {record.outcome.value.replace('_', ' ')}",
        subtitle="   \N{MIDDLE DOT}   ".join(parts),
        duration_s=seen.duration_s,
        caller=tuple(envelopes(said, start_s)),
        heard=tuple(envelopes(heard, start_s)),
        sent=seen.sent,
        said=tuple(_said(record.turns, seen.caller, origin_s)),
        answers=tuple(_answer(turn, origin_s) for turn in record.turns if turn.role == "agent"),
        barge_ins_s=tuple(event.t_ms / 1000 + origin_s for event in record.timeline if event.kind == "BARGE_IN"),
        gaps=(*seen.underruns, *seen.frames.long_gaps),
        latencies=seen.latencies,
    )


def envelopes(tape: Tape, start_s: float) -> Iterable[Envelope]:
    """One for each span of ``tape``."""
    step = 8000 // POINTS_PER_S
    for span in tape.spans:
        pieces = (span.audio[at : at + step] for at in range(0, len(span.audio), step))
        peaks = tuple(max(abs(LINEAR[code]) for code in piece) / _FULL_SCALE for piece in pieces)
        yield Envelope(span.start_s - start_s, peaks)


def _said(turns: Iterable[Turn], speech: Iterable[Interval], origin_s: float) -> Iterable[Words]:
    """The caller's words over the speech they belong to; a turn begins up to a second after its sound does."""
    free = list(speech)
    for turn in turns:
        if turn.role != "caller" or not turn.text:
            continue
        began_s = turn.started_ms / 1000 + origin_s
        begun = [interval for interval in free if interval.begin_s <= began_s]
        if begun:
            interval = begun[-1]
            free.remove(interval)
            yield Words(interval.begin_s, interval.end_s, turn.heard_text)
        else:
            yield Words(began_s, began_s + turn.audio_ms / 1000, turn.heard_text)


def _answer(turn: Turn, origin_s: float) -> AnswerLane:
    begin_s = turn.started_ms / 1000 + origin_s
    return AnswerLane(
        begin_s=begin_s,
        heard_s=begin_s + turn.heard_ms / 1000,
        end_s=begin_s + max(turn.audio_ms, turn.heard_ms) / 1000,
        heard_text=turn.heard_text,
        unheard_text=unheard(turn) if turn.interrupted else "",
        interrupted=turn.interrupted,
    )

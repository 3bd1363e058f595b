"""A demo call made up for tests: its record and what the carrier saw of it. Everything held."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from agent.app.demo.timeline.stream_analysis import Frames, Interval, Latency, StreamAnalysis
from agent.core.records import CallMetrics, CallRecord, Outcome, TimelineEvent, Turn
from agent.core.units import CallSid, StreamSid

ANSWERED = datetime(2026, 1, 1, 12, tzinfo=UTC)


def turn(role: str, text: str, started_ms: int, *, heard: str | None = None, heard_ms: int = 1000) -> Turn:
    """A turn of two seconds; ``heard`` says it was interrupted after that."""
    return Turn(
        role="agent" if role == "agent" else "caller",
        item_id=f"item-{started_ms}",
        text=text,
        heard_text=text if heard is None else heard,
        started_ms=started_ms,
        audio_ms=2000,
        heard_ms=2000 if heard is None else heard_ms,
        interrupted=heard is not None,
    )


METRICS = CallMetrics(
    duration_ms=14_000,
    barge_in_events=2,
    fps=50.0,
    max_gap_ms=38.0,
    first_audio_ms=80,
    turn_latencies_ms=(400, 500),
    frames_in=700,
    frames_out=300,
    frames_dropped=80,
    reconnects=0,
    stalls=0,
    events={"BARGE_IN": 2},
)
RECORD = CallRecord(
    call_sid=CallSid("CA1"),
    stream_sid=StreamSid("MZ1"),
    direction="inbound",
    caller="+15550001111",
    called="+15552223333",
    answered_at=ANSWERED,
    ended_at=ANSWERED + timedelta(seconds=14),
    outcome=Outcome.AGENT_HUNG_UP,
    reason="the agent ended the call",
    turns=(
        turn("agent", "Hello, this is the assistant.", 80, heard="Hello, this"),
        turn("caller", "When are you open?", 1300),
        turn("agent", "From nine to five, all week.", 4000, heard="From nine"),
        turn("caller", "My name is anna Miller, and I live in Boston!", 5100),
        turn("agent", "Goodbye!", 8000),
    ),
    metrics=METRICS,
    timeline=(TimelineEvent(1100, "BARGE_IN"), TimelineEvent(5000, "BARGE_IN"), TimelineEvent(5001, "CLEARED")),
)
SIGHT = StreamAnalysis(
    duration_s=14.1,
    caller=(Interval(1.0, 3.5), Interval(4.9, 7.5)),
    sent=(Interval(0.1, 1.2), Interval(4.0, 5.1), Interval(8.0, 10.0)),
    heard=(Interval(0.1, 1.1), Interval(4.0, 5.0), Interval(8.0, 10.0)),
    clears_s=(1.1, 5.0),
    underruns=(),
    latencies=(Latency(3.5, 4.0), Latency(7.5, 8.0)),
    frames=Frames(max_gap_ms=38.2),
    first_audio_s=0.1,
    heard_ms=4000,
    sent_ms=4200,
    cleared_ms=200,
    unplayed_ms=0,
    protocol_errors=(),
)

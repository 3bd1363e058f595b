"""What is kept of a call: frozen values, made in memory during the call and durable at its end.

Wall-clock times are aware UTC; ``t_ms`` counts milliseconds from the answer of the call on the monotonic
clock, so that the parts of a record can be laid over each other and over the carrier's recording.
"""

import enum
from datetime import datetime
from typing import Any, Literal

import attrs

from agent.core.units import CallSid, RecordingSid, StreamSid


class Outcome(enum.StrEnum):
    """How a call ended; exactly one is recorded for each call."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_HUNG_UP = "agent_hung_up"
    IDLE = "idle"
    TIME_LIMIT = "time_limit"
    TRANSFERRED = "transferred"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_LOST = "model_lost"
    CARRIER_LOST = "carrier_lost"
    CRASHED = "crashed"
    CARRIER_STUCK = "carrier_stuck"
    SERVER_STOPPED = "server_stopped"
    ERROR = "error"


@attrs.frozen
class Turn:
    """One turn of the conversation.

    Of an agent's turn, ``text`` is what the model generated and ``heard_text`` what the caller heard of it;
    they differ when the turn was interrupted. A caller's turn was heard as a whole; it is ``complete`` if its
    words were written down during the call, else they are the recording's, or nobody knows them.
    """

    role: Literal["caller", "agent"]
    item_id: str
    text: str
    heard_text: str
    started_ms: int
    audio_ms: int
    heard_ms: int
    interrupted: bool
    complete: bool = True


@attrs.frozen
class TimelineEvent:
    """Something that happened ``t_ms`` after the answer; ``detail`` is small and JSON-ready."""

    t_ms: int
    kind: str
    detail: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class CallMetrics:
    """CALL_METRICS (NB-3): the figures of one call. None: it never happened."""

    duration_ms: int
    barge_in_events: int
    fps: float | None
    max_gap_ms: float | None
    first_audio_ms: int | None
    turn_latencies_ms: tuple[int, ...]
    frames_in: int
    frames_out: int
    frames_dropped: int
    reconnects: int
    stalls: int
    events: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen
class CallRecord:
    """Everything kept of one call; durable before post-call work hears of it (ST-4)."""

    call_sid: CallSid
    stream_sid: StreamSid
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
    answered_at: datetime
    ended_at: datetime
    outcome: Outcome
    reason: str
    turns: tuple[Turn, ...]
    metrics: CallMetrics
    recording_sid: RecordingSid | None = None
    dtmf: str = ""
    timeline: tuple[TimelineEvent, ...] = ()
    tenant_id: str = "default"


RecordingStatus = Literal["in-progress", "completed", "absent", "failed"]


@attrs.frozen
class RecordingCallback:
    """What the carrier tells of a recording; None and an empty ``url``: it did not say."""

    call_sid: CallSid
    recording_sid: RecordingSid
    status: RecordingStatus
    url: str = ""
    duration_s: int | None = None
    channels: int | None = None

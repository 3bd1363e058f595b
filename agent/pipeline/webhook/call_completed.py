"""``call.completed``: everything kept of a call, as one JSON document for the tenant's webhook (PC-2). Pure.

These types are the published format: ``docs/call-completed.schema.json`` is made of them, and a test holds the
two together. Fields may be added within a version; one that goes or changes its meaning is a new version. The
same facts give the same bytes, so a redelivery can be told from a correction.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

import attrs
import msgspec
from msgspec import Meta

from agent.core.records import CallMetrics
from agent.core.tenant_fields import zone_of
from agent.core.units import CallSid

VERSION: Final = 1
TYPE: Final = "call.completed"
SCHEMA_ID: Final = "call-completed.schema.json"


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A point in time, twice: the same instant in UTC and on the tenant's clock."""

    utc: Annotated[str, Meta(description="ISO 8601, milliseconds, Z", examples=["2026-03-01T10:00:00.000Z"])]
    local: Annotated[
        str,
        Meta(description="ISO 8601, the tenant's time zone", examples=["2026-03-01T12:00:00.000+02:00"]),
    ]


class TenantShown(msgspec.Struct, frozen=True, kw_only=True):
    """The business that was called."""

    id: str
    name: str
    language: Annotated[str, Meta(description="BCP 47; empty: not said")]
    time_zone: Annotated[str, Meta(description="IANA name of the zone that local times are in")]


class CallShown(msgspec.Struct, frozen=True, kw_only=True):
    """Who phoned whom, when, and how it ended."""

    sid: Annotated[str, Meta(description="The carrier's name for the call")]
    direction: Literal["inbound", "outbound"]
    caller: Annotated[str, Meta(description="As the carrier gave it, mostly E.164")]
    called: str
    answered_at: Moment
    ended_at: Moment
    duration_s: float
    outcome: Annotated[str, Meta(description="How it ended; more may come", examples=["caller_hung_up"])]
    reason: Annotated[str, Meta(description="The outcome in more words; may be empty")]
    dtmf: Annotated[str, Meta(description="Keys the caller pressed")]


class TurnShown(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the conversation, as it was during the call."""

    role: Literal["caller", "agent"]
    text: Annotated[str, Meta(description="What was said; of the agent, what it was about to say")]
    heard_text: Annotated[str, Meta(description="What the caller heard of it: less after an interruption")]
    started_ms: Annotated[int, Meta(description="Milliseconds after the answer")]
    audio_ms: int
    heard_ms: int
    interrupted: bool
    complete: Annotated[
        bool,
        Meta(description="Of the agent: generated whole. Of the caller: false: words of the recording, or none"),
    ]


class RecordingShown(msgspec.Struct, frozen=True, kw_only=True):
    """The carrier's recording; to fetch it from ``url`` takes the carrier account's own credentials."""

    sid: str
    status: Annotated[str, Meta(description="in-progress, completed, absent or failed")]
    url: Annotated[str | None, Meta(description="At the carrier; null: unknown, or deleted there")] = None
    duration_s: int | None = None
    channels: Annotated[int | None, Meta(description="2: caller on the first, agent on the second")] = None
    size_bytes: Annotated[int | None, Meta(description="Of the file kept by us; null: none is kept")] = None
    sha256: str | None = None
    deleted_at: Annotated[Moment | None, Meta(description="When it was deleted at the carrier")] = None


class SegmentShown(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is heard in the recording."""

    channel: Annotated[
        Literal["caller", "agent", "unknown"], Meta(description="unknown: the recording has one channel only")
    ]
    start_ms: Annotated[int, Meta(description="Milliseconds from the beginning of the recording")]
    end_ms: int
    text: str


class ExtractionShown(msgspec.Struct, frozen=True, kw_only=True):
    """What the call was about; empty: unknown."""

    name: str
    city: str
    service: str
    intent: Annotated[str, Meta(description="booking, question, complaint, human, wrong_number or other")]
    lead_status: Annotated[
        str, Meta(description="new, contacted, qualified, appointment, not_interested or customer")
    ]
    follow_up: Annotated[str, Meta(description="What is left to do")]


class LeadShown(msgspec.Struct, frozen=True, kw_only=True):
    """The caller as the tenant's lead, after this call."""

    id: int
    phone: Annotated[str, Meta(description="E.164")]
    name: str | None = None
    city: str | None = None
    service: str | None = None
    status: str
    note: str | None = None


class AppointmentShown(msgspec.Struct, frozen=True, kw_only=True):
    """An appointment made in this call."""

    id: int
    starts_at: Moment
    service: str | None = None
    name: str | None = None
    phone: str | None = None
    note: str | None = None


class DeadStep(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was to be done after the call and was given up."""

    step: Annotated[str, Meta(description="recording, transcription, summary, extraction, lead or status")]
    reason: str


class CallCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """A call that is over and worked on. Sent at least once; ``id`` is the same each time."""

    id: Annotated[str, Meta(description="Stable per call, equal to the header Idempotency-Key")]
    type: Literal["call.completed"] = TYPE
    version: Literal[1] = VERSION
    tenant: TenantShown
    call: CallShown
    transcript: tuple[TurnShown, ...]
    recording: Annotated[RecordingShown | None, Meta(description="null: the call was not recorded")] = None
    transcription: Annotated[
        tuple[SegmentShown, ...] | None, Meta(description="Of the recording, by time; null: there is none")
    ] = None
    summary: Annotated[str | None, Meta(description="null: none could be made")] = None
    extraction: Annotated[ExtractionShown | None, Meta(description="null: nothing could be extracted")] = None
    lead: Annotated[LeadShown | None, Meta(description="null: the caller's number is not known")] = None
    lead_status: Annotated[str | None, Meta(description="Of the lead, after this call; null: no lead")] = None
    appointments: tuple[AppointmentShown, ...] = ()
    metrics: Annotated[CallMetrics | None, Meta(description="null: the call did not end in order")] = None
    dead_steps: tuple[DeadStep, ...] = ()


def event_id(call_sid: CallSid) -> str:
    """The id of a call's ``call.completed``, and its idempotency key: the same for every delivery."""
    return f"{TYPE}-{call_sid}"


def moment(at: datetime, time_zone: str) -> Moment:
    """``at`` (aware) on both clocks. A zone that this machine does not know is taken for UTC."""
    utc = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Moment(utc=utc, local=at.astimezone(zone_of(time_zone)).isoformat(timespec="milliseconds"))


def public_url(url: str | None) -> str | None:
    """``url`` without user, password, query and fragment, where credentials could be."""
    if not url:
        return None
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def encode(payload: CallCompleted) -> bytes:
    """The body to send and to sign: UTF-8 JSON on one line, the same bytes for the same facts."""
    if payload.metrics is not None:
        # The only dictionary: the database gives it back in an order of its own.
        metrics = attrs.evolve(payload.metrics, events=dict(sorted(payload.metrics.events.items())))
        payload = msgspec.structs.replace(payload, metrics=metrics)
    return msgspec.json.encode(payload)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``CallCompleted``, as published.

    Every field is always sent, null where there is nothing; further ones may come, so they are not forbidden.
    """
    (ref,), definitions = msgspec.json.schema_components([CallCompleted], ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition["required"] = list(definition["properties"])
        for shape in definition["properties"].values():
            shape.pop("default", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": f"{TYPE}, version {VERSION}",
        **ref,
        "$defs": dict(sorted(definitions.items())),
    }

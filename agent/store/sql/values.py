"""Rows as the rest of the program sees them: frozen values with the names of their columns."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import attrs

from agent.core.records import Turn

StepState = Literal["pending", "running", "waiting", "done", "failed", "dead"]
PostcallState = Literal["active", "open", "waiting", "done", "dead"]
"""Of a call: it is going on; work is left; a step waits for the operator; all is done; all is settled, but a step
was given up."""


@attrs.frozen
class AnsweredCall:
    """What is kept of a call when it was answered."""

    call_sid: str
    tenant_id: str
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
    answered_at: datetime
    server_id: UUID | None = None


@attrs.frozen
class RecordingRow:
    """A recording at the carrier and, once it was fetched, on disk."""

    recording_sid: str
    status: Literal["in-progress", "completed", "absent", "failed"]
    url: str | None = None
    duration_s: int | None = None
    channels: int | None = None
    path: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    downloaded_at: datetime | None = None
    deleted_at: datetime | None = None


@attrs.frozen
class LeadUpdate:
    """What was learnt of a lead; what is empty is not changed. ``phone`` is E.164."""

    tenant_id: str
    phone: str
    name: str = ""
    city: str = ""
    service: str = ""
    status: str = ""
    note: str = ""
    call_id: int | None = None


@attrs.frozen
class LeadRow:
    """A lead: unique for each tenant and phone."""

    id: int
    tenant_id: str
    phone: str
    name: str | None
    city: str | None
    service: str | None
    status: str
    note: str | None
    created_at: datetime
    updated_at: datetime


@attrs.frozen
class NewAppointment:
    """An appointment made in a call by ``caller``; ``tool_call_id`` makes it happen once."""

    tenant_id: str
    call_sid: str
    tool_call_id: str
    starts_at: datetime
    phone: str
    service: str = ""
    name: str = ""
    note: str = ""
    caller: str = ""


@attrs.frozen
class AppointmentRow:
    """An appointment."""

    id: int
    starts_at: datetime
    service: str
    name: str
    phone: str
    note: str


@attrs.frozen
class StepRow:
    """One post-call step of a call."""

    step: str
    state: StepState
    attempts: int
    result: dict[str, Any] | None
    error: str | None
    started_at: datetime | None
    next_try_at: datetime | None
    claimed_by: str | None
    finished_at: datetime | None


@attrs.frozen
class DeliveryRow:
    """One try to deliver a webhook."""

    attempt: int
    idempotency_key: str
    url: str
    at: datetime
    http_status: int | None
    error: str | None
    duration_ms: int


@attrs.frozen
class CallLine:
    """A call in a list."""

    id: int
    call_sid: str
    tenant_id: str
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
    answered_at: datetime
    ended_at: datetime | None
    outcome: str | None
    postcall: PostcallState


@attrs.frozen
class EarlierCall:
    """A call that is over, as the next one may want to know of it."""

    answered_at: datetime
    summary: str


@attrs.frozen
class CallView:
    """Everything that is known of a call."""

    line: CallLine
    tenant_name: str
    time_zone: str
    reason: str
    dtmf: str
    metrics: dict[str, Any] | None
    turns: tuple[Turn, ...]
    recording: RecordingRow | None
    steps: tuple[StepRow, ...]
    lead: LeadRow | None
    appointments: tuple[AppointmentRow, ...]
    deliveries: tuple[DeliveryRow, ...]

    def result(self, step: str) -> dict[str, Any]:
        """What a step found; empty if it is not done."""
        return next((row.result or {} for row in self.steps if row.step == step), {})

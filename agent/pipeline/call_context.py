"""What is known of a call when a step begins."""

from collections.abc import Mapping
from typing import Any

import attrs
from psycopg.rows import TupleRow

from agent.core.records import Turn
from agent.core.tenant import DEFAULT_TENANT_ID, Tenant
from agent.core.tenant_fields import normalise_number, zone_of
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.analysis.extraction import TranscriptLine, conversation_of
from agent.pipeline.recording.download import RecordingState
from agent.store.pg import Connection
from agent.store.sql.claims import Claim
from agent.store.sql.leads import appointments_in
from agent.store.sql.ledger import ClaimedCall, read_call, results_of, states_of
from agent.store.sql.recordings import recording_of
from agent.store.sql.tenants import get_tenant
from agent.store.sql.values import AppointmentRow, RecordingRow
from agent.store.sql.views import turns_of


@attrs.frozen
class CallContext:
    """What is known of a call when a step begins."""

    claim: Claim
    call: ClaimedCall
    tenant: Tenant
    turns: tuple[Turn, ...]
    appointments: tuple[AppointmentRow, ...]
    """Made in the call."""
    recording: RecordingRow | None
    results: Mapping[str, Mapping[str, Any]]
    """Of the steps that are done."""
    dead: Mapping[str, str]
    """Of the steps that were given up: why."""

    @property
    def call_sid(self) -> CallSid:
        """The carrier's name for the call."""
        return CallSid(self.call.call_sid)

    @property
    def told(self) -> RecordingState | None:
        """What the carrier told of the recording."""
        known = self.recording
        return RecordingState(RecordingSid(known.recording_sid), known.status) if known else None

    @property
    def phone(self) -> str:
        """The other party's number in E.164, or empty."""
        other = self.call.caller if self.call.direction == "inbound" else self.call.called
        try:
            return normalise_number(other)
        except ValueError:
            return ""

    def found(self, step: str) -> Mapping[str, Any] | None:
        """What an earlier step found; None if it was given up, or had nothing to do."""
        result = self.results.get(step)
        return None if result is None or "skipped" in result else result

    def conversation(self) -> tuple[TranscriptLine, ...]:
        """What was said: by the recording, if both were heard on it, else as written down during the call.

        At its end the appointments that were made, in the tenant's time.
        """
        return (*self._said(), *self._booked())

    def _said(self) -> tuple[TranscriptLine, ...]:
        transcription = self.found("transcription")
        if transcription is not None:
            lines = [
                TranscriptLine(part["channel"], part["text"], part["start_ms"] / 1000)
                for part in transcription["segments"]
                if part["channel"] != "unknown"
            ]
            if {line.role for line in lines} == {"caller", "agent"}:
                return tuple(lines)
        return conversation_of(self.turns)

    def _booked(self) -> tuple[TranscriptLine, ...]:
        zone = zone_of(self.tenant.time_zone)
        at_s = (self.call.ended_at - self.call.answered_at).total_seconds()
        lines = []
        for made in self.appointments:
            words = f"{made.starts_at.astimezone(zone):%A %Y-%m-%d at %H:%M}"
            lines.append(TranscriptLine("booked", f"{words}, {made.service}" if made.service else words, at_s))
        return tuple(lines)


async def read_context(connection: Connection[TupleRow], claim: Claim) -> CallContext:
    """Read what is known of a claimed call."""
    call = await read_call(connection, claim.call_id)
    tenant = await get_tenant(connection, call.tenant_id) or Tenant(DEFAULT_TENANT_ID, "")
    states = await states_of(connection, claim.call_id)
    return CallContext(
        claim=claim,
        call=call,
        tenant=tenant,
        turns=tuple(await turns_of(connection, claim.call_id)),
        appointments=tuple(await appointments_in(connection, claim.call_id)),
        recording=await recording_of(connection, claim.call_id),
        results=await results_of(connection, claim.call_id),
        dead={step: row["error"] for step, row in states.items() if row["state"] == "dead"},
    )

"""The seven steps after a call (PC-2): each does one thing, may be done again, and says what it found.

A step gets what is known and the instruments, and returns what it found, with the effect it wants to have in the
database: the worker writes both in one transaction, so the effect happens exactly once. What leaves this machine
(the webhook) happens at least once, under a key that stays the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import attrs
import msgspec
import trio
from psycopg.rows import TupleRow

from agent.errors import StepDeadError
from agent.pg import Connection
from agent.pipeline import call_completed as event
from agent.pipeline.analysis_request import is_worth_reading
from agent.pipeline.carrier_media import open_twilio_recordings
from agent.pipeline.extraction import Analyst, Extraction, Line, conversation_of
from agent.pipeline.openai_rest import open_analyst
from agent.pipeline.recordings import RecordingSource, fetch_recording
from agent.pipeline.transcribing import Transcriber, open_transcriber
from agent.pipeline.transcription import Segment
from agent.pipeline.webhook_delivery import Delivery, deliver
from agent.records import CallMetrics, Turn
from agent.settings import Settings
from agent.store import Database
from agent.store.leads import appointments_in, find_lead, upsert_lead
from agent.store.ledger import Claim, ClaimedCall, add_delivery, read_call, results_of, states_of
from agent.store.recordings import mark_downloaded, recording_of
from agent.store.tenants import get_tenant
from agent.store.values import AppointmentRow, LeadRow, LeadUpdate, RecordingRow
from agent.store.views import turns_of
from agent.tenancy.fields import normalise_number
from agent.tenancy.tenant import DEFAULT_TENANT_ID, Tenant
from agent.units import CallSid

_threads: Final = trio.CapacityLimiter(1)
_T = TypeVar("_T")

Effect = Callable[[Connection[TupleRow]], Awaitable[Mapping[str, Any] | None]]
"""Runs in the transaction that marks the step done; what it returns is added to the result."""


@attrs.frozen
class Found:
    """What a step found, JSON-ready, and what is to happen in the database with it."""

    result: Mapping[str, Any]
    effect: Effect | None = None


def skipped(why: str) -> Found:
    """There was nothing to do."""
    return Found({"skipped": why})


@attrs.frozen
class Instruments:
    """All that the steps use outside the database."""

    carrier: RecordingSource | None
    """None: there are no credentials for it."""
    transcriber: Transcriber
    analyst: Analyst
    recordings: Path
    """The folder that recordings are fetched into."""
    allow_inward: bool = False
    deliver: Callable[..., Awaitable[Delivery]] = deliver


@asynccontextmanager
async def open_instruments(settings: Settings) -> AsyncIterator[Instruments]:
    """The instruments that the settings ask for: with a key OpenAI's, else those of this machine."""
    async with AsyncExitStack() as stack:
        yield Instruments(
            carrier=await stack.enter_async_context(open_twilio_recordings(settings)),
            transcriber=await stack.enter_async_context(open_transcriber(settings)),
            analyst=await stack.enter_async_context(open_analyst(settings)),
            recordings=settings.data_dir.absolute() / "recordings",
            allow_inward=settings.allow_inward_webhooks,
        )


@attrs.frozen
class CallFacts:
    """What is known of a call when a step begins."""

    claim: Claim
    call: ClaimedCall
    tenant: Tenant
    turns: tuple[Turn, ...]
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

    def conversation(self) -> tuple[Line, ...]:
        """What was said: by the recording, if both were heard on it, else as written down during the call."""
        transcription = self.found("transcription")
        if transcription is not None:
            lines = [
                Line(part["channel"], part["text"], part["start_ms"] / 1000)
                for part in transcription["segments"]
                if part["channel"] != "unknown"
            ]
            if {line.role for line in lines} == {"caller", "agent"}:
                return tuple(lines)
        return conversation_of(self.turns)


async def read_facts(connection: Connection[TupleRow], claim: Claim) -> CallFacts:
    """Read what is known of a claimed call."""
    call = await read_call(connection, claim.call_id)
    tenant = await get_tenant(connection, call.tenant_id) or Tenant(DEFAULT_TENANT_ID, "")
    states = await states_of(connection, claim.call_id)
    return CallFacts(
        claim=claim,
        call=call,
        tenant=tenant,
        turns=tuple(await turns_of(connection, claim.call_id)),
        recording=await recording_of(connection, claim.call_id),
        results=await results_of(connection, claim.call_id),
        dead={step: row["error"] for step, row in states.items() if row["state"] == "dead"},
    )


async def _recording(facts: CallFacts, instruments: Instruments, _: Database) -> Found:
    """Fetch the carrier's recording. Of a call that crashed nobody knows whether there is one: it is asked."""
    if facts.recording is None and facts.call.has_record:
        return skipped("the call was not recorded")
    if instruments.carrier is None:
        if facts.recording is None:
            return skipped("nobody knows of one, and there are no credentials to ask the carrier")
        raise StepDeadError(
            "there are no credentials to fetch it: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN where the worker "
            "runs, then call-agent calls retry"
        )
    downloaded = await fetch_recording(facts, instruments.carrier, instruments.recordings)
    if downloaded is None:
        return skipped("the carrier has no recording of this call")

    async def note(connection: Connection[TupleRow]) -> None:
        await mark_downloaded(
            connection,
            facts.claim.call_id,
            downloaded.path.stem,
            path=str(downloaded.path),
            sha256=downloaded.sha256,
            size_bytes=downloaded.size_bytes,
            channels=downloaded.channels,
            duration_s=downloaded.duration_s,
        )

    return Found(downloaded.as_json(), note)


async def _transcription(facts: CallFacts, instruments: Instruments, _: Database) -> Found:
    """Write down what is said in the recording."""
    if facts.found("recording") is None:
        return skipped("there is no recording")
    if instruments.carrier is None:
        return skipped("there are no credentials for the carrier")
    # On another machine than the one that fetched it, it is fetched once more; else this only finds it.
    downloaded = await fetch_recording(facts, instruments.carrier, instruments.recordings)
    if downloaded is None:
        return skipped("there is no recording (any more)")
    transcription = await instruments.transcriber.transcribe(
        downloaded.path, language=facts.tenant.language, turns=facts.turns
    )
    return Found(transcription.as_json())


async def _summary(facts: CallFacts, instruments: Instruments, _: Database) -> Found:
    """Say in a few sentences what the call was about."""
    conversation = await _run(facts.conversation)
    if not is_worth_reading(conversation):
        return skipped("the caller said nothing")
    return Found({"text": await instruments.analyst.summarise(conversation, facts.tenant)})


async def _extraction(facts: CallFacts, instruments: Instruments, _: Database) -> Found:
    """Find name, city, service, intent, lead status and what is left to do."""
    conversation = await _run(facts.conversation)
    if not is_worth_reading(conversation):
        return skipped("the caller said nothing")
    return Found(attrs.asdict(await instruments.analyst.extract(conversation, facts.tenant)))


async def _lead(facts: CallFacts, _: Instruments, __: Database) -> Found:
    """Make the other party a lead, or add to the lead what was learnt."""
    if not facts.phone:
        return skipped("the other party's number is not known")
    found = facts.found("extraction") or {}
    update = LeadUpdate(
        facts.tenant.id,
        facts.phone,
        name=found.get("name", ""),
        city=found.get("city", ""),
        service=found.get("service", ""),
        note=found.get("follow_up", ""),
        call_id=facts.claim.call_id,
    )

    async def upsert(connection: Connection[TupleRow]) -> Mapping[str, Any]:
        return {"lead": await upsert_lead(connection, update)}

    return Found({"phone": facts.phone}, upsert)


async def _status(facts: CallFacts, _: Instruments, __: Database) -> Found:
    """Move the lead's status on, never back."""
    if facts.found("lead") is None:
        return skipped("there is no lead")
    found = facts.found("extraction") or {}

    async def move(connection: Connection[TupleRow]) -> Mapping[str, Any]:
        booked = await appointments_in(connection, facts.claim.call_id)
        status = "appointment" if booked else found.get("lead_status", "")
        await upsert_lead(connection, LeadUpdate(facts.tenant.id, facts.phone, status=status))
        lead = await find_lead(connection, facts.tenant.id, facts.phone)
        return {"status": lead.status if lead else status}

    return Found({}, move)


async def _webhook(facts: CallFacts, instruments: Instruments, database: Database) -> Found:
    """Tell the tenant's webhook everything. Raises DeliveryError or StepDeadError when it did not take it."""
    url, secret = facts.tenant.webhook_url, facts.tenant.webhook_secret
    if not url or not secret:
        return skipped("the tenant has no webhook")
    async with database.connection() as connection:
        lead = await find_lead(connection, facts.tenant.id, facts.phone) if facts.phone else None
        appointments = await appointments_in(connection, facts.claim.call_id)
    key = event.event_id(facts.call_sid)
    payload = await _run(make_payload, facts, lead, appointments)
    delivery = await instruments.deliver(payload, url, secret, key, allow_inward=instruments.allow_inward)

    async def note(connection: Connection[TupleRow]) -> None:
        await add_delivery(
            connection,
            facts.claim,
            key=key,
            url=event.public_url(url) or url,
            http_status=delivery.status,
            error=delivery.error,
            duration_ms=delivery.duration_ms,
        )

    if delivery.error is not None:
        async with database.connection() as connection:
            await note(connection)
        delivery.check()
    return Found({"http_status": delivery.status, "idempotency_key": key}, note)


def make_payload(facts: CallFacts, lead: LeadRow | None, appointments: Sequence[AppointmentRow]) -> bytes:
    """``call.completed`` of what is known now. Of an hour's call it takes 80 ms: not for the event loop."""
    call, tenant = facts.call, facts.tenant
    transcription, summary = facts.found("transcription"), facts.found("summary")
    extraction = facts.found("extraction")
    completed = event.CallCompleted(
        id=event.event_id(facts.call_sid),
        tenant=event.tenant_shown(tenant),
        call=event.call_shown(
            tenant,
            call_sid=facts.call_sid,
            direction=cast("Literal['inbound', 'outbound']", call.direction),
            caller=call.caller,
            called=call.called,
            answered_at=call.answered_at,
            ended_at=call.ended_at,
            outcome=call.outcome,
            reason=call.reason,
            dtmf=call.dtmf,
        ),
        transcript=event.turns_shown(facts.turns),
        recording=_recording_shown(facts.recording, tenant),
        transcription=(
            event.segments_shown(Segment(**part) for part in transcription["segments"]) if transcription else None
        ),
        summary=summary["text"] if summary else None,
        extraction=event.extraction_shown(Extraction(**extraction)) if extraction else None,
        lead=(
            event.LeadShown(
                id=lead.id,
                phone=lead.phone,
                name=lead.name,
                city=lead.city,
                service=lead.service,
                status=lead.status,
                note=lead.note,
            )
            if lead
            else None
        ),
        lead_status=lead.status if lead else None,
        appointments=tuple(
            event.AppointmentShown(
                id=made.id,
                starts_at=event.moment(made.starts_at, tenant.time_zone),
                service=made.service or None,
                name=made.name or None,
                phone=made.phone,
                note=made.note or None,
            )
            for made in appointments
        ),
        metrics=msgspec.convert(call.metrics, CallMetrics) if call.metrics else None,
        dead_steps=event.dead_steps_shown(facts.dead),
    )
    return event.encode(completed)


def _recording_shown(row: RecordingRow | None, tenant: Tenant) -> event.RecordingShown | None:
    if row is None:
        return None
    return event.RecordingShown(
        sid=row.recording_sid,
        status=row.status,
        url=None if row.deleted_at else event.public_url(row.url),
        duration_s=row.duration_s,
        channels=row.channels,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        deleted_at=event.moment(row.deleted_at, tenant.time_zone) if row.deleted_at else None,
    )


async def _run(work: Callable[..., _T], *arguments: Any) -> _T:
    """Computing over a long call, off the event loop (ST-3); a cancel waits for it."""
    return await trio.to_thread.run_sync(work, *arguments, limiter=_threads)


StepFunction = Callable[[CallFacts, Instruments, Database], Awaitable[Found]]
"""Raises NotReadyError (later, not an attempt), StepDeadError (never), anything else: an attempt failed."""

STEP_FUNCTIONS: Final[Mapping[str, StepFunction]] = {
    "recording": _recording,
    "transcription": _transcription,
    "summary": _summary,
    "extraction": _extraction,
    "lead": _lead,
    "status": _status,
    "webhook": _webhook,
}

"""The seven steps after a call (PC-2): each does one thing, may be done again, and says what it found.

A step gets what is known and the backends, and returns what it found, with the effect it wants to have in the
database: the worker writes both in one transaction, so the effect happens exactly once. What leaves this machine
(the webhook) happens at least once, under a key that stays the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import trio
from psycopg.rows import TupleRow

from agent.core.errors import StepDeadError
from agent.pipeline.analysis.request import is_worth_reading
from agent.pipeline.backends import Backends
from agent.pipeline.call_context import CallContext
from agent.pipeline.recording.download import fetch_recording
from agent.pipeline.transcription.transcription import fill_turns
from agent.pipeline.webhook import call_completed as event
from agent.pipeline.webhook.payload import make_payload
from agent.store import Database
from agent.store.pg import Connection
from agent.store.sql.calls import replace_words
from agent.store.sql.leads import find_lead, upsert_lead
from agent.store.sql.ledger import add_delivery
from agent.store.sql.recordings import mark_downloaded
from agent.store.sql.values import LeadUpdate

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


async def _recording(facts: CallContext, backends: Backends, _: Database) -> Found:
    """Fetch the carrier's recording. Of a call that crashed nobody knows whether there is one: it is asked."""
    if facts.recording is None and facts.call.has_record:
        return skipped("the call was not recorded")
    if backends.carrier is None:
        if facts.recording is None:
            return skipped("nobody knows of one, and there are no credentials to ask the carrier")
        raise StepDeadError(
            "there are no credentials to fetch it: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN where the worker "
            "runs, then call-agent calls retry"
        )
    downloaded = await fetch_recording(facts.call_sid, facts.told, backends.carrier, backends.recordings)
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


async def _transcription(facts: CallContext, backends: Backends, _: Database) -> Found:
    """Write down what is said in the recording, and give the caller's turns words that have none."""
    if facts.found("recording") is None:
        return skipped("there is no recording")
    if backends.carrier is None:
        return skipped("there are no credentials for the carrier")
    # On another machine than the one that fetched it, it is fetched once more; else this only finds it.
    downloaded = await fetch_recording(facts.call_sid, facts.told, backends.carrier, backends.recordings)
    if downloaded is None:
        return skipped("there is no recording (any more)")
    transcription = await backends.transcriber.transcribe(
        downloaded.path, language=facts.tenant.language, turns=facts.turns
    )
    turns = await _run(fill_turns, facts.turns, transcription.segments, facts.call.recorded_from_ms)

    async def fill(connection: Connection[TupleRow]) -> None:
        await replace_words(connection, facts.claim.call_id, turns)

    return Found(transcription.as_json(), fill)


async def _summary(facts: CallContext, backends: Backends, _: Database) -> Found:
    """Say in a few sentences what the call was about."""
    conversation = await _run(facts.conversation)
    if not is_worth_reading(conversation):
        return skipped("the caller said nothing")
    return Found({"text": await backends.analyst.summarise(conversation, facts.tenant)})


async def _extraction(facts: CallContext, backends: Backends, _: Database) -> Found:
    """Find name, city, service, intent, lead status and what is left to do."""
    conversation = await _run(facts.conversation)
    if not is_worth_reading(conversation):
        return skipped("the caller said nothing")
    return Found(attrs.asdict(await backends.analyst.extract(conversation, facts.tenant)))


async def _lead(facts: CallContext, _: Backends, __: Database) -> Found:
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


async def _status(facts: CallContext, _: Backends, __: Database) -> Found:
    """Move the lead's status on, never back."""
    if facts.found("lead") is None:
        return skipped("there is no lead")
    found = facts.found("extraction") or {}

    status = "appointment" if facts.appointments else found.get("lead_status", "")

    async def move(connection: Connection[TupleRow]) -> Mapping[str, Any]:
        await upsert_lead(connection, LeadUpdate(facts.tenant.id, facts.phone, status=status))
        lead = await find_lead(connection, facts.tenant.id, facts.phone)
        return {"status": lead.status if lead else status}

    return Found({}, move)


async def _webhook(facts: CallContext, backends: Backends, database: Database) -> Found:
    """Tell the tenant's webhook everything. Raises DeliveryError or StepDeadError when it did not take it."""
    url, secret = facts.tenant.webhook_url, facts.tenant.webhook_secret
    if not url or not secret:
        return skipped("the tenant has no webhook")
    async with database.connection() as connection:
        lead = await find_lead(connection, facts.tenant.id, facts.phone) if facts.phone else None
    key = event.event_id(facts.call_sid)
    payload = await _run(make_payload, facts, lead)
    delivery = await backends.deliver(payload, url, secret, key, allow_inward=backends.allow_inward)

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


async def _run(work: Callable[..., _T], *arguments: Any) -> _T:
    """Run a computation over a long call in a thread (ST-3); a cancel waits for it."""
    return await trio.to_thread.run_sync(work, *arguments, limiter=_threads)


StepFunction = Callable[[CallContext, Backends, Database], Awaitable[Found]]
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

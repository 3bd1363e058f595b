"""Twilio's webhooks: what to do with a call (TwiML), and how a call goes on. Signed, bounded, from memory."""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal, cast, get_args
from urllib.parse import parse_qsl

import attrs
import psycopg
import trio
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.datastructures import ImmutableMultiDict

from agent.carrier import twiml
from agent.carrier.front_door import STREAM_PATH
from agent.carrier.noise import Noise
from agent.carrier.replays import Replays, request_key
from agent.carrier.signature import SignatureCheck, stream_url
from agent.carrier.stream_events import stream_trouble
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.core.admission import Admission
from agent.core.errors import AdmissionError, AgentError
from agent.core.event_log import EventLog
from agent.core.records import RecordingCallback, RecordingStatus
from agent.core.tenant import DEFAULT_TENANT_ID, Tenant
from agent.core.units import CallSid, RecordingSid, is_call_sid
from agent.store.tenant_directory import TenantDirectory
from agent.web.asgi import Origin

MAX_FIELDS: Final = 200
"""Twilio posts about 30 fields in 1.5 KB."""
MACHINES: Final = ("machine", "fax")
"""How Twilio's AnsweredBy begins when no human answered."""

RECORDING_TOLD_S: Final = 5.0
"""How long keeping a recording's status may take; Twilio waits for 15 seconds."""
_SID: Final = re.compile("[A-Z]{2}[0-9A-Za-z]{1,62}")
_RECORDING_STATUSES: Final = get_args(RecordingStatus)
_MOST_EVENT: Final = 40
_MOST_URL: Final = 2048
_MOST_RECORDING_S: Final = 48 * 3600
_MOST_CHANNELS: Final = 2

Fields = ImmutableMultiDict[str, str]


async def forget(_: RecordingCallback) -> None:
    """For a server without a store: whoever works on the call asks the carrier itself."""
    await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class VoiceWebhooks:
    """What the web side needs of the server.

    ``recording_told`` keeps what the carrier tells of a recording; what it may raise is AgentError, OSError and
    psycopg.Error.
    """

    check: SignatureCheck
    tokens: StreamTokens
    events: EventLog
    admission: Admission
    replays: Replays
    recording_told: Callable[[RecordingCallback], Awaitable[None]] = forget
    tenants: TenantDirectory = attrs.field(factory=lambda: TenantDirectory(Tenant(DEFAULT_TENANT_ID, "")))
    """Whose calls are taken, and which language is theirs."""
    stream_path: str = STREAM_PATH
    """Where this process wants the streams of its calls."""
    noise: Noise = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.noise = Noise(self.events)

    def check_signature(self, request: Request, fields: Fields) -> None:
        """Raise HTTPException unless Twilio sent this: 403, saying why and what to set; 400 without a call."""
        origin, target = _origin(request), _target(request)
        try:
            self.check.check_webhook(origin.base, target, request.headers, fields)
        except AdmissionError as error:
            self.noise.tell("WEBHOOK_REFUSED", "warning", path=target, kind=error.kind, address=origin.client)
            raise HTTPException(403, error.detail) from None
        if not is_call_sid(fields.get("CallSid", "")):
            raise HTTPException(400, "the request has no CallSid of Twilio's: is this its voice webhook?")
        origin.vouch()

    async def answer_call(
        self, direction: Literal["inbound", "outbound"], request: Request, fields: Fields
    ) -> str:
        """TwiML for a call. The same request gets the same TwiML with the same token, and takes no other line."""
        key = request_key(_target(request), fields.multi_items())
        first = self.replays.known(key)
        if first is None:
            answer = self.take_call(direction, self.check.base(_origin(request).base), fields)
            first = await self.replays.first(key, answer)
            if first == answer:
                return first
            self.tokens.withdraw(CallSid(fields["CallSid"]))
        self.events.count("WEBHOOK_REPEATED")
        return first

    def take_call(self, direction: Literal["inbound", "outbound"], base: str, fields: Fields) -> str:
        """TwiML for a call: connected to its media stream, or refused politely."""
        call_sid = CallSid(fields["CallSid"])
        ticket = CallTicket(call_sid, direction, fields.get("From", ""), fields.get("To", ""))
        tenant = self.tenants.of_call(direction, ticket.caller, ticket.called)
        if tenant is None:
            self.events.emit("CALL_REFUSED", "warning", call=call_sid, reason="a number of no tenant")
            return twiml.refuse_politely(twiml.UNKNOWN_NUMBER, self.tenants.default.language)
        reason = self.admission.refusal(trio.current_time())
        if reason:
            self.events.emit("CALL_REFUSED", "warning", call=call_sid, reason=reason)
            return twiml.refuse_politely(twiml.BUSY, tenant.language)
        self.events.emit("CALL_ANNOUNCED", call=call_sid, direction=direction)
        # Unix time: a token may be checked on another machine than the one that issued it.
        token = self.tokens.issue(ticket, time.time())
        self.admission.promise()
        return twiml.connect_stream(stream_url(base, self.stream_path), token, f"{base}/voice/stream")

    def stream_told(self, fields: Fields) -> None:
        """Log what Twilio tells of a stream; of an error what it means and what to do."""
        about = {"call": fields.get("CallSid", ""), "stream": fields.get("StreamSid", "")}
        event = fields.get("StreamEvent", "unknown")
        if event == "stream-error":
            self.events.emit("STREAM_ERROR", "error", **about, **stream_trouble(fields.get("StreamError", "")))
        else:
            self.events.emit("STREAM_STATUS", "info", **about, status=event[:_MOST_EVENT])

    async def keep_recording(self, told: RecordingCallback, key: bytes) -> None:
        """Have it kept, once. Raises HTTPException 503 after RECORDING_TOLD_S: Twilio has a fallback."""
        if self.replays.known(key) is not None:
            self.events.count("WEBHOOK_REPEATED")
            return
        self.events.emit("RECORDING_STATUS", call=told.call_sid, recording=told.recording_sid, status=told.status)
        try:
            with trio.fail_after(RECORDING_TOLD_S):
                await self.recording_told(told)
        except (AgentError, OSError, psycopg.Error, trio.TooSlowError) as error:
            self.events.emit("RECORDING_NOT_NOTED", "warning", call=told.call_sid, error=repr(error)[:200])
            raise HTTPException(503, "the recording's status could not be kept; try again") from None
        await self.replays.first(key, "kept")


def voice_routes(webhooks: VoiceWebhooks) -> APIRouter:
    """``POST /voice/incoming``, ``/outgoing``, ``/status``, ``/stream`` and ``/recording``, for Twilio alone."""
    routes = APIRouter(prefix="/voice")

    async def signed_fields(request: Request) -> Fields:
        fields = await _read_form(request)
        webhooks.check_signature(request, fields)
        return fields

    signed = Annotated[Fields, Depends(signed_fields)]

    @routes.post("/incoming")
    async def incoming(request: Request, fields: signed) -> Response:
        """Twilio asks what to do with an inbound call."""
        return _xml(await webhooks.answer_call("inbound", request, fields))

    @routes.post("/outgoing")
    async def outgoing(request: Request, fields: signed) -> Response:
        """Twilio asks what to do with a call of ours that was answered."""
        answered_by = fields.get("AnsweredBy", "")
        if answered_by.startswith(MACHINES):
            webhooks.events.emit("MACHINE_ANSWERED", call=fields.get("CallSid", ""), answered_by=answered_by)
            return _xml(twiml.hang_up())
        return _xml(await webhooks.answer_call("outbound", request, fields))

    @routes.post("/status", status_code=204)
    async def status(fields: signed) -> None:
        """Twilio tells how a call goes on."""
        state = fields.get("CallStatus", "unknown")
        webhooks.events.emit("CALL_STATUS", call=fields.get("CallSid", ""), status=state)

    @routes.post("/stream", status_code=204)
    async def stream(fields: signed) -> None:
        """Twilio tells how a media stream goes on."""
        webhooks.stream_told(fields)

    @routes.post("/recording", status_code=204)
    async def recording(request: Request, fields: signed) -> None:
        """Twilio tells how a recording goes on."""
        key = request_key(_target(request), fields.multi_items())
        await webhooks.keep_recording(read_recording_callback(fields), key)

    return routes


def read_recording_callback(fields: Fields) -> RecordingCallback:
    """The fields of a recording's status callback, bounded. Raises HTTPException 400 for what is none.

    Source: https://www.twilio.com/docs/voice/api/recording-resource, RecordingStatusCallback parameters.
    """
    call_sid, recording_sid = fields.get("CallSid", ""), fields.get("RecordingSid", "")
    status = fields.get("RecordingStatus", "")
    if not is_call_sid(call_sid) or not _SID.fullmatch(recording_sid) or status not in _RECORDING_STATUSES:
        raise HTTPException(400, "no CallSid, RecordingSid and RecordingStatus as Twilio sends them")
    url = fields.get("RecordingUrl", "")
    return RecordingCallback(
        CallSid(call_sid),
        RecordingSid(recording_sid),
        cast("RecordingStatus", status),
        url if len(url) <= _MOST_URL else "",
        _number(fields.get("RecordingDuration", ""), _MOST_RECORDING_S),
        _number(fields.get("RecordingChannels", ""), _MOST_CHANNELS),
    )


def _number(text: str, most: int) -> int | None:
    """A whole number from 0 to ``most``; None for anything else (Twilio says -1 for an unknown duration)."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    return int(text) if digits and int(text) <= most else None


async def _read_form(request: Request) -> Fields:
    """The posted fields; the door has bounded the body. Raises HTTPException 400 for what is no form."""
    try:
        pairs = parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, "the body is not a form in UTF-8 of at most 200 fields") from None
    return ImmutableMultiDict(pairs)


def _target(request: Request) -> str:
    """Path and query as they were sent."""
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _origin(request: Request) -> Origin:
    origin: Origin = request.state.origin
    return origin


def _xml(text: str) -> Response:
    return Response(text, media_type="application/xml")

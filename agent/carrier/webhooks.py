"""Twilio's webhooks: what to do with a call (TwiML), and how a call goes on. Signed, bounded, from memory."""

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Final, Literal, cast, get_args
from urllib.parse import parse_qsl

import attrs
import psycopg
import trio
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.datastructures import ImmutableMultiDict

from agent.carrier import twiml
from agent.carrier.signature import SignatureCheck, public_base, stream_url
from agent.carrier.stream_events import stream_trouble
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.core.errors import AdmissionError, AgentError
from agent.core.event_log import EventLog
from agent.core.records import RecordingCallback, RecordingStatus
from agent.core.tenant import DEFAULT_TENANT_ID, Tenant
from agent.core.units import CallSid, RecordingSid
from agent.store.tenant_directory import TenantDirectory

STREAM_PATH: Final = "/media-stream"
BODY_S: Final = 5.0
MAX_BODY_BYTES: Final = 64 * 1024
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

    ``not_ready`` says why no call can be taken now, or nothing; ``is_full`` whether all lines are taken.
    ``recording_told`` keeps what the carrier tells of a recording; what it may raise is AgentError, OSError and
    psycopg.Error.
    """

    check: SignatureCheck
    tokens: StreamTokens
    events: EventLog
    not_ready: Callable[[], str]
    is_full: Callable[[], bool]
    recording_told: Callable[[RecordingCallback], Awaitable[None]] = forget
    tenants: TenantDirectory = attrs.field(factory=lambda: TenantDirectory(Tenant(DEFAULT_TENANT_ID, "")))
    """Whose calls are taken, and which language is theirs."""

    def base(self, request: Request) -> str:
        """The URL by which whoever asks reached us, without a path of ours."""
        return public_base(self.check.public_url, request.headers)

    def check_signature(self, request: Request, fields: Fields) -> None:
        """Raise HTTPException 403, saying why and what to set, unless Twilio sent this."""
        path = request.scope["raw_path"].decode("latin-1")
        query = request.scope["query_string"].decode("latin-1")
        try:
            self.check.check_webhook(f"{path}?{query}" if query else path, request.headers, fields)
        except AdmissionError as error:
            self.events.emit("WEBHOOK_REFUSED", "warning", path=path, kind=error.kind)
            raise HTTPException(403, error.detail) from None

    def take_call(self, direction: Literal["inbound", "outbound"], base: str, fields: Fields) -> str:
        """TwiML for a call: connected to its media stream, or refused politely."""
        call_sid = CallSid(fields.get("CallSid", ""))
        if not call_sid:
            raise HTTPException(400, "the request has no CallSid: is this Twilio's voice webhook?")
        ticket = CallTicket(call_sid, direction, fields.get("From", ""), fields.get("To", ""))
        tenant = self.tenants.of_call(direction, ticket.caller, ticket.called)
        if tenant is None:
            self.events.emit("CALL_REFUSED", "warning", call=call_sid, reason="a number of no tenant")
            return twiml.refuse_politely(twiml.UNKNOWN_NUMBER, self.tenants.default.language)
        reason = self.not_ready() or ("all lines are busy" if self.is_full() else "")
        if reason:
            self.events.emit("CALL_REFUSED", "warning", call=call_sid, reason=reason)
            return twiml.refuse_politely(twiml.BUSY, tenant.language)
        self.events.emit("CALL_ANNOUNCED", call=call_sid, direction=direction)
        # Unix time: a token may be checked on another machine than the one that issued it.
        token = self.tokens.issue(ticket, time.time())
        return twiml.connect_stream(stream_url(base, STREAM_PATH), token, f"{base}/voice/stream")

    def stream_told(self, fields: Fields) -> None:
        """Log what Twilio tells of a stream; of an error what it means and what to do."""
        about = {"call": fields.get("CallSid", ""), "stream": fields.get("StreamSid", "")}
        event = fields.get("StreamEvent", "unknown")
        if event == "stream-error":
            self.events.emit("STREAM_ERROR", "error", **about, **stream_trouble(fields.get("StreamError", "")))
        else:
            self.events.emit("STREAM_STATUS", "info", **about, status=event[:_MOST_EVENT])

    async def keep_recording(self, told: RecordingCallback) -> None:
        """Have it kept, within RECORDING_TOLD_S. Raises HTTPException 503, so that Twilio's fallback can try."""
        self.events.emit("RECORDING_STATUS", call=told.call_sid, recording=told.recording_sid, status=told.status)
        try:
            with trio.fail_after(RECORDING_TOLD_S):
                await self.recording_told(told)
        except (AgentError, OSError, psycopg.Error, trio.TooSlowError) as error:
            self.events.emit("RECORDING_NOT_NOTED", "warning", call=told.call_sid, error=repr(error)[:200])
            raise HTTPException(503, "the recording's status could not be kept; try again") from None


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
        return _xml(webhooks.take_call("inbound", webhooks.base(request), fields))

    @routes.post("/outgoing")
    async def outgoing(request: Request, fields: signed) -> Response:
        """Twilio asks what to do with a call of ours that was answered."""
        answered_by = fields.get("AnsweredBy", "")
        if answered_by.startswith(MACHINES):
            webhooks.events.emit("MACHINE_ANSWERED", call=fields.get("CallSid", ""), answered_by=answered_by)
            return _xml(twiml.hang_up())
        return _xml(webhooks.take_call("outbound", webhooks.base(request), fields))

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
    async def recording(fields: signed) -> None:
        """Twilio tells how a recording goes on."""
        await webhooks.keep_recording(read_recording_callback(fields))

    return routes


def read_recording_callback(fields: Fields) -> RecordingCallback:
    """The fields of a recording's status callback, bounded. Raises HTTPException 400 for what is none.

    Source: https://www.twilio.com/docs/voice/api/recording-resource, RecordingStatusCallback parameters.
    """
    call_sid, recording_sid = fields.get("CallSid", ""), fields.get("RecordingSid", "")
    status = fields.get("RecordingStatus", "")
    if not _SID.fullmatch(call_sid) or not _SID.fullmatch(recording_sid) or status not in _RECORDING_STATUSES:
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
    """The posted fields. Raises HTTPException: 408 too slow, 413 too large, 400 not a form."""
    body = bytearray()
    try:
        with trio.fail_after(BODY_S):
            async with aclosing(request.stream()) as parts:
                async for part in parts:
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        raise HTTPException(413, f"more than {MAX_BODY_BYTES} bytes were posted")
    except trio.TooSlowError:
        raise HTTPException(408, f"the posted fields took more than {BODY_S:.0f} s") from None
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HTTPException(400, "the body is not a form in UTF-8 of at most 200 fields") from None
    return ImmutableMultiDict(pairs)


def _xml(text: str) -> Response:
    return Response(text, media_type="application/xml")

"""Where media streams are admitted: signature, lines left, and the token that says which call it is."""

import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from agent.carrier.media_stream import Start
from agent.carrier.noise import Noise
from agent.carrier.replays import Replays, token_key
from agent.carrier.signature import SignatureCheck
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.carrier.twiml import TOKEN_PARAMETER
from agent.core.admission import BUSY, Admission
from agent.core.errors import AdmissionError
from agent.core.event_log import EventLog
from agent.core.units import is_call_sid
from agent.web.asgi import Origin
from agent.web.head import RequestHead
from agent.wire.websocket import Handshake, MessageSocket

Admit = Callable[[Start], Awaitable[CallTicket]]
AnswerCall = Callable[[MessageSocket, Admit], Awaitable[None]]
FORBIDDEN: Final = 403
UNAVAILABLE: Final = 503
START_S: Final = 3.0
"""How long an accepted stream may take to say which call it is; Twilio does at once."""


@attrs.define(eq=False)
class StreamAdmission:
    """Accepts or rejects the handshakes of media streams and has each accepted one answered.

    ``answer`` serves one call and raises nothing but Cancelled.
    """

    check: SignatureCheck
    tokens: StreamTokens
    events: EventLog
    admission: Admission
    answer: AnswerCall
    replays: Replays
    noise: Noise = attrs.field(init=False)
    _open: int = 0
    _emptied: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.noise = Noise(self.events)

    async def serve(self, handshake: Handshake, head: RequestHead, origin: Origin) -> None:
        """Serve one handshake: an HTTP error, or the whole call. ``head`` is all of what the peer asked.

        A stream has a line from the moment its call is admitted: one that says nothing for START_S, or nothing
        true, never has.
        """
        try:
            self.check.check_stream(origin.base, head.target, head.headers)
        except AdmissionError as error:
            self.noise.tell("STREAM_REFUSED", "warning", kind=error.kind, address=origin.client)
            await handshake.reject(FORBIDDEN, f"{error.detail}\n")
            return
        admission = self.admission
        reason = admission.not_ready() or (BUSY if admission.is_full else "")
        if reason:
            self.noise.tell("STREAM_REFUSED", "warning", kind="unavailable", reason=reason)
            await handshake.reject(UNAVAILABLE, f"{reason}\n")
            return
        socket = await handshake.accept()
        line = _Line(self, origin)
        try:
            with trio.CancelScope(deadline=trio.current_time() + START_S) as line.waiting:
                await self.answer(socket, line.admit)
            if line.waiting.cancelled_caught:
                self.noise.tell("STREAM_REFUSED", "warning", kind="no_start", address=origin.client)
        finally:
            try:
                await socket.aclose()  # noqa: ASYNC102 - it shields and bounds itself
            finally:
                self._give_back(line)

    def _give_back(self, line: "_Line") -> None:
        if line.is_taken:
            self.admission.give_back()
            self._open -= 1
        if self._open == 0:
            self._emptied.set()

    def take_line(self) -> None:
        """Count one more open stream. Raises AdmissionError when there are enough."""
        self.admission.take_line()
        if self._open == 0:
            self._emptied = trio.Event()
        self._open += 1

    async def wait_empty(self) -> None:
        """Wait until no stream is open."""
        while self._open:
            await self._emptied.wait()

    async def identify(self, start: Start) -> CallTicket:
        """What the webhook knew about the call of this stream; its token is used up.

        Raises AdmissionError. Only with AGENT_ALLOW_UNSIGNED may the token be missing; a wrong one is refused.
        """
        if not is_call_sid(start.call_sid):
            raise AdmissionError("call_sid", "the stream's callSid is none")
        token = start.custom_parameters.get(TOKEN_PARAMETER, "")
        if not token and self.check.allow_unsigned:
            await trio.lowlevel.checkpoint()
            return CallTicket(start.call_sid, "inbound", "", "")
        ticket = self.tokens.admit(token, start.call_sid, time.time())
        ours = secrets.token_urlsafe(9)
        if await self.replays.first(token_key(token), ours) != ours:
            raise AdmissionError("token_reused", "the stream's token was used before")
        return ticket


@attrs.define(eq=False)
class _Line:
    """One stream on its way from the handshake to its call."""

    admission: StreamAdmission
    origin: Origin
    waiting: trio.CancelScope = attrs.field(init=False)
    is_taken: bool = False

    async def admit(self, start: Start) -> CallTicket:
        """The call's ticket; from now on the stream has a line. Raises AdmissionError."""
        ticket = await self.admission.identify(start)
        self.admission.take_line()
        self.is_taken = True
        self.waiting.deadline = math.inf
        self.origin.vouch()
        return ticket

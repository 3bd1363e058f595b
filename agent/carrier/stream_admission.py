"""Where media streams are admitted: signature, lines left, and the token that says which call it is."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from agent.carrier.http_head import RequestHead
from agent.carrier.media_stream import Start
from agent.carrier.signature import SignatureCheck
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.carrier.twiml import TOKEN_PARAMETER
from agent.core.errors import AdmissionError
from agent.core.event_log import EventLog
from agent.wire.websocket import Handshake, MessageSocket

Admit = Callable[[Start], CallTicket]
AnswerCall = Callable[[MessageSocket, Admit], Awaitable[None]]
FORBIDDEN: Final = 403
UNAVAILABLE: Final = 503


@attrs.define(eq=False)
class StreamAdmission:
    """Accepts or rejects the handshakes of media streams and has each accepted one answered.

    ``answer`` serves one call and raises nothing but Cancelled; ``not_ready`` says why no call can be taken.
    """

    check: SignatureCheck
    tokens: StreamTokens
    events: EventLog
    max_streams: int
    answer: AnswerCall
    not_ready: Callable[[], str]
    _open: int = 0
    _emptied: trio.Event = attrs.field(factory=trio.Event)

    @property
    def is_full(self) -> bool:
        """Whether all lines are taken by streams."""
        return self._open >= self.max_streams

    @property
    def is_promised(self) -> bool:
        """Whether all lines are taken, counting those of calls whose streams are on their way."""
        return self._open + self.tokens.promised(time.time()) >= self.max_streams

    async def serve(self, handshake: Handshake, head: RequestHead) -> None:
        """Serve one handshake: an HTTP error, or the whole call. ``head`` is all of what the peer asked."""
        try:
            self.check.check_stream(head.target, head.headers)
        except AdmissionError as error:
            self.events.emit("STREAM_REFUSED", "warning", kind=error.kind)
            await handshake.reject(FORBIDDEN, f"{error.detail}\n")
            return
        reason = self.not_ready() or ("all lines are busy" if self.is_full else "")
        if reason:
            self.events.emit("STREAM_REFUSED", "warning", kind="unavailable", reason=reason)
            await handshake.reject(UNAVAILABLE, f"{reason}\n")
            return
        if self._open == 0:
            self._emptied = trio.Event()
        self._open += 1
        try:
            socket = await handshake.accept()
            try:
                await self.answer(socket, self.admit)
            finally:
                await socket.aclose()
        finally:
            self._open -= 1
            if self._open == 0:
                self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until no stream is open."""
        while self._open:
            await self._emptied.wait()

    def admit(self, start: Start) -> CallTicket:
        """What the webhook knew about the call of this stream.

        Raises AdmissionError. Only with AGENT_ALLOW_UNSIGNED may the token be missing; a wrong one is refused.
        """
        token = start.custom_parameters.get(TOKEN_PARAMETER, "")
        if not token and self.check.allow_unsigned:
            return CallTicket(start.call_sid, "inbound", "", "")
        return self.tokens.admit(token, start.call_sid, time.time())

"""From a browser's WebSocket to its call: who is admitted, and which connection carries which call."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import trio
from typing_extensions import override

from agent.browser.admission import BrowserAdmission
from agent.browser.decoding import Decoding, DecodingObserver
from agent.browser.line import SILENT_S, WINDOW_S, BrowserLine, LineObserver, LineTakenError
from agent.browser.messages import (
    VERSION,
    WEBM_OPUS,
    BrowserDecoder,
    BrowserEncoder,
    BrowserScreen,
    Close,
    Hello,
    Resume,
    decode_opening,
    encode,
)
from agent.call.leg import CallerLeg
from agent.call.screen import LAST_TURNS
from agent.call.services import CallServices
from agent.carrier.replays import Replays, token_key
from agent.carrier.stream_token import CallTicket
from agent.core.audio_format import PCM16_24K
from agent.core.errors import AdmissionError, AgentError, MalformedMessageError, SocketClosedError
from agent.core.event_log import EventLog
from agent.core.task_nursery import open_task_nursery
from agent.core.units import CallSid, StreamSid
from agent.nursery_call import run_call
from agent.web.asgi import Origin
from agent.web.head import RequestHead
from agent.wire.websocket import Handshake, MessageSocket

FORBIDDEN: Final = 403
HELLO_S: Final = 10.0
"""How long a connection may take to say what it wants."""
LAST_WORD_S: Final = 1.0
"""How long the browser may take to read why the call ended."""
NO_LOW_BANDWIDTH: Final = "low bandwidth is not available: pip install 'call-agent[browser]' on the server"
STUCK_S: Final = SILENT_S + WINDOW_S + 2.0
"""A write may wait for a broken connection to be noticed, and for the next one."""


class _RefusedError(AgentError):
    """A connection is closed with one of our codes."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@attrs.define(eq=False)
class BrowserCalls:
    """The browsers' calls of this process. ``serve`` gets one accepted WebSocket after the other."""

    services: CallServices
    admission: BrowserAdmission
    make_decoding: Callable[[DecodingObserver], Decoding] | None = None
    """For a call in low bandwidth; None: none can be taken."""
    path: str = "browser-stream"
    """Where browsers come again to their calls here, relative to the server's URL."""
    replays: Replays = attrs.field()
    _calls: dict[str, BrowserLine] = attrs.field(factory=dict)
    _emptied: trio.Event = attrs.field(factory=trio.Event)

    @replays.default
    def _of_this_process(self) -> Replays:
        return Replays(self.services.events)

    async def serve_handshake(self, handshake: Handshake, head: RequestHead, origin: Origin) -> None:
        """Answer a browser's handshake: an HTTP error, or the connection."""
        try:
            site = self.admission.check(origin.client, head.headers)
        except AdmissionError as error:
            self.services.events.emit("BROWSER_REFUSED", "warning", kind=error.kind)
            await handshake.reject(FORBIDDEN, f"{error.detail}\n")
            return
        await self.serve(await handshake.accept(), site, origin.vouch)

    async def serve(self, socket: MessageSocket, site: str, vouch: Callable[[], None] = lambda: None) -> None:
        """Serve one connection: a new call, or the next connection of one. Raises nothing but Cancelled.

        ``vouch`` is called when its token is found to be good.
        """
        code, reason = 1000, ""
        try:
            with trio.fail_after(HELLO_S):
                opening = decode_opening(await socket.receive())
            if isinstance(opening, Resume):
                await self._resume(socket, opening, vouch)
            else:
                await self._begin(socket, opening, site, vouch)
        except trio.TooSlowError:
            code, reason = Close.NO_HELLO, "the page said nothing"
        except MalformedMessageError as error:
            code, reason = Close.BAD_MESSAGE, error.detail[:100]
        except AdmissionError as error:
            code, reason = Close.BAD_TOKEN, error.detail
            self.services.events.emit("BROWSER_REFUSED", "warning", kind=error.kind)
        except _RefusedError as refused:
            code, reason = refused.code, refused.reason
        except SocketClosedError as closed:
            self.services.events.emit("BROWSER_LEFT", "debug", code=closed.code)
        finally:
            await socket.aclose(code, reason)  # noqa: ASYNC102 - it shields and bounds itself

    async def wait_empty(self) -> None:
        """Wait until there is no call."""
        while self._calls:
            await self._emptied.wait()

    async def _resume(self, socket: MessageSocket, opening: Resume, vouch: Callable[[], None]) -> None:
        line = self._calls.get(opening.call)
        if line is None or not secrets.compare_digest(line.token.encode(), opening.token.encode()):
            raise _RefusedError(Close.GONE, "this call is over")
        vouch()
        try:
            await line.serve(socket, opening.received)
        except LineTakenError as taken:
            raise _RefusedError(Close.ELSEWHERE, str(taken)) from None

    async def _begin(self, socket: MessageSocket, opening: Hello, site: str, vouch: Callable[[], None]) -> None:
        if opening.version != VERSION:
            raise _RefusedError(Close.OTHER_RELEASE, "the page is of another release; load it again")
        if (opening.rate, opening.channels) != (PCM16_24K.rate_hz, 1):
            raise _RefusedError(Close.BAD_AUDIO, f"audio is mono at {PCM16_24K.rate_hz} Hz")
        if opening.format == WEBM_OPUS and self.make_decoding is None:
            raise _RefusedError(Close.BAD_AUDIO, NO_LOW_BANDWIDTH)
        lines = self.services.admission
        reason = lines.refusal(trio.current_time())
        if reason:
            raise _RefusedError(Close.BUSY, reason)
        try:
            lines.take_line()
        except AdmissionError as error:
            raise _RefusedError(Close.BUSY, error.detail) from None
        try:
            claims = self.admission.admit(opening.token, site, time.time())
            ours = secrets.token_urlsafe(9)
            if await self.replays.first(token_key(opening.token), ours) != ours:  # in another process
                raise AdmissionError("token_reused", "the token was used before")
            vouch()
            await self._call(socket, claims.tenant, opening.format)
        finally:
            lines.give_back()

    async def _call(self, socket: MessageSocket, name: str, microphone: str) -> None:
        tenant = self.services.tenants.named(name)
        if tenant is None:
            raise AdmissionError("unknown_number", "nobody answers here")
        sid = CallSid(f"BR{secrets.token_hex(16)}")
        health = _Health(self.services.events)
        decoding = None
        if microphone == WEBM_OPUS and self.make_decoding is not None:
            decoding = self.make_decoding(health)
        line = BrowserLine(sid, health, _silent_s(self.services.settings.ping_s), decoding, self.path)
        screen, decode = BrowserScreen(line.tell), BrowserDecoder().decode
        leg = CallerLeg(StreamSid(sid), decode, BrowserEncoder(), None, PCM16_24K, STUCK_S, screen)
        if not self._calls:
            self._emptied = trio.Event()
        self._calls[sid] = line
        try:
            async with trio.open_nursery() as connections, open_task_nursery() as tasks:
                tasks.start_soon(line.run_decoding)
                connections.start_soon(_carry_first, line, socket)
                ticket = CallTicket(sid, "inbound", "", "")
                record = await run_call(line, leg, ticket, tenant, self.services)
                for turn in record.turns[-LAST_TURNS:]:
                    screen.turn(turn)
                line.tell(encode("ended", outcome=record.outcome.value, reason=record.reason))
                with trio.move_on_after(LAST_WORD_S), suppress(SocketClosedError):
                    await line.until_told()
                line.end(1000, record.outcome.value)
        finally:
            line.end(1001, "the server stops")
            del self._calls[sid]
            if not self._calls:
                self._emptied.set()


async def _carry_first(line: BrowserLine, socket: MessageSocket) -> None:
    """Serve the connection that a call came with; the call may be over before."""
    with suppress(SocketClosedError):
        await line.serve(socket)


def _silent_s(ping_s: float) -> float:
    return SILENT_S if ping_s else float("inf")


@attrs.frozen(eq=False)
class _Health(LineObserver):
    """Connection health as metrics (WB-8)."""

    events: EventLog

    @override
    def connection_lost(self, code: int) -> None:
        self.events.telemetry.browser_closes.labels(code=str(code)).inc()
        self.events.emit("BROWSER_LOST", code=code)

    @override
    def first_word(self, after_s: float) -> None:
        self.events.telemetry.browser_first_word.observe(after_s)

    @override
    def decoded(self, cpu_s: float, lag_s: float) -> None:
        self.events.telemetry.decode_cpu.inc(cpu_s)
        self.events.telemetry.decode_lag.observe(lag_s)

    @override
    def connection_back(self, after_s: float) -> None:
        self.events.telemetry.browser_reconnect.observe(after_s)
        self.events.emit("BROWSER_BACK", after_ms=round(after_s * 1000))

"""The real front door with a simple soul behind it, and the simulated account that phones it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from agent.carrier.front_door import FrontDoor
from agent.carrier.http_app import make_app
from agent.carrier.media_stream import OutboundEncoder, Start, decode_message
from agent.carrier.replays import Replays
from agent.carrier.signature import SignatureCheck
from agent.carrier.stream_admission import Admit, StreamAdmission
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.carrier.webhooks import VoiceWebhooks
from agent.core.admission import Admission
from agent.core.errors import SocketClosedError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.web.peer import TrustedProxies, parse_networks
from agent.wire.websocket import MessageSocket

AUTH = "the account's token"
CALLER, AGENT = "+15550001111", "+15552223333"


@attrs.define(eq=False)
class GreetingAgent:
    """The real doors with a simple soul behind them: greets for 200 ms, then listens until the end."""

    tickets: list[CallTicket] = attrs.field(factory=list)
    not_ready: str = ""
    door: FrontDoor = attrs.field(init=False)
    after_greeting: Callable[[CallTicket], Awaitable[None]] | None = None

    async def answer(self, socket: MessageSocket, admit: Admit) -> None:
        """Serve one call."""
        try:
            while True:
                message = decode_message(await socket.receive())
                if isinstance(message, Start):
                    self.tickets.append(await admit(message))
                    encoder = OutboundEncoder(message.stream_sid)
                    await socket.send(encoder.media(b"\x11" * 1600))
                    if self.after_greeting is not None:
                        await self.after_greeting(self.tickets[-1])
        except SocketClosedError:
            return


@asynccontextmanager
async def open_agent(
    agent: GreetingAgent, *, public_url: str = "", trusted_proxies: str = ""
) -> AsyncIterator[str]:
    """The agent behind its front door on a free port; yields its URL."""
    events = EventLog(Telemetry())
    check = SignatureCheck(AUTH, public_url, allow_unsigned=False)
    tokens = StreamTokens(b"secret" * 6)
    replays = Replays(events)
    admission = Admission(10, lambda: agent.not_ready, lambda: tokens.promised(time.time()))
    desk = StreamAdmission(check, tokens, events, admission, agent.answer, replays)
    app = make_app(VoiceWebhooks(check, tokens, events, admission, replays))
    proxies = TrustedProxies(parse_networks(trusted_proxies))
    agent.door = door = FrontDoor(app, events, desk.serve, proxies)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, door.serve_connection, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_world(
    agent: GreetingAgent, *, auth_token: str = AUTH, public_url: str = ""
) -> AsyncIterator[SimulatedTwilio]:
    """Agent and account on loopback."""
    with trio.fail_after(20):
        async with (
            open_agent(agent, public_url=public_url) as agent_url,
            open_simulated_twilio(
                agent_url=agent_url, auth_token=auth_token, numbers=[AGENT], public_url=public_url
            ) as twilio,
        ):
            yield twilio

"""A live call beside strangers: its gaps, the server's memory, and webhooks that are answered meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import attrs
import msgspec
import trio
from twilio.request_validator import RequestValidator

from agent.sim.carrier.stream import SimulatedStream
from agent.sim.carrier.twilio import open_simulated_twilio
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from bench.attacks.stranger import Attack, StrangerOrder
from bench.rig.players import open_server, until_ready
from bench.rig.processes import Child, open_child

ATTACK_S: Final = 10.0
CALM_S: Final = 4.0
"""After an attack, before memory is looked at: connections that were left have ended."""
ASK_EACH_S: Final = 0.05
ANSWER_S: Final = 10.0
"""What is not answered by then is not answered: Twilio waits for 15 s."""
ACCOUNT: Final = "AC" + "0" * 32
AUTH: Final = "token of the account"
CALLER, NUMBER = "+15550001111", "+15552223333"
ATTACKS: Final = {
    Attack.CALM: (0, 1),
    Attack.HTTP_2: (20, 20),
    Attack.SILENT: (2000, 50),
    Attack.HANDSHAKES: (50, 50),
    Attack.HEADS: (50, 50),
    Attack.PIPELINE: (1, 1),
    Attack.AT_ONCE: (1000, 250),
}
"""Connections, and the addresses they come from."""


@attrs.frozen
class Beside:
    """What was seen beside one attack."""

    attack: Attack
    connections: int
    gap_ms: float
    """The longest between two frames that the carrier got."""
    underruns: int
    rss_before: int
    rss_after: int
    answered_ms: list[float]
    """Of signed webhooks, each on a connection of its own."""
    connected: int
    """Of these; the others were told that we are busy, as who calls a server whose ticks are late is."""
    unanswered: int
    strangers: dict[str, int]


@attrs.define(eq=False)
class Rig:
    """A server, and a call that listens to an answer of half an hour."""

    server: Child
    host: str
    port: int
    stream: SimulatedStream
    folder: Path
    core: int | None


@asynccontextmanager
async def open_rig(folder: Path, server_core: int | None, load_core: int | None) -> AsyncIterator[Rig]:
    """Carrier and model are in this process; the server has a core of its own."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    url = f"http://127.0.0.1:{port}"
    async with trio.open_nursery() as nursery:
        answer = Answer("On and on.", 1_800_000)
        model = await nursery.start(serve_realtime, 0, lambda: ScriptedRealtime([answer]))
        async with open_simulated_twilio(
            agent_url=url, auth_token=AUTH, account_sid=ACCOUNT, numbers=[NUMBER]
        ) as twilio:
            settings = {
                "AGENT_HOST": "127.0.0.1",
                "AGENT_ADMIN_PORT": "0",
                "AGENT_DATA_DIR": str(folder / "data"),
                "AGENT_DRAIN_S": "0",
                "AGENT_LOG_FORMAT": "json",
                "AGENT_MAX_ANSWER_S": "1800",
                "AGENT_MAX_CALLS": "1000",
                "AGENT_WORKER": "0",
                "OPENAI_API_KEY": "none",
                "OPENAI_REALTIME_URL": model,
                "TWILIO_ACCOUNT_SID": ACCOUNT,
                "TWILIO_AUTH_TOKEN": AUTH,
                "TWILIO_API_URL": twilio.api_url,
            }
            async with open_server(folder, server_core, settings, port) as server:
                await until_ready(server)
                async with twilio.place_call(CALLER, NUMBER) as stream:
                    await stream.until_heard_ms(2000)
                    yield Rig(server, "127.0.0.1", port, stream, folder, load_core)
                    await stream.hang_up()
        nursery.cancel_scope.cancel(reason="measured")


async def measure(rig: Rig, attack: Attack, attack_s: float = ATTACK_S, calm_s: float = CALM_S) -> Beside:
    """One attack, and a moment after it."""
    connections, addresses = ATTACKS[attack]
    order = StrangerOrder(attack, rig.host, rig.port, attack_s, connections, addresses)
    arguments = ["-m", "bench.attacks.stranger", msgspec.json.encode(order).decode()]
    rss_before, underruns = rig.server.rss_bytes(), len(rig.stream.playback.underruns)
    rig.stream.wire.clear()
    asked = _Asked(rig)
    async with open_child(f"strangers-{attack}", arguments, core=rig.core, folder=rig.folder) as strangers:
        await strangers.line()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.run)
            counts = msgspec.json.decode(await strangers.line(), type=dict[str, int])
            asked.asking.cancel(reason="the attack is over")
    came_s = [entry.t_s for entry in rig.stream.wire if (entry.direction, entry.kind) == ("tx", "media")]
    await trio.sleep(calm_s)
    return Beside(
        attack,
        connections,
        max((later - earlier) * 1000 for earlier, later in pairwise(came_s)),
        len(rig.stream.playback.underruns) - underruns,
        rss_before,
        rig.server.rss_bytes(),
        sorted(asked.answered_ms),
        asked.connected,
        asked.unanswered,
        counts,
    )


@attrs.define(eq=False)
class _Asked:
    """Webhooks of the carrier, signed, twenty a second, from an address that no stranger has."""

    rig: Rig
    answered_ms: list[float] = attrs.field(factory=list)
    connected: int = 0
    unanswered: int = 0
    asking: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Ask until ``asking`` is cancelled, then wait for what is not answered yet."""
        async with trio.open_nursery() as nursery:
            with self.asking:
                while True:
                    nursery.start_soon(self._ask)
                    await trio.sleep(ASK_EACH_S)

    async def _ask(self) -> None:
        fields = {"CallSid": f"CA{secrets.token_hex(16)}", "From": CALLER, "To": NUMBER}
        url = f"http://{self.rig.host}:{self.rig.port}/voice/incoming"
        body = urlencode(fields).encode()
        head = (
            f"POST /voice/incoming HTTP/1.1\r\nHost: {self.rig.host}:{self.rig.port}\r\nConnection: close\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"X-Twilio-Signature: {RequestValidator(AUTH).compute_signature(url, fields)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        begin_s, answer = trio.current_time(), b""
        with trio.move_on_after(ANSWER_S), suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream(self.rig.host, self.rig.port) as stream:
                await stream.send_all(head.encode() + body)
                answer = bytes(await stream.receive_some())
        if answer.startswith(b"HTTP/1.1 200 "):
            self.answered_ms.append((trio.current_time() - begin_s) * 1000)
            self.connected += b"<Connect>" in answer
        else:
            self.unanswered += 1

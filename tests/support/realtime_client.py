"""A client of a Realtime server that holds every event against the provider's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import trio
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from agent.core.audio_format import ULAW_8K
from agent.core.errors import SocketClosedError
from agent.model.requests import encode_append, encode_session_update, make_session
from agent.sim.memory import memory_realtime
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import Utterance, silence, tone
from agent.wire.websocket import EngineSocket

_server_event: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
SPOKEN = Utterance(silence(400) + tone(600) + silence(700))


@attrs.define(eq=False)
class Client:
    """Receives and validates everything; sends what the agent's codec writes."""

    socket: EngineSocket
    events: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list)
    garbage: list[str] = attrs.field(factory=list)
    close_code: int | None = None
    _heard: trio.Condition = attrs.field(factory=trio.Condition)

    async def run(self) -> None:
        """Receive until the socket is closed."""
        try:
            while True:
                raw = await self.socket.receive()
                try:
                    _server_event.validate_json(raw)
                except ValueError:
                    self.garbage.append(str(raw))
                else:
                    self.events.append((trio.current_time(), msgspec.json.decode(raw)))
                async with self._heard:
                    self._heard.notify_all()
        except SocketClosedError as closed:
            self.close_code = closed.code
            async with self._heard:
                self._heard.notify_all()

    async def until(self, kind: str, times: int = 1) -> dict[str, Any]:
        """Wait for an event of this kind, the ``times``-th."""
        async with self._heard:
            while len(self.of(kind)) < times:
                await self._heard.wait()
        return self.of(kind)[times - 1]

    async def until_closed(self) -> int:
        """Wait for the end of the socket; its close code."""
        async with self._heard:
            while self.close_code is None:
                await self._heard.wait()
        return self.close_code

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All events of this kind."""
        return [event for _, event in self.events if event["type"] == kind]

    def when(self, kind: str) -> list[float]:
        """When events of this kind came."""
        return [t_s for t_s, event in self.events if event["type"] == kind]

    def errors(self) -> list[str]:
        """Codes of the errors received."""
        return [event["error"]["code"] for event in self.of("error")]

    async def send(self, *messages: str) -> None:
        """Send messages in a row."""
        for message in messages:
            await self.socket.send(message)

    async def speak(self, speech: Utterance = SPOKEN) -> None:
        """Append audio at the pace of a call."""
        for payload in speech.payloads:
            await self.socket.send(encode_append(payload))
            await trio.sleep(0.02)


def update(**detection: Any) -> str:
    """A ``session.update`` as the agent sends it, with this turn detection."""
    session = make_session(
        audio=ULAW_8K,
        instructions="Be short.",
        voice="marin",
        turn_detection={"type": "server_vad", **detection},
        transcription={"model": "whisper-1"},
        noise_reduction=None,
        tools=[],
    )
    return encode_session_update(session, "ev_session")


@asynccontextmanager
async def open_session(model: ScriptedRealtime) -> AsyncIterator[Client]:
    """A session with ``model``, over memory."""
    async with memory_realtime(lambda: model)() as socket, trio.open_nursery() as nursery:
        client = Client(socket)
        nursery.start_soon(client.run)
        yield client
        nursery.cancel_scope.cancel()

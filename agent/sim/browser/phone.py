"""A browser's phone for a simulated caller (``agent.sim.carrier.stream``), with reconnection.

It is the socket that a simulated stream runs on: towards the stream it speaks like Twilio, mu-law and all;
towards the agent it is what the page is, PCM16 at 24 kHz (or WebM/Opus, with a ``recorder``), played reports and
acknowledgements. So the caller, the playback and everything that tests ask of them are the same for both legs::

    async with open_simulated_browser(connect, token) as phone:
        async with open_simulated_stream(phone, call_sid="BR", stream_sid="BR", playback=...) as stream:
            await stream.until_heard_ms(500)
"""

from base64 import b64encode
from binascii import a2b_base64
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any, Final

import attrs
import msgspec
import trio
from typing_extensions import override

from agent.core.caller_leg import Message
from agent.core.errors import SocketClosedError
from agent.core.task_nursery import open_task_nursery
from agent.sim.browser.recorder import WebmRecorder
from agent.sim.carrier.stream import CarrierSocket
from agent.sim.model.sending import as_pcm, pcm16_as_ulaw
from agent.wire.message_socket import SendCheck

Connect = Callable[[], AbstractAsyncContextManager[CarrierSocket]]
"""Opens a WebSocket to ``/browser-stream``. Raises SocketClosedError."""
PAUSE_S: Final = 0.25
"""Before each try to come back."""
FIRST_WORD_MS: Final = 500
"""What it says of the time from the press of Call to the first audio."""
NOT_AGAIN: Final = frozenset({1000, 4400, 4401, 4404, 4406, 4408, 4409, 4413, 4429})
"""Close codes after which a browser does not come back by itself."""


@attrs.define(eq=False)
class BrowserPhone(CarrierSocket):
    """Between a simulated stream and an agent's ``/browser-stream``."""

    stream_sid: str
    delay_ms: int = 0
    """What the device reports as its delay."""
    heartbeat_s: float = 1.0
    recorder: WebmRecorder | None = None
    """Records the microphone, in low bandwidth; None: it is sent as it is."""
    welcomes: list[dict[str, Any]] = attrs.field(factory=list)
    told: list[dict[str, Any]] = attrs.field(factory=list)
    """Messages of the call that are for the screen."""
    codes: list[int] = attrs.field(factory=list)
    """How each connection ended."""
    paused: bool = False
    """The network does not let the browser connect."""
    _socket: CarrierSocket | None = None
    _received: int = 0
    _sent: deque[Message] = attrs.field(factory=deque)
    _acknowledged: int = 0
    _inbox: deque[str] = attrs.field(factory=deque)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _over: SocketClosedError | None = None

    # Towards the stream

    @override
    async def receive(self) -> str:
        while not self._inbox:
            if self._over is not None:
                raise SocketClosedError(self._over.code, self._over.reason)
            await self._changed.park()
        return self._inbox.popleft()

    @override
    async def send(self, message: Message, may_send: SendCheck | None = None) -> bool:
        if self._over is not None:
            raise SocketClosedError(self._over.code, self._over.reason)
        ours = self._translate(msgspec.json.decode(message))
        if ours is not None:
            self._sent.append(ours)
            await self._write(ours)
        return True

    @override
    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    @override
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        self._end(SocketClosedError(code, reason))
        if self._socket is not None:
            await self._socket.aclose(code, reason)

    @override
    async def abort(self) -> None:
        self._end(SocketClosedError(1006))
        if self._socket is not None:
            await self._socket.abort()

    async def break_connection(self) -> None:
        """The present connection breaks; another one is tried."""
        if self._socket is not None:
            await self._socket.abort()

    async def until_welcome(self, count: int = 1) -> None:
        """Wait until so many connections were welcomed, or the call is over."""
        while len(self.welcomes) < count and self._over is None:
            await self._changed.park()

    def _translate(self, message: dict[str, Any]) -> Message | None:
        match message["event"]:
            case "media":
                audio = a2b_base64(as_pcm(message["media"]["payload"]))
                return audio if self.recorder is None else self.recorder.record(audio) or None
            case "mark":
                return msgspec.json.encode({"type": "played", "mark": message["mark"]["name"]}).decode()
            case "dtmf":
                return msgspec.json.encode({"type": "key", "digit": message["dtmf"]["digit"]}).decode()
            case "stop":
                return '{"type":"hangup"}'
            case _:
                return None

    # Towards the agent

    async def run(self, connect: Connect, token: str) -> None:
        """Connect, and again whenever the connection breaks, until the call is over."""
        opening: dict[str, Any] = {"type": "hello", "token": token}
        if self.recorder is not None:
            opening["format"] = "webm/opus"
        while self._over is None:
            if not self.paused:
                code = await self._one_connection(connect, opening)
                self.codes.append(code)
                if code in NOT_AGAIN:
                    self._end(SocketClosedError(code))
                    return
            if self.welcomes:
                first = self.welcomes[0]
                opening = {"type": "resume", "call": first["call"], "token": first["token"]}
            await trio.sleep(PAUSE_S)

    async def _one_connection(self, connect: Connect, opening: dict[str, Any]) -> int:
        code = 1006
        try:
            async with connect() as socket, open_task_nursery() as nursery:
                opening = {**opening, "received": self._received} if "call" in opening else opening
                await socket.send(msgspec.json.encode(opening).decode())
                nursery.start_soon(self._beat, socket)
                await self._read(socket)
        except* SocketClosedError as closed:  # beside a Cancelled, too
            first = closed.exceptions[0]
            code = first.code if isinstance(first, SocketClosedError) else code
        finally:
            self._socket = None
        return code

    async def _read(self, socket: CarrierSocket) -> None:
        while True:
            raw = await socket.receive()
            message: dict[str, Any] = {"type": "audio"} if isinstance(raw, bytes) else msgspec.json.decode(raw)
            if message["type"] == "welcome":
                await self._welcomed(socket, message)
                continue
            if message["type"] == "pong":
                self._acknowledge(message["received"])
                continue
            self._received += 1
            if isinstance(raw, bytes):
                self._put("media", media={"payload": b64encode(pcm16_as_ulaw(raw)).decode()})
            elif message["type"] == "mark":
                self._put("mark", mark={"name": message["name"]})
            elif message["type"] == "clear":
                self._put("clear")
            else:
                self.told.append(message)

    async def _welcomed(self, socket: CarrierSocket, message: dict[str, Any]) -> None:
        self._acknowledge(message["received"])
        self.welcomes.append(message)
        if len(self.welcomes) == 1 and self.delay_ms:
            self._sent.append(f'{{"type":"delay","ms":{self.delay_ms}}}')
        for unheard in tuple(self._sent):
            await socket.send(unheard)
        self._socket = socket
        self._changed.unpark_all()

    async def _beat(self, socket: CarrierSocket) -> None:
        while self.heartbeat_s < inf:
            await trio.sleep(self.heartbeat_s)
            ping = {
                "type": "ping",
                "received": self._received,
                "sent_ms": trio.current_time() * 1000,
                "first_word_ms": 500,
            }
            await socket.send(msgspec.json.encode(ping).decode())

    async def _write(self, message: Message) -> None:
        socket = self._socket
        if socket is not None:
            try:
                await socket.send(message)
            except SocketClosedError:
                self._socket = None

    def _acknowledge(self, received: int) -> None:
        for _ in range(min(received - self._acknowledged, len(self._sent))):
            self._sent.popleft()
            self._acknowledged += 1

    def _put(self, event: str, **body: Any) -> None:
        self._inbox.append(msgspec.json.encode({"event": event, "streamSid": self.stream_sid, **body}).decode())
        self._changed.unpark_all()

    def _end(self, error: SocketClosedError) -> None:
        if self._over is None:
            self._over = error
            self._changed.unpark_all()


@asynccontextmanager
async def open_simulated_browser(
    connect: Connect, token: str, *, stream_sid: str = "BR", **changes: Any
) -> AsyncIterator[BrowserPhone]:
    """A browser that has pressed Call; closed when left. See ``BrowserPhone`` for ``changes``."""
    phone = BrowserPhone(stream_sid, **changes)
    async with open_task_nursery() as task_nursery:
        task_nursery.start_soon(phone.run, connect, token)
        await phone.until_welcome()
        try:
            yield phone
        finally:
            await phone.aclose()

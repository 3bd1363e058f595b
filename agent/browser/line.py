"""One browser call's socket, which outlives its connections (MO-6, WB-6).

To the call it is a ``MessageSocket`` like any other. A connection that breaks, or from which nothing comes, is
let go; the call then waits for the next one, the pacer in the middle of its write, and hears nothing meanwhile.
What the browser has not acknowledged is sent again, in order, before anything new: no word is lost and none is
said twice. After WINDOW_S without a connection the caller is gone.
"""

import secrets
from collections import deque
from contextlib import suppress
from math import inf
from typing import Final, Protocol

import attrs
import trio
from typing_extensions import override

from agent.browser.decoding import Decoding, DecodingObserver
from agent.browser.messages import Close, decode_ping, encode, encode_welcome
from agent.core.audio_format import PCM16_24K
from agent.core.caller_leg import Message
from agent.core.errors import AgentError, SocketClosedError, UnreadableAudioError
from agent.wire.message_socket import SendCheck
from agent.wire.websocket import MessageSocket

HUNG_UP: Final = 1000
"""A browser that closes with this has ended its call; it would not come back."""
HEARTBEAT_S: Final = 1.0
"""How often the browser sends a sign of life."""
SILENT_S: Final = 3.0
"""A connection from which nothing came for so long is cut."""
WINDOW_S: Final = 10.0
"""How long a call waits for another connection."""
SAME_TAB_S: Final = 1.5
"""A connection that says something within this has the call, whoever else asks for it."""
UNACKNOWLEDGED: Final = 1500
"""Messages sent and not acknowledged: about 20 s of speech. A browser that lets more gather does not read."""
AT_ONCE: Final = 50
"""More messages than the pacer ever writes in one go."""
MOST_TOLD: Final = 500
"""What waits for the screen; of more the oldest is not shown."""
UNREAD: Final = 1000
"""Messages of the browser that the call has not taken."""
MESSAGES_A_SECOND: Final = 200
"""Three times what a page sends, signs of life included; what waited comes at once, within AHEAD_S."""
MOST_FIRST_WORD_S: Final = 60.0
"""A page that says more is not believed."""
AHEAD_S: Final = 20.0
"""How much more audio may come than time has passed: a reconnection brings what was said meanwhile."""


class LineTakenError(AgentError):
    """Another connection has the call, and is alive."""


class LineObserver(DecodingObserver, Protocol):
    """Told of the health of a line (WB-8), synchronously."""

    def connection_lost(self, code: int) -> None:
        """A connection broke or was cut; 1006: it said nothing."""

    def connection_back(self, after_s: float) -> None:
        """Another one carries the call."""

    def first_word(self, after_s: float) -> None:
        """The page tells when the first audio came, from the press of Call; once."""


@attrs.define(eq=False)
class BrowserLine(MessageSocket):
    """The one end of a browser's connections that a call sees."""

    call: str
    observer: LineObserver
    silent_s: float = SILENT_S
    decoding: Decoding | None = None
    """What the audio goes through; None: it is the call's own format."""
    path: str = "browser-stream"
    """Where a browser comes again, relative to the server's URL."""
    token: str = attrs.field(factory=lambda: secrets.token_urlsafe(24), repr=False)
    """Whoever has it may connect to the call again."""
    _began_s: float = attrs.field(factory=trio.current_time)
    _lost_s: float | None = attrs.field(factory=trio.current_time)
    """When the last connection was lost; None while there is one."""
    _connection: MessageSocket | None = None
    _serving: trio.CancelScope | None = None
    """Around all that is done for a connection, its greeting included."""
    _connections: int = 0
    _heard_s: float = -inf
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _inbox: deque[Message] = attrs.field(factory=deque)
    _received: int = 0
    _messages: int = 0
    _audio_bytes: int = 0
    _sent: deque[Message] = attrs.field(factory=deque)
    """Messages of the call that are not acknowledged, the oldest first."""
    _acknowledged: int = 0
    _writing: trio.Lock = attrs.field(factory=trio.Lock)
    _told: deque[Message] = attrs.field(factory=lambda: deque(maxlen=MOST_TOLD))
    """What is shown on the screen, on its way."""
    _first_word_told: bool = False
    _over: tuple[int, str] | None = None
    """The code and the reason."""

    # For the call

    @override
    async def receive(self) -> Message:
        """See MessageSocket; raises SocketClosedError when no connection comes within WINDOW_S."""
        while not self._inbox:
            self._check()
            until_s = inf if self._lost_s is None else self._lost_s + WINDOW_S
            with trio.move_on_at(until_s):
                await self._changed.park()
                continue
            if self._lost_s is not None:
                self.end(1006, f"the browser did not come back within {WINDOW_S:.0f} s")
        return self._inbox.popleft()

    @override
    async def send(self, message: Message, may_send: SendCheck | None = None) -> bool:
        """See MessageSocket; without a connection it waits for the next."""
        taken = False

        def look() -> bool:
            nonlocal taken
            if may_send is not None and not may_send():
                return False
            taken = True
            self._sent.append(message)
            return True

        async with self._writing:
            while not taken:
                connection = await self._connected()
                if len(self._sent) >= UNACKNOWLEDGED:
                    self.end(Close.FLOOD, "the browser does not read")
                    self._check()
                try:
                    return await connection.send(message, look)
                except SocketClosedError as closed:
                    self._lose(connection, closed.code)
            return True

    @property
    @override
    def takes_now(self) -> bool:
        """Whether a connection takes more at once, and nobody is in the middle of a write."""
        connection = self._connection
        room = len(self._sent) + AT_ONCE <= UNACKNOWLEDGED
        return room and connection is not None and connection.takes_now and not self._writing.locked()

    @override
    def send_now(self, *messages: Message) -> bool:
        """See MessageSocket; what a broken connection swallows is sent again on the next one, as ever."""
        if self._connection is None or not self.takes_now or not self._connection.send_now(*messages):
            return False
        self._sent += messages
        return True

    def tell(self, message: Message) -> None:
        """Send a message when there is a connection, behind those before it; never waits."""
        self._told.append(message)
        self._changed.unpark_all()

    async def until_told(self) -> None:
        """Wait until all of it is on its way. Raises SocketClosedError when the line is over."""
        while self._told or self._writing.locked():
            self._check()
            await self._changed.park()

    @override
    async def ping(self) -> None:
        """The heartbeat is the browser's: whoever hears nothing lets the connection go."""
        await trio.lowlevel.checkpoint()

    @override
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See MessageSocket; whoever serves the connection closes it."""
        self.end(code, reason)
        await trio.lowlevel.cancel_shielded_checkpoint()

    # For its connections

    async def serve(self, connection: MessageSocket, received: int = 0) -> None:
        """Let ``connection`` carry the call until it breaks, is cut, or the line ends; closes it.

        ``received`` counts the call's messages that the browser has. Raises LineTakenError, and
        SocketClosedError when the call is over; the connection is not closed then.
        """
        await self._take_over()
        self._heard_s = trio.current_time()
        code = 1006
        try:
            with trio.CancelScope() as self._serving:
                await self._greet(connection, received)
                self._back(connection)
                async with trio.open_nursery() as nursery:
                    pings, pinged = trio.open_memory_channel[float](1)
                    nursery.start_soon(self._watch, nursery.cancel_scope)
                    nursery.start_soon(self._answer_pings, connection, pinged)
                    nursery.start_soon(self._run_telling, connection)
                    await self._read(connection, pings)
        except* SocketClosedError as closed:
            first = closed.exceptions[0]
            code = first.code if isinstance(first, SocketClosedError) else code
            if code == HUNG_UP:
                self._put('{"type":"hangup"}')
        finally:
            self._serving = None
            self._lose(connection, code)
            await connection.aclose(*(self._over or (1001, "let go")))  # noqa: ASYNC102 - it shields and bounds itself

    def end(self, code: int, reason: str) -> None:
        """The line is over: nothing is carried any more. Only the first reason counts."""
        if self._over is None:
            self._over = code, reason
            self._changed.unpark_all()
            if self._serving is not None:
                self._serving.cancel(reason=reason)

    async def run_decoding(self) -> None:
        """Decode what comes, until cancelled; what cannot be decoded ends the line."""
        if self.decoding is not None:
            try:
                await self.decoding.run(self._put, lambda: self._allowed_ms)
            except UnreadableAudioError as error:
                self.end(Close.BAD_AUDIO, str(error)[:100])

    async def _take_over(self) -> None:
        """Have the present connection let go if it says nothing. Raises LineTakenError and SocketClosedError."""
        self._check()
        asked_s = trio.current_time()
        with trio.move_on_at(asked_s + SAME_TAB_S):
            while self._serving is not None:
                if self._heard_s > asked_s:
                    raise LineTakenError("another connection has this call")
                await self._changed.park()
        if self._serving is not None:
            self._serving.cancel(reason="another connection takes over")
        while self._serving is not None:
            await self._changed.park()
        self._check()

    async def _greet(self, connection: MessageSocket, received: int) -> None:
        self._acknowledge(received)
        welcome = encode_welcome(
            self.call, self.token, self._received, path=self.path, heartbeat_s=HEARTBEAT_S, window_s=WINDOW_S
        )
        await connection.send(welcome)
        for message in tuple(self._sent):
            await connection.send(message)

    def _back(self, connection: MessageSocket) -> None:
        if self._connections and self._lost_s is not None:
            self.observer.connection_back(trio.current_time() - self._lost_s)
        self._connections += 1
        self._connection, self._lost_s = connection, None
        self._changed.unpark_all()

    async def _read(self, connection: MessageSocket, pings: trio.MemorySendChannel[float]) -> None:
        while True:
            raw = await connection.receive()
            self._heard_s = trio.current_time()
            self._messages += 1
            if self._messages * 1000 > self._allowed_ms * MESSAGES_A_SECOND:
                self.end(Close.FLOOD, "too many messages")
            ping = decode_ping(raw)
            if ping is None:
                self._take(raw)
                continue
            self._acknowledge(ping.received)
            if 0 < ping.first_word_ms <= MOST_FIRST_WORD_S * 1000 and not self._first_word_told:
                self._first_word_told = True
                self.observer.first_word(ping.first_word_ms / 1000)
            with suppress(trio.WouldBlock):
                pings.send_nowait(ping.sent_ms)

    async def _answer_pings(self, connection: MessageSocket, pinged: trio.MemoryReceiveChannel[float]) -> None:
        async for sent_ms in pinged:
            async with self._writing:
                await connection.send(encode("pong", sent_ms=sent_ms, received=self._received))

    async def _run_telling(self, connection: MessageSocket) -> None:
        while True:
            while not self._told:
                await self._changed.park()
            async with self._writing:
                message = self._told.popleft()
                self._sent.append(message)
                await connection.send(message)
            self._changed.unpark_all()

    def _take(self, raw: Message) -> None:
        """Count a message of the call, and hand it on; of a recording, when it is decoded."""
        self._received += 1
        if self.decoding is None or isinstance(raw, str):
            self._put(raw)
        elif not self.decoding.put(raw):
            self.end(Close.FLOOD, "more audio than can be")

    def _put(self, raw: Message) -> None:
        if isinstance(raw, bytes):
            self._audio_bytes += len(raw)
            if PCM16_24K.ms(self._audio_bytes) > self._allowed_ms:
                self.end(Close.FLOOD, "more audio than time")
        if len(self._inbox) >= UNREAD:
            self.end(Close.FLOOD, "too many messages")
        self._inbox.append(raw)
        self._changed.unpark_all()

    @property
    def _allowed_ms(self) -> float:
        """How much audio there may be by now."""
        return (trio.current_time() - self._began_s + AHEAD_S) * 1000

    async def _watch(self, reading: trio.CancelScope) -> None:
        """Cut a connection from which nothing comes."""
        while (due_s := self._heard_s + self.silent_s) > trio.current_time():  # noqa: ASYNC110 - it moves
            await trio.sleep_until(due_s)
        reading.cancel(reason="nothing came from the browser")

    def _acknowledge(self, received: int) -> None:
        for _ in range(min(received - self._acknowledged, len(self._sent))):
            self._sent.popleft()
            self._acknowledged += 1

    async def _connected(self) -> MessageSocket:
        while self._connection is None:
            self._check()
            await self._changed.park()
        self._check()
        return self._connection

    def _lose(self, connection: MessageSocket, code: int) -> None:
        if self._connection is connection:
            self._connection, self._lost_s = None, trio.current_time()
            if self._over is None:
                self.observer.connection_lost(code)
        self._changed.unpark_all()

    def _check(self) -> None:
        if self._over is not None:
            raise SocketClosedError(*self._over)

"""One port, two servers in it (DESIGN D1): media streams to the WebSocket engine, everything else to hypercorn.

A connection waits in the lobby until its request is known and answered; the lobby is small and every wait in
it is bounded, so neither slow nor silent clients can fill it for long. A media stream leaves the lobby when it
is served. No exception leaves a connection: one that fails, fails alone.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Final

import attrs
import trio

from agent.carrier.http_head import BadHeadError, HeadReader, RequestHead
from agent.core.errors import AgentError
from agent.core.event_log import EventLog
from agent.wire.connection import drop
from agent.wire.upgrade import Upgrade
from agent.wire.websocket import Handshake, open_server_handshake

HEAD_S: Final = 10.0
"""How long a client may take to send its request's head."""
LOBBY_CONNECTIONS: Final = 256
"""Connections that are not media streams; more are answered 503."""
READ_BYTES: Final = 4096
REFUSALS: Final = 64
"""Connections being answered 503 at once; more are dropped without an answer."""
LINGER_S: Final = 1.0
"""How long after an error answer we wait for the client to read it and go."""
AFTER_END_S: Final = 2.0
"""How long a web client that has closed its side may still be answered; hypercorn would keep the socket for the
whole keep-alive time, and four calls a second would fill the lobby with clients that are gone."""
LINGER_BYTES: Final = 64 * 1024
WRITE_S: Final = 10.0
"""How long a web client may take to read what it asked for."""
STREAM_PATHS: Final = ("/media-stream", "/media-stream/")

ServeStream = Callable[[Handshake, RequestHead], Awaitable[None]]
ServeHttp = Callable[["PeekedStream"], Awaitable[None]]


@attrs.define(eq=False)
class PeekedStream(trio.abc.HalfCloseableStream):
    """A TCP stream whose first bytes, already read as ``head``, are read once more.

    With ``write_s`` every write is bounded, and ``on_broken`` is called when one fails or takes longer.
    ``on_end`` is called when the peer will send no more.
    """

    inner: trio.abc.HalfCloseableStream
    head: bytes
    write_s: float | None = None
    on_broken: Callable[[], None] = lambda: None
    on_end: Callable[[], None] = lambda: None

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket underneath; hypercorn asks it for both addresses. AttributeError over memory streams."""
        socket: trio.socket.SocketType = self.inner.socket  # type: ignore[attr-defined]  # only SocketStream has it
        return socket

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        if self.head:
            await trio.lowlevel.checkpoint()
            taken = self.head if max_bytes is None else self.head[:max_bytes]
            self.head = self.head[len(taken) :]
            return taken
        data = await self.inner.receive_some(max_bytes)
        if not data:
            self.on_end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        if self.write_s is None:
            await self.inner.send_all(data)
            return
        try:
            with trio.fail_after(self.write_s):
                await self.inner.send_all(data)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.on_broken()
            raise trio.BrokenResourceError("the client does not read its answer") from error

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self.inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        await self.inner.send_eof()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self.inner.aclose()


@attrs.define(eq=False)
class FrontDoor:
    """Accepts connections and shows each to the server it asks for.

    Give ``serve_connection`` to ``trio.serve_listeners`` (which also sees to TCP_NODELAY and to being out of
    file descriptors). ``serve_stream`` gets the handshakes of media streams, accepts or rejects them and serves
    the call; ``serve_http`` gets all other connections. What they raise is logged and counted, never passed on.
    """

    serve_stream: ServeStream
    serve_http: ServeHttp
    events: EventLog
    lobby_limit: int = LOBBY_CONNECTIONS
    prefix: str = ""
    """What a proxy may keep in front of our paths: the path of the public URL."""
    _lobby: int = 0
    _refusals: int = 0

    async def serve_connection(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one connection to its end and close it. Raises nothing but Cancelled."""
        try:
            await self._serve(stream)
        except* (
            OSError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            AgentError,
        ) as lost:
            self.events.emit("CONNECTION_LOST", "debug", error=repr(_first(lost)))
        # The boundary of one connection: an error that leaves it would end every call of the process.
        except* Exception as group:  # noqa: BLE001
            self.events.exception("CONNECTION_ERROR", _first(group))
        finally:
            await drop(stream)  # noqa: ASYNC102 - it does not wait

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        if self._lobby >= self.lobby_limit:
            await self._refuse(stream)
            return
        with self._place_in_lobby():
            reader = HeadReader()
            try:
                head = await _read_head(stream, reader)
                if head is None:
                    return
                is_stream = _asks_for_stream(head, self.prefix)
            except BadHeadError as bad:
                self.events.emit("BAD_REQUEST", "debug", status=bad.status, reason=bad.reason)
                await _answer(stream, bad.status, bad.reason)
                return
            if not is_stream:
                await self._serve_visitor(stream, bytes(reader.raw))
                return
        async with open_server_handshake(Upgrade(stream, *reader.split())) as handshake:
            await self.serve_stream(handshake, head)

    @contextmanager
    def _place_in_lobby(self) -> Iterator[None]:
        self._lobby += 1
        try:
            yield
        finally:
            self._lobby -= 1

    async def _serve_visitor(self, stream: trio.abc.HalfCloseableStream, head: bytes) -> None:
        """Serve web requests; a client that cannot be written to ends the visit.

        Hypercorn itself would wait for ever, for the client to read (shielded) or, if it has sent the next
        request already, for its own answer to be finished.
        """
        with trio.CancelScope() as visit:
            gone = partial(visit.cancel, reason="the client does not read")

            def leaves() -> None:
                visit.deadline = trio.current_time() + AFTER_END_S

            await self.serve_http(PeekedStream(stream, head, WRITE_S, gone, leaves))

    async def _refuse(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.events.count("CONNECTION_REFUSED")
        if self._refusals >= REFUSALS:
            return
        self._refusals += 1
        try:
            await _answer(stream, 503, "too many connections; try again in a moment")
        finally:
            self._refusals -= 1


def _asks_for_stream(head: RequestHead, prefix: str) -> bool:
    """Whether the carrier wants to open a media stream. Raises BadHeadError when it asks in a wrong way."""
    paths = (head.path, head.path.removeprefix(prefix))
    if not head.wants_websocket or not any(path in STREAM_PATHS for path in paths):
        return False
    head.check_websocket()
    return True


async def _read_head(stream: trio.abc.ReceiveStream, reader: HeadReader) -> RequestHead | None:
    """Read the request's head; None when the client sent nothing at all (a port check, a spare socket).

    Raises BadHeadError, 408 when it takes too long.
    """
    try:
        with trio.fail_after(HEAD_S):
            return await _receive_head(stream, reader)
    except trio.TooSlowError:
        if reader.raw:
            raise BadHeadError(408, f"the request's head took more than {HEAD_S:.0f} s") from None
        return None


async def _receive_head(stream: trio.abc.ReceiveStream, reader: HeadReader) -> RequestHead | None:
    while True:
        data = await stream.receive_some(min(READ_BYTES, reader.room_bytes))
        if not data:
            if reader.raw:
                raise BadHeadError(400, "the request ends in the middle of its head")
            return None
        head = reader.feed(data)
        if head is not None:
            return head


async def _answer(stream: trio.abc.HalfCloseableStream, status: int, reason: str) -> None:
    """Answer in plain text, then wait shortly for the client to go: closing at once could lose the answer."""
    body = f"{reason}\n".encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with trio.move_on_after(LINGER_S):
        await stream.send_all(head.encode() + body)
        await stream.send_eof()
        left_bytes = LINGER_BYTES
        while left_bytes > 0:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                return
            left_bytes -= len(data)


def _first(error: BaseException) -> BaseException:
    """The first single error in a group: the groups of nested nurseries hide which one it was."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

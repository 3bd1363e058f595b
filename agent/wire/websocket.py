"""One WebSocket behind five verbs: receive, send, ping, aclose, and a last look before the write.

Everything above this file sees a ``MessageSocket``; which engine carries the frames is decided here and
can be exchanged by measurement. The engine today is trio-websocket, run over a stream that we own, so that
leaving is always bounded and whole calls can be tested over memory streams in virtual time.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket as tws
from typing_extensions import override
from wsproto import ConnectionType

from agent.core.errors import SocketClosedError
from agent.wire.connection import Connection, SendCheck, SendGuard, closed_error, drop, open_reader_nursery
from agent.wire.text_frames import ShortcutConnection
from agent.wire.upgrade import Upgrade, receive_upgrade

MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Largest message taken from a peer (WB-6); a larger one closes the connection with 1009."""
QUEUED_MESSAGES: Final = 512
"""Messages read ahead of ``receive``: ten seconds of a call's frames. A full queue stops reading (and
answering pings), so the receive loops never wait for anything downstream."""
RECEIVE_BUFFER_BYTES: Final = 16 * 1024
CLOSE_GRACE_S: Final = 1.0
"""How long a peer may take to answer our close frame; OpenAI never answers it."""
CANCELLED_CLOSE_GRACE_S: Final = 0.1
"""The same in a cancelled scope: the reader is cancelled too, no answer can arrive, only our frame is sent."""
HANDSHAKE_S: Final = 5.0
"""How long the opening handshake may take, name look-up, TCP and TLS included."""

_LIMITS: Final[dict[str, Any]] = {
    "message_queue_size": QUEUED_MESSAGES,
    "max_message_size": MAX_MESSAGE_BYTES,
    "receive_buffer_size": RECEIVE_BUFFER_BYTES,
}


class MessageSocket(Protocol):
    """A WebSocket as the rest of the system knows it. One task receives, one task sends."""

    async def receive(self) -> str | bytes:
        """Wait for the next message. Raises SocketClosedError at the end. A cancel loses no message."""

    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        """Write one message, text or binary; False if ``may_send()`` said no at the very last moment.

        ``may_send`` is called with no checkpoint between it and the write to the operating system, so what it
        allows is on the wire before any other task can run. Raises SocketClosedError. A cancel before the
        write sends nothing; a cancel during it breaks the connection, so only the end of a call may do that.
        """

    async def ping(self) -> None:
        """Send a ping and wait for its pong. Raises SocketClosedError."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with a close frame, wait at most CLOSE_GRACE_S for the answer, then drop the connection.

        Never raises, may be repeated, and is shielded: it does the same in a cancelled scope.
        """


@attrs.define(eq=False)
class TrioWebSocket(MessageSocket):
    """``MessageSocket`` on trio-websocket."""

    _connection: tws.WebSocketConnection
    _stream: SendGuard

    @property
    def path(self) -> str:
        """The request target, as the peer asked for it."""
        return str(self._connection.path)

    @override
    async def receive(self) -> str | bytes:
        try:
            message: str | bytes = await self._connection.get_message()
        except tws.ConnectionClosed as closed:
            raise closed_error(closed) from None
        return message

    @override
    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        stream = self._stream
        stream.may_send, stream.refused = may_send, False
        try:
            await self._connection.send_message(message)
        except tws.ConnectionClosed as closed:
            raise closed_error(closed) from None
        finally:
            stream.may_send = None
        return not stream.refused

    @override
    async def ping(self) -> None:
        try:
            await self._connection.ping()
        except tws.ConnectionClosed as closed:
            raise closed_error(closed) from None

    @override
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        cancelled = trio.current_effective_deadline() == float("-inf")
        with trio.move_on_after(CANCELLED_CLOSE_GRACE_S if cancelled else CLOSE_GRACE_S, shield=True):
            await self._connection.aclose(code, reason or None)
        await drop(self._stream)

    async def abort(self) -> None:
        """Drop the connection with no close frame, as a broken network does; the peer sees 1006."""
        await drop(self._stream)


@attrs.define(eq=False)
class Handshake:
    """A WebSocket handshake waiting for our answer; call ``accept`` or ``reject`` once."""

    _request: tws.WebSocketRequest
    _stream: SendGuard

    @property
    def target(self) -> str:
        """Path and query as the peer sent them."""
        return str(self._request.path)

    @property
    def headers(self) -> dict[str, str]:
        """Header fields, names in lower case; the last one wins."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._request.headers}

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """Subprotocols the peer offers, in its order of preference."""
        return tuple(self._request.proposed_subprotocols)

    async def accept(self) -> TrioWebSocket:
        """Answer 101 with the first subprotocol offered, or none if none was (WB-1)."""
        offered = self.subprotocols
        connection = await self._request.accept(subprotocol=offered[0] if offered else None)
        return TrioWebSocket(connection, self._stream)

    async def reject(self, status: int, body: str) -> None:
        """Answer with an HTTP error and a plain-text body saying why."""
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._request.reject(status, extra_headers=headers, body=body.encode())


@asynccontextmanager
async def open_server_over(stream: trio.abc.Stream) -> AsyncIterator[Handshake]:
    """The handshake that is the first request on ``stream``, which is dropped when left.

    Raises SocketClosedError when the peer leaves meanwhile, trio.TooSlowError after HANDSHAKE_S.
    """
    try:
        with trio.fail_after(HANDSHAKE_S):
            upgrade = await receive_upgrade(stream)
        async with open_server_handshake(upgrade) as handshake:
            yield handshake
    finally:
        await drop(stream)  # noqa: ASYNC102 - it does not wait


@asynccontextmanager
async def open_server_handshake(upgrade: Upgrade) -> AsyncIterator[Handshake]:
    """Take over a WebSocket handshake; leaving drops its stream (``aclose`` the socket before).

    Raises SocketClosedError when the peer leaves meanwhile, trio.TooSlowError after HANDSHAKE_S.
    """
    looked = SendGuard(upgrade.stream, upgrade.head + upgrade.unread)
    async with open_reader_nursery(looked) as readers:
        with trio.fail_after(HANDSHAKE_S):
            connection = Connection(looked, ShortcutConnection(ConnectionType.SERVER), **_LIMITS)
            readers.start_soon(connection._reader_task)  # noqa: SLF001 - as wrap_*_stream does
            request = await connection._get_request()  # noqa: SLF001 - as wrap_*_stream does
        yield Handshake(request, looked)


@functools.cache
def client_tls() -> ssl.SSLContext:
    """The TLS settings of ``open_client``, made once: reading the system's certificates blocks for 20 ms."""
    return ssl.create_default_context()


@asynccontextmanager
async def open_client(url: str, *, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[TrioWebSocket]:
    """Connect to a ``ws://`` or ``wss://`` URL; yields the socket and closes it when left.

    Raises OSError (no route, refused, TLS), HandshakeRejectedError (an HTTP answer), SocketClosedError (the
    peer hung up during the handshake), trio.TooSlowError after HANDSHAKE_S.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S) as connecting:
        stream: trio.abc.Stream
        if secure:
            stream = await _open_tls(host, port)
        else:
            stream = await trio.open_tcp_stream(host, port)
    if connecting.cancelled_caught:
        raise trio.TooSlowError
    async with open_client_over(stream, parts.netloc.rpartition("@")[2], resource, headers=headers) as socket:
        yield socket


async def _open_tls(host: str, port: int) -> trio.abc.Stream:
    """A TLS connection, its handshake done. Raises OSError; neither a failure nor a cancel leaves a socket."""
    stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True, ssl_context=client_tls())
    failed = True
    try:
        await stream.do_handshake()
        failed = False
    except trio.BrokenResourceError as error:
        raise ConnectionError(f"no TLS with {host}: {error.__cause__ or error}") from error
    finally:
        if failed:
            await drop(stream)  # noqa: ASYNC102 - it does not wait
    return stream


@asynccontextmanager
async def open_client_over(
    stream: trio.abc.Stream,
    host: str,
    resource: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[TrioWebSocket]:
    """Shake hands as the client over a connected stream, dropped when left. Errors as open_client."""
    looked = SendGuard(stream)
    async with open_reader_nursery(looked) as readers:
        with trio.CancelScope() as hung_up, trio.fail_after(HANDSHAKE_S):
            looked.on_end = hung_up.cancel
            connection = Connection(
                looked,
                ShortcutConnection(ConnectionType.CLIENT),
                host=host,
                path=resource,
                client_subprotocols=list(subprotocols),
                client_extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                **_LIMITS,
            )
            readers.start_soon(connection._reader_task)  # noqa: SLF001 - as wrap_*_stream does
            await connection._open_handshake.wait()  # noqa: SLF001 - as wrap_*_stream does
            looked.on_end = None
        if hung_up.cancelled_caught:
            raise SocketClosedError(1006, "during the handshake")
        socket = TrioWebSocket(connection, looked)
        try:
            yield socket
        finally:
            await socket.aclose()

"""The engine over any stream: trio-websocket, with a reader task for each socket.

It runs over a stream that we own, so that leaving is always bounded, and whole calls can be tested over memory
streams in virtual time. Where there is no epoll it carries the real sockets too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio
import trio_websocket as tws
from typing_extensions import override
from wsproto import ConnectionType

from agent.core.errors import SocketClosedError
from agent.wire.connection import QuickConnection, SendGuard, closed_error, drop, open_reader_nursery
from agent.wire.message_socket import (
    CANCELLED_CLOSE_GRACE_S,
    CLOSE_GRACE_S,
    HANDSHAKE_S,
    MAX_MESSAGE_BYTES,
    QUEUED_MESSAGES,
    RECEIVE_BUFFER_BYTES,
    EngineSocket,
    Handshake,
    SendCheck,
)
from agent.wire.text_frames import ShortcutConnection
from agent.wire.upgrade import Upgrade, receive_upgrade

_LIMITS: Final[dict[str, Any]] = {
    "message_queue_size": QUEUED_MESSAGES,
    "max_message_size": MAX_MESSAGE_BYTES,
    "receive_buffer_size": RECEIVE_BUFFER_BYTES,
}


@attrs.define(eq=False)
class TrioWebSocket(EngineSocket):
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

    @override
    async def abort(self) -> None:
        await drop(self._stream)


@attrs.define(eq=False)
class TrioHandshake(Handshake):
    """``Handshake`` on trio-websocket."""

    _request: tws.WebSocketRequest
    _stream: SendGuard

    @property
    @override
    def target(self) -> str:
        return str(self._request.path)

    @property
    @override
    def headers(self) -> dict[str, str]:
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._request.headers}

    @property
    @override
    def subprotocols(self) -> tuple[str, ...]:
        return tuple(self._request.proposed_subprotocols)

    @override
    async def accept(self) -> TrioWebSocket:
        offered = self.subprotocols
        connection = await self._request.accept(subprotocol=offered[0] if offered else None)
        return TrioWebSocket(connection, self._stream)

    @override
    async def reject(self, status: int, body: str) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._request.reject(status, extra_headers=headers, body=body.encode())


@asynccontextmanager
async def open_server_over(stream: trio.abc.Stream) -> AsyncIterator[TrioHandshake]:
    """The handshake that is the first request on ``stream``, which is dropped when left.

    Raises SocketClosedError when the peer leaves meanwhile, trio.TooSlowError after HANDSHAKE_S.
    """
    try:
        with trio.fail_after(HANDSHAKE_S):
            upgrade = await receive_upgrade(stream)
        async with open_stream_handshake(upgrade) as handshake:
            yield handshake
    finally:
        await drop(stream)  # noqa: ASYNC102 - it does not wait


@asynccontextmanager
async def open_stream_handshake(upgrade: Upgrade) -> AsyncIterator[TrioHandshake]:
    """Take over a WebSocket handshake; leaving drops its stream (``aclose`` the socket before).

    Raises SocketClosedError when the peer leaves meanwhile, trio.TooSlowError after HANDSHAKE_S.
    """
    looked = SendGuard(upgrade.stream, upgrade.head + upgrade.unread)
    async with open_reader_nursery(looked) as readers:
        with trio.fail_after(HANDSHAKE_S):
            connection = QuickConnection(looked, ShortcutConnection(ConnectionType.SERVER), **_LIMITS)
            readers.start_soon(connection._reader_task)  # noqa: SLF001 - as wrap_*_stream does
            request = await connection._get_request()  # noqa: SLF001 - as wrap_*_stream does
        yield TrioHandshake(request, looked)


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
            connection = QuickConnection(
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

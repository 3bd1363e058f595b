"""Where WebSockets come from: the seam, and which engine carries a connection.

Real sockets are carried by the poller where one runs (``polled_socket``), every other stream by trio-websocket
(``stream_socket``); both are exchanged by measurement, and pass the same tests.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from wsproto.events import Request

from agent.wire.connection import drop
from agent.wire.message_socket import (
    CANCELLED_CLOSE_GRACE_S,
    CLOSE_GRACE_S,
    HANDSHAKE_S,
    MAX_MESSAGE_BYTES,
    QUEUED_MESSAGES,
    EngineSocket,
    Handshake,
    MessageSocket,
)
from agent.wire.polled_handshake import open_polled_client, open_polled_handshake
from agent.wire.poller import Poller
from agent.wire.stream_socket import TrioWebSocket, open_client_over, open_server_over, open_stream_handshake
from agent.wire.upgrade import Upgrade

__all__ = [
    "CANCELLED_CLOSE_GRACE_S",
    "CLOSE_GRACE_S",
    "HANDSHAKE_S",
    "MAX_MESSAGE_BYTES",
    "QUEUED_MESSAGES",
    "EngineSocket",
    "Handshake",
    "MessageSocket",
    "TrioWebSocket",
    "client_tls",
    "open_client",
    "open_client_over",
    "open_server_handshake",
    "open_server_over",
]


@asynccontextmanager
async def open_server_handshake(upgrade: Upgrade) -> AsyncIterator[Handshake]:
    """Take over a WebSocket handshake; leaving drops its connection (``aclose`` the socket before).

    Raises SocketClosedError when the peer leaves meanwhile, trio.TooSlowError after HANDSHAKE_S.
    """
    poller, stream = Poller.running(), upgrade.stream
    if poller is not None and isinstance(stream, trio.SocketStream):
        async with open_polled_handshake(upgrade, stream, poller) as handshake:
            yield handshake
        return
    async with open_stream_handshake(upgrade) as handshake:
        yield handshake


@functools.cache
def client_tls() -> ssl.SSLContext:
    """The TLS settings of ``open_client``, made once: reading the system's certificates blocks for 20 ms."""
    return ssl.create_default_context()


@asynccontextmanager
async def open_client(url: str, *, headers: Sequence[tuple[str, str]] = ()) -> AsyncIterator[EngineSocket]:
    """Connect to a ``ws://`` or ``wss://`` URL; yields the socket and closes it when left.

    Raises OSError (no route, refused, TLS), HandshakeRejectedError (an HTTP answer), SocketClosedError (the
    peer hung up during the handshake), trio.TooSlowError after HANDSHAKE_S.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = parts.netloc.rpartition("@")[2]
    poller = Poller.running()
    if poller is not None:
        fields = [(name.encode(), text.encode()) for name, text in headers]
        request = Request(host=named, target=resource, extra_headers=fields)
        async with open_polled_client((host, port), client_tls() if secure else None, request, poller) as polled:
            yield polled
        return
    with trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S) as connecting:
        stream: trio.abc.Stream
        if secure:
            stream = await _open_tls(host, port)
        else:
            stream = await trio.open_tcp_stream(host, port)
    if connecting.cancelled_caught:
        raise trio.TooSlowError
    async with open_client_over(stream, named, resource, headers=headers) as socket:
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

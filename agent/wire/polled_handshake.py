"""Opening handshakes on real sockets, for the poller: HTTP by wsproto, TLS and TCP by links of our own.

Until the handshake is done its task waits for the socket itself; then the connection is the poller's.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from typing_extensions import override
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Event, RejectConnection, RejectData, Request
from wsproto.utilities import RemoteProtocolError

from agent.core.errors import HandshakeRejectedError, SocketClosedError
from agent.wire.links import Link, TcpLink, TlsLink
from agent.wire.message_socket import HANDSHAKE_S, Handshake
from agent.wire.polled_socket import PolledWebSocket
from agent.wire.poller import Poller
from agent.wire.upgrade import MAX_HEAD_BYTES, Upgrade

_HEAD_END = b"\r\n\r\n"
_SHOWN_BYTES = 200
"""Of the body of a refusal."""


@attrs.define(eq=False)
class PolledHandshake(Handshake):
    """``Handshake`` for a socket of Trio's, which ``accept`` takes over."""

    _upgrade: Upgrade
    _stream: trio.SocketStream
    _poller: Poller
    _protocol: WSConnection | None
    """Until it is answered: a call keeps its handshake for hours."""
    _request: Request
    accepted: PolledWebSocket | None = None

    @property
    @override
    def target(self) -> str:
        return self._request.target

    @property
    @override
    def headers(self) -> dict[str, str]:
        fields = {
            name.decode("latin-1").lower(): text.decode("latin-1") for name, text in self._request.extra_headers
        }
        return {"host": self._request.host, **fields}

    @property
    @override
    def subprotocols(self) -> tuple[str, ...]:
        return tuple(self._request.subprotocols)

    @override
    async def accept(self) -> PolledWebSocket:
        offered = self.subprotocols
        answer = self._answer(AcceptConnection(subprotocol=offered[0] if offered else None))
        with trio.fail_after(HANDSHAKE_S):
            await _send(self._stream, answer)
        link = TcpLink(_take_socket(self._stream))
        self.accepted = PolledWebSocket.over(link, self._poller, client=False, unread=self._upgrade.unread)
        return self.accepted

    @override
    async def reject(self, status: int, body: str) -> None:
        text = body.encode()
        fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        refusal = RejectConnection(status_code=status, headers=fields, has_body=True), RejectData(data=text)
        answer = self._answer(*refusal)
        with trio.fail_after(HANDSHAKE_S):
            await _send(self._stream, answer)

    def _answer(self, *events: Event) -> bytes:
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            raise trio.BusyResourceError("the handshake was answered before")
        return b"".join(map(protocol.send, events))


async def _send(stream: trio.SocketStream, answer: bytes) -> None:
    try:
        await stream.send_all(answer)
    except trio.BrokenResourceError:
        raise SocketClosedError(1006, "during the handshake") from None


@asynccontextmanager
async def open_polled_handshake(
    upgrade: Upgrade, stream: trio.SocketStream, poller: Poller
) -> AsyncIterator[PolledHandshake]:
    """See open_server_handshake. The stream, where it was not taken over, is left to whoever owns it."""
    handshake = PolledHandshake(upgrade, stream, poller, *await _understood(upgrade, stream))
    try:
        yield handshake
    finally:
        if handshake.accepted is not None:
            handshake.accepted.drop()


async def _understood(upgrade: Upgrade, stream: trio.SocketStream) -> tuple[WSConnection, Request]:
    """The handshake that was asked for. One that is none is answered; raises SocketClosedError."""
    protocol, refused = WSConnection(ConnectionType.SERVER), None
    try:
        protocol.receive_data(upgrade.head)
        [request] = list(protocol.events())
    except RemoteProtocolError as error:
        refused = error
    if refused is not None:
        if refused.event_hint is not None:
            with trio.move_on_after(HANDSHAKE_S):
                await _send(stream, protocol.send(refused.event_hint))
        raise SocketClosedError(1002, str(refused))
    assert isinstance(request, Request)  # noqa: S101 - all that a server is told by a head
    return protocol, request


@asynccontextmanager
async def open_polled_client(
    address: tuple[str, int],
    tls: ssl.SSLContext | None,
    request: Request,
    poller: Poller,
) -> AsyncIterator[PolledWebSocket]:
    """Connect to a host and port, with TLS if settings for it are given; errors as open_client."""
    with trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S) as connecting:
        link = await _connect(*address, tls)
        failed = True
        try:
            unread = await _shake_hands(link, request)
            failed = False
        finally:
            if failed:
                link.close()
    if connecting.cancelled_caught:
        raise trio.TooSlowError
    polled = PolledWebSocket.over(link, poller, client=True, unread=unread)
    try:
        yield polled
    finally:
        await polled.aclose()


async def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> Link:
    """A connection, its TLS handshake done. Raises OSError; neither a failure nor a cancel leaves a socket."""
    tcp = TcpLink(_take_socket(await trio.open_tcp_stream(host, port)))
    if tls is None:
        return tcp
    failed = True
    try:
        link = TlsLink.over(tcp, tls, host)
        while not link.shake_hands():
            await _until_readable(link)
        failed = False
    except (OSError, ValueError) as error:
        raise ConnectionError(f"no TLS with {host}: {error}") from error
    finally:
        if failed:
            tcp.close()
    return link


async def _shake_hands(link: Link, request: Request) -> bytes:
    """Ask for the upgrade; returns what came behind the answer. Raises as open_client."""
    protocol = WSConnection(ConnectionType.CLIENT)
    link.write(protocol.send(request))
    raw = b""
    while _HEAD_END not in raw:
        raw += await _read(link)
        if len(raw) > MAX_HEAD_BYTES:
            raise SocketClosedError(1006, "the handshake's head is too long")
    head, _, unread = raw.partition(_HEAD_END)
    try:
        protocol.receive_data(head + _HEAD_END)
        events = list(protocol.events())
        if isinstance(events[0], AcceptConnection):
            return unread
        if unread:  # nothing would be the end
            protocol.receive_data(unread)
        raise await _refusal(link, protocol, [*events, *protocol.events()])
    except RemoteProtocolError as error:
        raise SocketClosedError(1006, f"during the handshake: {error}") from None


async def _refusal(link: Link, protocol: WSConnection, events: list[Event]) -> HandshakeRejectedError:
    """The answer that was no upgrade, with the beginning of its body."""
    status, body = 0, b""
    while True:
        for event in events:
            if isinstance(event, RejectConnection):
                status = event.status_code
                if not event.has_body:
                    return HandshakeRejectedError(status)
            elif isinstance(event, RejectData):
                body += event.data
                if event.body_finished or len(body) > _SHOWN_BYTES:
                    return HandshakeRejectedError(status, body.decode(errors="replace")[:_SHOWN_BYTES])
        protocol.receive_data(await _read(link))
        events = list(protocol.events())


async def _read(link: Link) -> bytes:
    """Wait for bytes. Raises SocketClosedError at the end."""
    while True:
        await _until_readable(link)
        try:
            data = link.read()
        except OSError as error:
            raise SocketClosedError(1006, f"during the handshake: {error}") from None
        if data:
            return data
        if link.ended:
            raise SocketClosedError(1006, "during the handshake")


async def _until_readable(link: Link) -> None:
    """Wait until there is something to read; what waits to be written is written meanwhile."""
    while link.unsent:
        await trio.lowlevel.wait_writable(link.fileno())
        link.flush()
    await trio.lowlevel.wait_readable(link.fileno())


def _take_socket(stream: trio.SocketStream) -> socket.socket:
    """Take the socket out of Trio's hands: the stream is empty from then on, closing it does nothing."""
    trio.lowlevel.notify_closing(stream.socket)
    taken = socket.socket(fileno=stream.socket.detach())
    taken.setblocking(False)
    return taken

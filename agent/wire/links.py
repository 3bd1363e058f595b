"""A connection's bytes without waiting: plain TCP, and TLS through two memory buffers. Synchronous, for a poller.

What the socket does not take waits here, and ``flush`` goes on with it, so that no message is ever cut in two by
whoever sent it. How much may wait is the business of whoever writes.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final, Protocol

import attrs
from typing_extensions import override

from agent.wire.message_socket import RECEIVE_BUFFER_BYTES

_TLS_RECORD_BYTES: Final = 16 * 1024


class Link(Protocol):
    """A connected, non-blocking socket. All methods raise OSError when it breaks."""

    ended: bool
    """The peer sends no more."""

    def fileno(self) -> int:
        """The file descriptor."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for ``flush``."""

    def read(self) -> bytes:
        """What is there, at most a buffer of it; empty if there is nothing now, or at the end."""

    def write(self, data: bytes) -> bool:
        """Send, or keep what is not taken; whether with that something begins to wait."""

    def flush(self) -> None:
        """Send more of what waits."""

    def close(self) -> None:
        """Close the socket; may be repeated."""


@attrs.define(eq=False)
class TcpLink(Link):
    """Plain TCP."""

    sock: socket.socket
    ended: bool = False
    _unsent: bytearray = attrs.field(factory=bytearray, repr=False)

    @override
    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    @override
    def unsent(self) -> int:
        return len(self._unsent)

    @override
    def read(self) -> bytes:
        try:
            data = self.sock.recv(RECEIVE_BUFFER_BYTES)
        except BlockingIOError:
            return b""
        self.ended = not data
        return data

    @override
    def write(self, data: bytes) -> bool:
        if self._unsent:
            self._unsent += data
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return False
        self._unsent += data[sent:]
        return True

    @override
    def flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            return

    @override
    def close(self) -> None:
        self.sock.close()


@attrs.define(eq=False)
class TlsLink(Link):
    """TLS over a TcpLink, as the client. Ready when ``shake_hands`` has said so."""

    tcp: TcpLink
    _tls: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    ended: bool = False
    _refused: bytearray = attrs.field(factory=bytearray, repr=False)
    """Plain text that TLS takes only when it has heard from the peer: a renegotiation."""

    @classmethod
    def over(cls, tcp: TcpLink, context: ssl.SSLContext, host: str) -> TlsLink:
        """Not yet ready. ``host`` is sent (SNI) and held against the certificate, as ``context`` wants it."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return cls(tcp, context.wrap_bio(incoming, outgoing, server_hostname=host), incoming, outgoing)

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done. Raises OSError: TLS's own, or the peer leaves."""
        self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self.tcp.ended:
                raise ConnectionResetError("the peer left during the TLS handshake") from None
            return False
        finally:
            self._send()
        return True

    @override
    def fileno(self) -> int:
        return self.tcp.fileno()

    @property
    @override
    def unsent(self) -> int:
        return self.tcp.unsent + len(self._refused)

    @override
    def read(self) -> bytes:
        self._receive()
        parts = []
        try:
            while part := self._tls.read(_TLS_RECORD_BYTES):
                parts.append(part)
                if not self._incoming.pending and not self._tls.pending():
                    break
            else:
                self.ended = True  # the peer closed in order
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.ended = True
        self.ended = self.ended or self.tcp.ended
        if not self.ended:
            # Reading may have written: the answer to a new key, or what waited for the peer.
            self._encrypt()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @override
    def write(self, data: bytes) -> bool:
        waited = self.unsent
        self._refused += data
        self._encrypt()
        return not waited and bool(self.unsent)

    @override
    def flush(self) -> None:
        self.tcp.flush()

    @override
    def close(self) -> None:
        """Say so to the peer, where that takes no waiting."""
        if self.tcp.fileno() >= 0:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            with suppress(OSError):
                self._send()
        self.tcp.close()

    def _receive(self) -> None:
        if data := self.tcp.read():
            self._incoming.write(data)
        elif self.tcp.ended:
            self._incoming.write_eof()

    def _encrypt(self) -> None:
        try:
            while self._refused:
                del self._refused[: self._tls.write(self._refused)]
        except ssl.SSLWantReadError:
            pass
        self._send()

    def _send(self) -> None:
        if self._outgoing.pending:
            self.tcp.write(self._outgoing.read())

"""TLS through memory buffers against a real TLS server, its records cut anywhere; TCP with a slow peer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import attrs
import pytest
from socket_pairs import NAME, client_context, server_context

from agent.wire.links import TcpLink, TlsLink

pytestmark = pytest.mark.sockets


@attrs.define(eq=False)
class Server:
    """The other end: OpenSSL's server, whose bytes the test hands on as it likes."""

    sock: socket.socket
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    def receive(self) -> None:
        """Take what the client's side sent."""
        try:
            while data := self.sock.recv(65_536):
                self.incoming.write(data)
        except BlockingIOError:
            pass

    def decrypted(self) -> bytes:
        """All that came, so far as it is whole."""
        self.receive()
        text = b""
        try:
            while part := self.tls.read(65_536):
                text += part
        except ssl.SSLWantReadError:
            pass
        return text

    def encrypted(self, *messages: bytes) -> bytes:
        """Records, one for each message."""
        for message in messages:
            self.tls.write(message)
        return self.outgoing.read()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected, non-blocking sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def make_server(sock: socket.socket, context: ssl.SSLContext | None = None) -> Server:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = (context or server_context()).wrap_bio(incoming, outgoing, server_side=True)
    return Server(sock, tls, incoming, outgoing)


def shake_hands(link: TlsLink, server: Server, piece: int = 100_000) -> None:
    """Until both are ready; the server's bytes come ``piece`` by piece."""
    ready = {"link": False, "server": False}
    while not all(ready.values()):
        ready["link"] = ready["link"] or link.shake_hands()
        server.receive()
        try:
            server.tls.do_handshake()
            ready["server"] = True
        except ssl.SSLWantReadError:
            pass
        said = server.outgoing.read()
        for at in range(0, len(said), piece):
            server.sock.send(said[at : at + piece])
            if not ready["link"]:
                ready["link"] = link.shake_hands()
            else:
                assert link.read() == b"", "a session ticket is no text"


@pytest.fixture
def pair(sockets: tuple[socket.socket, socket.socket]) -> tuple[TlsLink, Server]:
    """A link that is ready, and its server."""
    link, server = TlsLink.over(TcpLink(sockets[0]), client_context(), NAME), make_server(sockets[1])
    shake_hands(link, server)
    return link, server


def test_a_handshake_in_pieces_names_the_host(sockets: tuple[socket.socket, socket.socket]) -> None:
    """SNI; and every byte of the server's may come alone."""
    names: list[str | None] = []
    context = server_context()
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    link = TlsLink.over(TcpLink(sockets[0]), client_context(), NAME)
    shake_hands(link, make_server(sockets[1], context), piece=7)
    assert names == [NAME]


@pytest.mark.parametrize(
    ("context", "host", "why"),
    [(ssl.create_default_context, NAME, "verify failed"), (client_context, "another.test", "Hostname mismatch")],
)
def test_a_certificate_that_is_not_good_is_an_error(
    sockets: tuple[socket.socket, socket.socket],
    context: Callable[[], ssl.SSLContext],
    host: str,
    why: str,
) -> None:
    """Of an authority that nobody trusts, and of another host; the server is told by an alert."""
    link, server = TlsLink.over(TcpLink(sockets[0]), context(), host), make_server(sockets[1])
    with pytest.raises(OSError, match=why):
        shake_hands(link, server)
    server.receive()
    with pytest.raises(ssl.SSLError, match="ALERT"):
        server.tls.do_handshake()


def test_a_server_that_speaks_no_tls_is_an_error(sockets: tuple[socket.socket, socket.socket]) -> None:
    """And one that leaves."""
    link = TlsLink.over(TcpLink(sockets[0]), client_context(), NAME)
    assert not link.shake_hands()
    sockets[1].send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(OSError, match="SSL"):
        link.shake_hands()
    link = TlsLink.over(TcpLink(sockets[0]), client_context(), NAME)
    sockets[1].close()
    with pytest.raises(ConnectionError):
        link.shake_hands()


@pytest.mark.parametrize("piece", [1, 13, 5000, 16_384])
def test_records_may_be_cut_anywhere(pair: tuple[TlsLink, Server], piece: int) -> None:
    """What is whole is read at once, what is not with its rest; several records in one read, a record in many."""
    link, server = pair
    messages = [b"a", b"b" * 300, b"c" * 16_384, b"d" * 10]
    wire, text = server.encrypted(*messages), b""
    for at in range(0, len(wire), piece):
        server.sock.send(wire[at : at + piece])
        text += link.read()
        assert not link.ended
    assert text == b"".join(messages)
    assert link.read() == b""


def test_what_the_socket_does_not_take_is_kept_in_order(pair: tuple[TlsLink, Server]) -> None:
    link, server = pair
    messages = [bytes([number]) * 100_000 for number in range(30)]
    for message in messages:
        link.write(message)
    assert link.unsent > 0
    arrived = b""
    while link.unsent:
        arrived += server.decrypted()
        link.flush()
    assert arrived + server.decrypted() == b"".join(messages)


def test_the_end_is_seen_however_it_comes(pair: tuple[TlsLink, Server]) -> None:
    """With close_notify alone, behind the last words in the same read."""
    link, server = pair
    wire = server.encrypted(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    server.sock.send(wire + server.outgoing.read())
    assert (link.read(), link.ended) == (b"last words", True)


def test_an_end_of_tcp_alone_is_an_end(pair: tuple[TlsLink, Server]) -> None:
    link, server = pair
    server.sock.send(server.encrypted(b"last words"))
    server.sock.close()
    assert (link.read(), link.ended) == (b"last words", False)
    assert (link.read(), link.ended) == (b"", True)


def test_closing_says_so(pair: tuple[TlsLink, Server]) -> None:
    link, server = pair
    link.write(b"last words")
    link.close()
    link.close()
    server.receive()
    assert server.tls.read(100) == b"last words"
    assert server.tls.read(100) == b""


def test_what_tls_takes_only_later_is_kept(pair: tuple[TlsLink, Server]) -> None:
    """A renegotiation: OpenSSL wants to hear from the peer before it takes more."""
    link, server = pair
    tls = link._tls

    @attrs.define(eq=False)
    class Busy:
        """OpenSSL that refuses to write until it has read."""

        read_once: bool = False

        def write(self, data: bytes) -> int:
            """See ssl.SSLObject."""
            if not self.read_once:
                raise ssl.SSLWantReadError
            return tls.write(data)

        def read(self, size: int) -> bytes:
            """See ssl.SSLObject."""
            self.read_once = True
            return tls.read(size)

        def pending(self) -> int:
            """See ssl.SSLObject."""
            return tls.pending()

    link._tls = Busy()  # type: ignore[assignment]
    link.write(b"one, ")
    link.write(b"two")
    assert link.unsent == 8
    assert server.decrypted() == b""
    link.read()
    assert link.unsent == 0
    assert server.decrypted() == b"one, two"


def test_tcp_keeps_what_is_not_taken(sockets: tuple[socket.socket, socket.socket]) -> None:
    """In order, also what is written meanwhile; and sees a peer that leaves."""
    link, peer = TcpLink(sockets[0]), sockets[1]
    assert (link.read(), link.ended) == (b"", False)
    whole = b"".join(bytes([number]) * 50_000 for number in range(40))
    for at in range(0, len(whole), 50_000):
        link.write(whole[at : at + 50_000])
    arrived = b""
    while len(arrived) < len(whole):
        arrived += peer.recv(65_536)
        link.flush()
    assert arrived == whole
    peer.close()
    assert (link.read(), link.ended) == (b"", True)
    with pytest.raises(BrokenPipeError):
        link.write(b"x")

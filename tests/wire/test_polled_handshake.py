"""How a connection becomes the poller's, and every way in which it does not; real sockets."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from socket_pairs import NAME, server_context, trusted

from agent.core.errors import HandshakeRejectedError, SocketClosedError
from agent.wire import polled_handshake
from agent.wire.frames import FrameWriter
from agent.wire.polled_socket import PolledWebSocket
from agent.wire.poller import Poller
from agent.wire.upgrade import Upgrade, receive_upgrade
from agent.wire.websocket import Handshake, open_client, open_server_handshake

pytestmark = pytest.mark.sockets
Serve = Callable[[trio.SocketStream], Awaitable[None]]
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %s\r\n\r\n"
)


def open_fds() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@asynccontextmanager
async def polling() -> AsyncIterator[None]:
    """The poller runs; when left, nothing is left: no file descriptor, nobody watched."""
    running, before = Poller(), open_fds()
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(running.run)
            yield
            assert not running._polled
            nursery.cancel_scope.cancel()
        assert open_fds() == before


@asynccontextmanager
async def serving(serve: Serve, scheme: str = "ws", host: str = "127.0.0.1") -> AsyncIterator[str]:
    """A server; yields its URL."""
    async with polling(), trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield f"{scheme}://{host}:{listeners[0].socket.getsockname()[1]}/media?x=1"
        nursery.cancel_scope.cancel()


async def accept(handshake: Handshake) -> None:
    """Say back what comes."""
    peer = await handshake.accept()
    try:
        while True:
            await peer.send(str(await peer.receive()))
    except SocketClosedError:
        await peer.aclose()


def handing(over: Callable[[Handshake], Awaitable[None]]) -> Serve:
    async def serve(stream: trio.SocketStream) -> None:
        async with open_server_handshake(await receive_upgrade(stream)) as handshake:
            await over(handshake)

    return serve


async def test_both_sides_are_the_pollers() -> None:
    async with serving(handing(accept)) as url, open_client(url) as client:
        assert isinstance(client, PolledWebSocket)
        for message in ("hello", "שלום", "x" * 300_000):
            assert await client.send(message)
            assert await client.receive() == message
        await client.ping()


async def test_the_handshake_shows_target_and_headers() -> None:
    seen: list[tuple[str, str, str]] = []

    async def look(handshake: Handshake) -> None:
        seen.append((handshake.target, handshake.headers["x-twilio-signature"], handshake.headers["host"]))
        await accept(handshake)

    async with serving(handing(look)) as url, open_client(url, headers=[("X-Twilio-Signature", "abc=")]):
        pass
    assert seen == [("/media?x=1", "abc=", url.split("/")[2])]


async def test_a_refusal_is_an_error_with_status_and_body() -> None:
    async with serving(handing(lambda handshake: handshake.reject(403, "no such call"))) as url:
        with pytest.raises(HandshakeRejectedError) as caught:
            async with open_client(url):
                pytest.fail("the handshake was refused")
    assert (caught.value.status, caught.value.body) == (403, "no such call")


def saying(*pieces: bytes, stays: bool = False) -> Serve:
    """A server of bytes."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.01)
        if stays:
            await trio.sleep_forever()

    return serve


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n", b"go", b"ne"], 404, "gone"),
        ([b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"], 401, ""),
        ([b"HTTP/1.1 500 No\r\nContent-Length: 90000\r\n\r\n", b"x" * 3000], 500, "x" * 200),
    ],
)
async def test_a_refusal_may_come_in_pieces(pieces: list[bytes], status: int, body: str) -> None:
    async with serving(saying(*pieces, stays=True)) as url:
        with pytest.raises(HandshakeRejectedError) as caught:
            async with open_client(url):
                pytest.fail("the handshake was refused")
    assert (caught.value.status, caught.value.body) == (status, body)


@pytest.mark.parametrize(
    "pieces",
    [(), (b"HTTP/1.1 101 Switching Pro",), (b"nonsense\r\n\r\n",), (ANSWER % b"wrong",), (b"x" * 20_000,)],
)
async def test_what_is_no_answer_is_an_end(pieces: tuple[bytes, ...]) -> None:
    """Nothing, half of one, none of HTTP, one that answers somebody else, and one without an end."""
    async with serving(saying(*pieces)) as url:
        with pytest.raises(SocketClosedError):
            async with open_client(url):
                pytest.fail("there was no handshake")


@pytest.mark.parametrize("stage", ["before TLS", "before the answer"])
async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """And so it is with a cancel while each of them is waited for: no socket is left (see the fixture)."""
    secure = stage == "before TLS"
    with trusted():
        async with serving(saying(stays=True), *(["wss", NAME] if secure else ["ws"])) as url:
            with trio.move_on_after(0.2) as scope:
                async with open_client(url):
                    pytest.fail("there was no handshake")
            assert scope.cancelled_caught
            monkeypatch.setattr(polled_handshake, "HANDSHAKE_S", 0.2)
            with pytest.raises(trio.TooSlowError):
                async with open_client(url):
                    pytest.fail("there was no handshake")


async def test_a_server_without_tls_is_an_error() -> None:
    with trusted():
        async with serving(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "wss", NAME) as url:
            with pytest.raises(OSError, match=r"no TLS with receiver\.test"):
                async with open_client(url):
                    pytest.fail("there was no handshake")


async def test_a_certificate_of_another_host_is_an_error() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, server_context(), server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()

    with trusted():
        async with serving(serve, "wss", "another.test") as url:
            with pytest.raises(OSError, match=r"no TLS with another\.test"):
                async with open_client(url):
                    pytest.fail("there was no handshake")


async def test_nobody_listens() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with polling():
        with pytest.raises(OSError, match="connect"):
            async with open_client(f"ws://127.0.0.1:{port}/"):
                pytest.fail("nobody listens")


async def test_an_error_in_the_body_comes_bare_and_closes_the_socket() -> None:
    async with serving(handing(accept)) as url:
        with pytest.raises(KeyError):
            async with open_client(url):
                raise KeyError


HEAD = (
    b"GET /media HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: %d\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n"
)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """A peer's stream and ours."""
    wrap = trio.socket.from_stdlib_socket
    async with polling():
        theirs, ours = socket.socketpair()
        async with trio.SocketStream(wrap(theirs)) as peer, trio.SocketStream(wrap(ours)) as stream:
            yield peer, stream


@pytest.mark.parametrize("offered", [(), ("audio.twilio.com",), ("second", "first")])
async def test_wb_1_the_first_subprotocol_offered_is_answered(offered: tuple[str, ...]) -> None:
    """And if none was offered, none is answered."""
    field = f"Sec-WebSocket-Protocol: {', '.join(offered)}\r\n".encode() if offered else b""
    async with connection() as (peer, stream):
        async with open_server_handshake(Upgrade(stream, HEAD % (13, field), b"")) as handshake:
            assert handshake.subprotocols == offered
            await handshake.accept()
            answer = bytes(await peer.receive_some()).lower()
        assert (b"sec-websocket-protocol" in answer) is bool(offered)
        assert not offered or f"sec-websocket-protocol: {offered[0]}\r\n".encode() in answer


async def test_frames_behind_the_head_are_not_lost() -> None:
    """What the peer sent without waiting for the answer; half of a frame, too."""
    early = FrameWriter(client=True).message("early")
    async with (
        connection() as (peer, stream),
        open_server_handshake(Upgrade(stream, HEAD % (13, b""), early[:4])) as handshake,
    ):
        accepted = await handshake.accept()
        await peer.send_all(early[4:])
        assert await accepted.receive() == "early"


async def test_a_head_that_is_no_handshake_is_answered_and_refused() -> None:
    async with connection() as (peer, stream):
        with pytest.raises(SocketClosedError):
            async with open_server_handshake(Upgrade(stream, HEAD % (12, b""), b"")):
                pytest.fail("it is of another version")
        assert bytes(await peer.receive_some()).startswith(b"HTTP/1.1 426 ")


async def test_a_peer_that_left_before_the_answer_is_an_end() -> None:
    async with connection() as (peer, stream):
        await peer.aclose()
        async with open_server_handshake(Upgrade(stream, HEAD % (13, b""), b"")) as handshake:
            with pytest.raises(SocketClosedError):
                await handshake.accept()

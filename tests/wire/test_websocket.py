"""One WebSocket: how it begins, carries and ends, over memory streams in virtual time and over real sockets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Request, TextMessage

from agent.core.errors import HandshakeRejectedError, SocketClosedError
from agent.sim.link import HeldStream, memory_link
from agent.sim.memory import open_memory_sockets
from agent.wire.upgrade import Upgrade
from agent.wire.websocket import (
    CANCELLED_CLOSE_GRACE_S,
    CLOSE_GRACE_S,
    HANDSHAKE_S,
    MAX_MESSAGE_BYTES,
    QUEUED_MESSAGES,
    open_client,
    open_client_over,
    open_server_handshake,
    open_server_over,
)


async def reject(stream: trio.abc.Stream, status: int = 403, body: str = "no such call") -> None:
    async with open_server_over(stream) as handshake:
        await handshake.reject(status, body)


async def echo(stream: trio.abc.Stream) -> None:
    """Send back what comes until the peer closes."""
    async with open_server_over(stream) as handshake:
        socket = await handshake.accept()
        try:
            while True:
                await socket.send(str(await socket.receive()))
        except SocketClosedError:
            await socket.aclose()


@asynccontextmanager
async def bare_server(*, answers_close: bool = True) -> AsyncIterator[tuple[HeldStream, list[Event]]]:
    """The client's stream to a server of nothing but the protocol; the events it saw, as they come."""
    client, server = memory_link()
    seen: list[Event] = []

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        protocol = WSConnection(ConnectionType.SERVER)
        task_status.started()
        async for data in server:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                seen.append(event)
                if isinstance(event, Request):
                    await server.send_all(protocol.send(AcceptConnection()))
                elif isinstance(event, CloseConnection) and answers_close:
                    await server.send_all(protocol.send(event.response()))

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield client, seen
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


# The handshake


async def test_a_refusal_is_an_error_with_status_and_body(autojump_clock: MockClock) -> None:
    client, server = memory_link()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reject, server)
        with trio.fail_after(1), pytest.raises(HandshakeRejectedError) as caught:
            async with open_client_over(client, "memory", "/"):
                pytest.fail("the handshake was refused")
    assert (caught.value.status, caught.value.body) == (403, "no such call")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switching Pro"])
async def test_a_peer_that_hangs_up_in_the_handshake_is_noticed_at_once(
    said: bytes, autojump_clock: MockClock
) -> None:
    """Not only when the handshake's time is over."""
    client, server = memory_link()
    await server.send_all(said)
    await server.aclose()
    began = trio.current_time()
    with pytest.raises(SocketClosedError) as caught:
        async with open_client_over(client, "memory", "/"):
            pytest.fail("there was no handshake")
    assert caught.value.code == 1006
    assert trio.current_time() == began


async def test_an_answer_that_is_no_http_is_given_up(autojump_clock: MockClock) -> None:
    """The engine would tell a client's peer what was wrong, which HTTP does not allow: no error of its own."""
    client, server = memory_link()
    await server.send_all(b"nonsense\r\n\r\n")
    with pytest.raises((SocketClosedError, trio.TooSlowError)):
        async with open_client_over(client, "memory", "/"):
            pytest.fail("there was no handshake")


async def test_a_silent_server_is_given_up(autojump_clock: MockClock) -> None:
    client, _server = memory_link()
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        async with open_client_over(client, "memory", "/"):
            pytest.fail("there was no handshake")
    assert trio.current_time() - began == pytest.approx(HANDSHAKE_S)


async def test_a_silent_client_is_given_up(autojump_clock: MockClock) -> None:
    _client, server = memory_link()
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        async with open_server_over(server):
            pytest.fail("there was no handshake")
    assert trio.current_time() - began == pytest.approx(HANDSHAKE_S)


@pytest.mark.parametrize("offered", [(), ("audio.twilio.com",), ("second", "first")])
async def test_wb_1_the_first_subprotocol_offered_is_answered(
    offered: tuple[str, ...], autojump_clock: MockClock
) -> None:
    """And if none was offered, none is answered."""
    client, server = memory_link()
    seen: list[tuple[str, ...]] = []

    async def serve() -> None:
        async with open_server_over(server) as handshake:
            seen.append(handshake.subprotocols)
            socket = await handshake.accept()
            with pytest.raises(SocketClosedError):
                await socket.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(5):
            async with open_client_over(client, "memory", "/", subprotocols=offered) as socket:
                assert socket._connection.subprotocol == (offered[0] if offered else None)
    assert seen == [offered]


async def test_the_handshake_shows_target_and_headers(autojump_clock: MockClock) -> None:
    client, server = memory_link()
    shown: list[tuple[str, str | None]] = []

    async def serve() -> None:
        async with open_server_over(server) as handshake:
            shown.append((handshake.target, handshake.headers.get("x-twilio-signature")))
            await (await handshake.accept()).aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        headers = [("X-Twilio-Signature", "abc=")]
        async with open_client_over(client, "memory", "/media?x=1", headers=headers):
            pass
    assert shown == [("/media?x=1", "abc=")]


async def test_a_handshake_is_taken_over_with_what_came_behind_it(autojump_clock: MockClock) -> None:
    """Whoever read the head hands it on: frames the peer sent without waiting for the answer are not lost."""
    client, server = memory_link()
    protocol = WSConnection(ConnectionType.CLIENT)
    request = protocol.send(Request(host="memory", target="/media?x=1"))
    masked = b"\x81\x85" + bytes(4) + b"early"
    async with open_server_handshake(Upgrade(server, request, masked[:4])) as handshake:
        assert handshake.target == "/media?x=1"
        socket = await handshake.accept()
        await client.send_all(masked[4:])
        assert await socket.receive() == "early"
        await client.aclose()
        await socket.aclose()


async def test_wb_3_messages_are_text_or_binary(autojump_clock: MockClock) -> None:
    """Both ways, each with the last look before its write."""
    async with open_memory_sockets() as (client, server):
        assert await server.send(b"\0\1")
        assert not await server.send(b"not any more", lambda: False)
        assert await server.send("text", lambda: True)
        assert await client.send(b"\xff" * 70_000)
        assert [await client.receive(), await client.receive()] == [b"\0\1", "text"]
        assert await server.receive() == b"\xff" * 70_000


async def test_a_head_without_an_end_is_not_read_for_ever(autojump_clock: MockClock) -> None:
    client, server = memory_link()

    async def flood() -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await client.send_all(b"GET / HTTP/1.1 " * 100)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with pytest.raises(SocketClosedError):
            async with open_server_over(server):
                pytest.fail("there was no handshake")


async def test_an_error_in_the_body_comes_bare(autojump_clock: MockClock) -> None:
    async with bare_server() as (client, _):
        with pytest.raises(KeyError):
            async with open_client_over(client, "memory", "/"):
                raise KeyError


async def test_a_connection_reset_in_the_handshake_is_noticed_at_once(autojump_clock: MockClock) -> None:
    """The peer takes the request and drops the connection with a reset instead of an end."""

    @attrs.define(eq=False)
    class Reset(HeldStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.sleep(1)
            raise trio.BrokenResourceError("reset by peer")

    client, _server = memory_link()
    began = trio.current_time()
    with pytest.raises(SocketClosedError):
        async with open_client_over(Reset(client), "memory", "/"):
            pytest.fail("there was no handshake")
    assert trio.current_time() - began == 1


# Messages


async def test_wanted_is_asked_last_and_a_refusal_leaves_a_valid_stream(autojump_clock: MockClock) -> None:
    """DESIGN D4: what was refused is not on the wire, and what follows arrives."""
    async with open_memory_sockets() as (client, server):
        assert await client.send("first", lambda: True)
        for _ in range(3):
            assert not await client.send("never", lambda: False)
        assert await client.send("second")
        await client.ping()
        assert [await server.receive(), await server.receive()] == ["first", "second"]


async def test_a_message_larger_than_the_pipe_arrives_whole(autojump_clock: MockClock) -> None:
    message = "שלום " * 50_000
    async with open_memory_sockets(memory_link(4096)) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send, message)
        with trio.fail_after(5):
            assert await server.receive() == message


async def test_ping_waits_for_the_pong(autojump_clock: MockClock) -> None:
    client_stream, server_stream = memory_link()
    async with open_memory_sockets((client_stream, server_stream)) as (client, _server):
        await client.ping()
        server_stream.hold()
        with trio.move_on_after(30) as unanswered:
            await client.ping()
        assert unanswered.cancelled_caught
        server_stream.let_go()
        with trio.fail_after(1):
            await client.ping()


async def test_a_full_queue_loses_nothing(autojump_clock: MockClock) -> None:
    """Nobody receives for a while: reading stops, the sender waits, and then all arrives in order."""
    total = 3 * QUEUED_MESSAGES
    sent = 0

    async with open_memory_sockets(memory_link(1024)) as (client, server):

        async def send() -> None:
            nonlocal sent
            await trio.lowlevel.checkpoint()
            while sent < total:
                await client.send(f"{sent:0100}")
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            assert QUEUED_MESSAGES <= sent < total, "the sender feels that nobody reads"
            arrived: list[int] = []
            with trio.fail_after(5):
                while len(arrived) < total:
                    arrived.append(int(await server.receive()))
        assert arrived == list(range(total))


async def test_a_cancelled_receive_loses_no_message(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (client, server):
        for number in itertools.count():
            with trio.CancelScope() as scope:
                scope.cancel()
                await server.receive()
            await client.send(str(number))
            await client.ping()
            assert await server.receive() == str(number)
            if number == 20:
                break


async def test_wb_6_too_large_a_message_closes_with_1009(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(SocketClosedError):  # whether the write fails depends on when the server closes
                await client.send("x" * (MAX_MESSAGE_BYTES + 1))

        nursery.start_soon(send)
        with trio.fail_after(5), pytest.raises(SocketClosedError) as caught:
            await server.receive()
        assert caught.value.code == 1009


async def test_the_largest_message_is_taken(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.send, "x" * MAX_MESSAGE_BYTES)
        with trio.fail_after(5):
            assert len(await server.receive()) == MAX_MESSAGE_BYTES


# The end


async def test_both_sides_see_the_code_and_reason(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (client, server):
        await client.send("last words")
        await client.aclose(4001, "enough")
        assert await server.receive() == "last words", "what was sent before the close still arrives"
        with pytest.raises(SocketClosedError) as caught:
            await server.receive()
        assert (caught.value.code, caught.value.reason) == (4001, "enough")
        with pytest.raises(SocketClosedError):
            await client.send("too late")
        await client.aclose()


async def test_a_connection_that_breaks_is_1006(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (client, server):
        await client.abort()
        with trio.fail_after(5), pytest.raises(SocketClosedError) as caught:
            await server.receive()
        assert caught.value.code == 1006
        with pytest.raises(SocketClosedError):
            await server.ping()


async def test_a_peer_that_never_answers_the_close_costs_a_second(autojump_clock: MockClock) -> None:
    async with bare_server(answers_close=False) as (client, seen):
        async with open_client_over(client, "memory", "/") as socket:
            began = trio.current_time()
            await socket.aclose()
            assert trio.current_time() - began == pytest.approx(CLOSE_GRACE_S)
        assert trio.current_time() - began == pytest.approx(CLOSE_GRACE_S), "it is closed only once"
    assert isinstance(seen[-1], CloseConnection)


async def test_a_close_in_a_cancelled_scope_still_sends_its_frame(autojump_clock: MockClock) -> None:
    """Behind the messages before it, and without the whole grace: no answer could be read any more."""
    async with bare_server() as (client, seen):
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with open_client_over(client, "memory", "/") as socket:
                await socket.send("last words")
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert trio.current_time() - began <= CANCELLED_CLOSE_GRACE_S + 1e-6
    assert [type(event) for event in seen] == [Request, TextMessage, CloseConnection]


async def test_a_close_that_cannot_even_be_written_is_bounded(autojump_clock: MockClock) -> None:
    """The peer reads nothing and the pipe is full: the close frame has no room, the connection is dropped."""
    client_stream, server_stream = memory_link(1024)
    async with open_memory_sockets((client_stream, server_stream)) as (client, _server):
        server_stream.hold()
        with trio.move_on_after(1):
            await client.send("x" * 10_000)
        began = trio.current_time()
        await client.aclose()
        assert trio.current_time() - began <= CLOSE_GRACE_S + 1e-6


# Real sockets


@pytest.mark.sockets
async def test_over_a_real_socket() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
            host, port = listener.socket.getsockname()[:2]
            async with open_client(f"ws://{host}:{port}/media?x=1") as socket:
                for message in ("hello", "שלום", "x" * 300_000):
                    assert await socket.send(message)
                    assert await socket.receive() == message
                await socket.ping()
            nursery.cancel_scope.cancel()


@pytest.mark.sockets
async def test_a_refusal_over_a_real_socket() -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, reject, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            with pytest.raises(HandshakeRejectedError) as caught:
                async with open_client(f"ws://127.0.0.1:{port}/"):
                    pytest.fail("the handshake was refused")
            assert caught.value.status == 403
            nursery.cancel_scope.cancel()


@pytest.mark.sockets
async def test_nobody_listens() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with trio.fail_after(10), pytest.raises(OSError, match="connect"):
        async with open_client(f"ws://127.0.0.1:{port}/"):
            pytest.fail("nobody listens")

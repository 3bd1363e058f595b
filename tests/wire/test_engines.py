"""What every engine promises of a MessageSocket: the same tests for all of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
from socket_pairs import ENGINES, open_sockets

from agent.core.errors import SocketClosedError
from agent.wire.websocket import CLOSE_GRACE_S, MAX_MESSAGE_BYTES, QUEUED_MESSAGES, EngineSocket

Pair = tuple[EngineSocket, EngineSocket]
pytestmark = pytest.mark.sockets


@pytest.fixture(params=ENGINES)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Client and server."""
    with trio.fail_after(20):
        async with open_sockets(request.param) as sockets:
            yield sockets


async def test_messages_arrive_as_they_were_sent(pair: Pair) -> None:
    """Both ways, of any size, in order."""
    client, server = pair
    messages = ["", "hello", "שלום", "x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536]
    for sender, receiver in (pair, pair[::-1]):
        async with trio.open_nursery() as nursery:
            for message in messages:
                nursery.start_soon(sender.send, message)
        assert sorted([str(await receiver.receive()) for _ in messages]) == sorted(messages)
    await client.send("last")
    assert await server.receive() == "last"


async def test_wb_3_messages_are_text_or_binary(pair: Pair) -> None:
    """Both ways, each with the last look before its write."""
    for sender, receiver in (pair, pair[::-1]):
        assert await sender.send(b"\0\1")
        assert not await sender.send(b"not any more", lambda: False)
        assert await sender.send("text", lambda: True)
        assert [await receiver.receive(), await receiver.receive()] == [b"\0\1", "text"]


async def test_wanted_is_asked_last_and_a_refusal_leaves_a_valid_stream(pair: Pair) -> None:
    """DESIGN D4: what was refused is not on the wire, and what follows arrives."""
    client, server = pair
    assert await client.send("first", lambda: True)
    for _ in range(3):
        assert not await client.send("never", lambda: False)
    assert await client.send("second")
    await client.ping()
    assert [await server.receive(), await server.receive()] == ["first", "second"]


async def test_the_largest_message_is_taken(pair: Pair) -> None:
    client, server = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, "x" * MAX_MESSAGE_BYTES)
        assert len(await server.receive()) == MAX_MESSAGE_BYTES


async def test_wb_6_too_large_a_message_closes_with_1009(pair: Pair) -> None:
    client, server = pair

    async def send() -> None:
        with suppress(SocketClosedError):  # whether the write fails depends on when the server closes
            await client.send("x" * (MAX_MESSAGE_BYTES + 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with pytest.raises(SocketClosedError) as caught:
            await server.receive()
        await server.aclose()
    assert caught.value.code == 1009


async def test_a_full_queue_loses_nothing(pair: Pair) -> None:
    """Nobody receives for a while: reading stops, the sender waits, and then all arrives in order."""
    client, server = pair
    text, total = "x" * 20_000, 2 * QUEUED_MESSAGES
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < total:
            await client.send(f"{sent:08}{text}")
            sent += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        seen = -1
        while seen != sent:  # until it stands still
            seen = sent
            await trio.sleep(0.2)
        assert sent < total, "the sender feels that nobody reads"
        arrived = [int(str(await server.receive())[:8]) for _ in range(total)]
    assert arrived == list(range(total))


async def test_a_cancelled_receive_loses_no_message(pair: Pair) -> None:
    """Cancelled before it waits, or while it waits."""
    client, server = pair
    for number in range(20):
        with trio.CancelScope() as scope:
            if number % 2:
                scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.receive)
                await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await client.send(str(number))
        await client.ping()
        assert await server.receive() == str(number)


async def test_a_cancel_before_the_write_sends_nothing(pair: Pair) -> None:
    client, server = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.send("never")
    assert scope.cancelled_caught
    await client.send("next")
    assert await server.receive() == "next"


async def test_ping_waits_for_the_pong(pair: Pair) -> None:
    """Each for its own, whoever else waits; a cancelled one is forgotten."""
    client, server = pair
    for _ in range(3):
        await client.ping()
        await server.ping()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.ping()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(client.ping)


# The end


async def test_both_sides_see_the_code_and_reason(pair: Pair) -> None:
    client, server = pair
    await client.send("last words")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose, 4001, "enough")
        assert await server.receive() == "last words", "what was sent before the close still arrives"
        with pytest.raises(SocketClosedError) as caught:
            await server.receive()
    assert (caught.value.code, caught.value.reason) == (4001, "enough")
    for socket in pair:
        with pytest.raises(SocketClosedError):
            await socket.send("too late")
        with pytest.raises(SocketClosedError):
            await socket.ping()
        with pytest.raises(SocketClosedError):
            await socket.receive()
        await socket.aclose()


async def test_a_connection_that_breaks_is_1006(pair: Pair) -> None:
    """Whoever waits is told: for a message, for a pong."""
    client, server = pair
    codes: list[int] = []

    async def wait(what: str) -> None:
        with pytest.raises(SocketClosedError) as caught:
            await getattr(server, what)()
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "receive")
        await trio.sleep(0.05)
        await client.abort()
    await wait("ping")
    assert codes == [1006, 1006]


async def test_both_may_close_at_once(pair: Pair) -> None:
    """The two close frames cross; nobody waits for the whole grace."""
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for socket in pair:
            nursery.start_soon(socket.aclose)
    assert trio.current_time() - began < CLOSE_GRACE_S


async def test_a_close_in_a_cancelled_scope_still_sends_its_frame(pair: Pair) -> None:
    client, server = pair
    await client.send("last words")
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.aclose(4002, "in a hurry")
    assert await server.receive() == "last words"
    with pytest.raises(SocketClosedError) as caught:
        await server.receive()
    assert caught.value.code == 4002


async def test_a_cancelled_writer_leaves_a_stream_that_can_be_closed(pair: Pair) -> None:
    """The peer does not read: the message does not go out whole, the closing is bounded all the same."""
    client, _server = pair
    with trio.move_on_after(0.3) as scope:
        for _ in itertools.count():
            await client.send("x" * MAX_MESSAGE_BYTES)
    assert scope.cancelled_caught
    with trio.fail_after(2 * CLOSE_GRACE_S):
        await client.aclose()

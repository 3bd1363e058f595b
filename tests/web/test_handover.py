"""Connections that one process passes on to another: as two doors, each with real sockets, in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from typing_extensions import override

from agent.carrier.front_door import FrontDoor
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.web.asgi import Origin
from agent.web.handover import Handover, Neighbours
from agent.web.head import RequestHead
from agent.wire.poller import open_poller
from agent.wire.websocket import Handshake, open_client

pytestmark = pytest.mark.sockets
POST = b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


@attrs.define(eq=False)
class Other(Neighbours):
    """The other door, to which ``paths`` are passed on as descriptors."""

    nursery: trio.Nursery
    paths: set[str] = attrs.field(factory=set)
    door: FrontDoor | None = None
    passed: list[bytes] = attrs.field(factory=list)
    is_there: bool = True

    @override
    def whose(self, path: str) -> int:
        return 2 if path in self.paths else 0

    @override
    async def pass_on(self, to: int, stream: trio.SocketStream, unread: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        if not self.is_there or self.door is None:
            return False
        self.passed.append(unread)
        copy = trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(stream.socket.fileno())))
        self.nursery.start_soon(self.door.serve_connection, trio.SocketStream(copy), unread)
        return True


async def name(door: str, scope: Any, receive: Any, send: Any) -> None:
    """An application that says whose it is, and what it was sent."""
    body = f"{door} {scope['path']} ".encode() + (await receive())["body"]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(door: str, handshake: Handshake, head: RequestHead, origin: Origin) -> None:
    """A stream that says whose it is, and echoes one message."""
    stream = await handshake.accept()
    await stream.send(f"{door} {head.target} {await stream.receive()!s}")


@asynccontextmanager
async def open_doors(*paths: str) -> AsyncIterator[tuple[FrontDoor, Other, tuple[str, int]]]:
    """The first door, who listens, and the neighbour who gets ``paths``."""
    with trio.fail_after(10):
        async with open_poller(), trio.open_nursery() as nursery:
            other = Other(nursery, set(paths))
            events = EventLog(Telemetry())
            # The second would pass everything back: what was passed on once is served.
            back = Other(nursery, set(paths))
            first = FrontDoor(partial(name, "first"), events, partial(echo, "first"), handover=Handover(other))
            other.door = FrontDoor(
                partial(name, "second"), events, partial(echo, "second"), handover=Handover(back)
            )
            back.door = first
            [listener] = await nursery.start(partial(trio.serve_tcp, first.serve_connection, 0, host="127.0.0.1"))
            yield first, other, listener.socket.getsockname()[:2]
            assert not back.passed
            nursery.cancel_scope.cancel()


async def answer(stream: trio.SocketStream) -> str:
    """The next answer's body."""
    received = b""
    while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < len("first /"):
        received += await stream.receive_some()
    return received.partition(b"\r\n\r\n")[2].decode()


async def test_a_request_of_another_process_is_served_there_with_all_that_was_sent() -> None:
    """Its head, half of its body that was read already, the other half, and the requests behind it."""
    async with open_doors("/theirs") as (_, other, address), await trio.open_tcp_stream(*address) as client:
        await client.send_all(POST % b"/ours" + b"body")
        assert await answer(client) == "first /ours body"
        await client.send_all(POST % b"/theirs" + b"bo")
        while not other.passed:  # noqa: ASYNC110 - a list tells nobody
            await trio.sleep(0.01)
        await client.send_all(b"dy")
        assert await answer(client) == "second /theirs body"
        await client.send_all(POST % b"/more" + b"body")
        assert await answer(client) == "second /more body"
        assert other.passed == [POST % b"/theirs" + b"bo"]


async def test_a_stream_finds_its_process_by_the_number_in_its_path() -> None:
    async with open_doors("/media-stream/2") as (_, _, (host, port)):
        for path, door in (
            ("/media-stream/2", "second"),
            ("/media-stream/1", "first"),
            ("/media-stream", "first"),
        ):
            async with open_client(f"ws://{host}:{port}{path}") as stream:
                await stream.send("hello")
                assert await stream.receive() == f"{door} {path} hello"


async def test_whoever_is_gone_is_replaced_by_us() -> None:
    async with open_doors("/theirs") as (_, other, address), await trio.open_tcp_stream(*address) as client:
        other.is_there = False
        await client.send_all(POST % b"/theirs" + b"body")
        assert await answer(client) == "first /theirs body"


async def test_idle_connections_are_left_to_the_others_with_half_a_head() -> None:
    """A proxy keeps connections for a minute: a process that ends leaves them, and nobody is cut off."""
    async with open_doors() as (first, other, address), await trio.open_tcp_stream(*address) as client:
        await client.send_all(POST % b"/ours" + b"body")
        assert await answer(client) == "first /ours body"
        request = POST % b"/any" + b"body"
        await client.send_all(request[:20])
        while len(first.lobby) == 0:  # noqa: ASYNC110 - a lobby tells nobody
            await trio.sleep(0.01)
        await trio.sleep(0.05)
        first.handover.let_go()  # with nobody to take it, it stays
        await client.send_all(request[20:])
        assert await answer(client) == "first /any body"
        other.paths.add("")
        first.handover.let_go()
        while not other.passed:  # noqa: ASYNC110 - a list tells nobody
            await trio.sleep(0.01)
        await client.send_all(request)
        assert await answer(client) == "second /any body"
        assert other.passed == [b""]
        assert len(first.lobby) == 0

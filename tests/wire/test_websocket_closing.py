"""A peer that pings while we close: the engine's answer comes too late, and that is nobody's problem."""

from __future__ import annotations

import trio
from trio.testing import MockClock, memory_stream_pair
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request

from agent.wire.websocket import open_client_over

LATE_PING = b"\x89\x04late"
"""A ping frame of four bytes, as RFC 6455 writes it."""


async def test_a_ping_that_crosses_our_close_frame_is_no_error(autojump_clock: MockClock) -> None:
    """The peer's ping arrives when our close frame is out: the socket closes quietly, within its grace."""
    client_stream, server_stream = memory_stream_pair()

    async def peer() -> None:
        protocol = WSConnection(ConnectionType.SERVER)
        async for data in server_stream:
            protocol.receive_data(bytes(data))
            for event in protocol.events():
                if isinstance(event, Request):
                    await server_stream.send_all(protocol.send(AcceptConnection()))
                elif isinstance(event, CloseConnection):
                    await server_stream.send_all(LATE_PING)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer)
            async with open_client_over(client_stream, "memory", "/") as socket:
                await socket.aclose()

"""Sockets without a network: the real WebSocket protocol over memory streams, for whole calls in virtual time.

Under pytest-trio's ``autojump_clock`` an hour of call takes seconds, and every run is the same::

    async def test_a_call(autojump_clock):
        model = ScriptedRealtime([Answer("Hello!", 900)])
        async with (
            open_memory_sockets() as (carrier_end, agent_end),
            memory_realtime(lambda: model)() as model_end,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(my_call, agent_end, model_end)
            async with open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1") as stream:
                await stream.until_heard_ms(900)
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import trio

from agent.core.task_nursery import open_task_nursery
from agent.sim.link import HeldStream, memory_link
from agent.wire.websocket import TrioWebSocket, open_client_over, open_server_over

Connect = Callable[[], AbstractAsyncContextManager[TrioWebSocket]]
"""How the agent reaches the model: called once for each connection."""


class RealtimeServer(Protocol):
    """What ``memory_realtime`` connects to: ``ScriptedRealtime``, or a server of your own."""

    async def serve(self, socket: TrioWebSocket, link: HeldStream | None = None) -> None:
        """Serve one connection until it closes; ``link`` is the server's end of the connection below."""


@asynccontextmanager
async def open_memory_sockets(
    link: tuple[HeldStream, HeldStream] | None = None,
) -> AsyncIterator[tuple[TrioWebSocket, TrioWebSocket]]:
    """A WebSocket's two ends, client and server, connected in memory; both are closed when left.

    Pass ``link`` (from ``memory_link``) to hold up or cut the connection underneath.
    """
    client_stream, server_stream = link or memory_link()
    accepted: trio.MemorySendChannel[TrioWebSocket]
    accepted, accepting = trio.open_memory_channel(1)

    async def serve(socket: TrioWebSocket) -> None:
        accepted.send_nowait(socket)
        await trio.sleep_forever()

    async with open_task_nursery() as task_nursery:
        task_nursery.start_soon(_serve_stream, server_stream, serve)
        async with open_client_over(client_stream, "memory", "/") as client:
            server = await accepting.receive()
            try:
                yield client, server
            finally:
                await client.aclose()


def memory_realtime(server_factory: Callable[[], RealtimeServer]) -> Connect:
    """A connector to a simulated model: each connection is served by what ``server_factory`` returns.

    Return the same server each time to let one script go on over a reconnect. A server that fails takes the
    connection's user down with it: a broken simulation must not pass unseen.
    """

    @asynccontextmanager
    async def connect() -> AsyncIterator[TrioWebSocket]:
        client_stream, server_stream = memory_link()
        server = server_factory()

        async def serve(socket: TrioWebSocket) -> None:
            await server.serve(socket, server_stream)

        async with open_task_nursery() as task_nursery:
            task_nursery.start_soon(_serve_stream, server_stream, serve)
            async with open_client_over(client_stream, "model", "/v1/realtime?model=scripted") as client:
                yield client

    return connect


async def _serve_stream(stream: HeldStream, serve: Callable[[TrioWebSocket], Awaitable[None]]) -> None:
    """Answer the handshake on ``stream`` and serve the socket; closes it at the end."""
    async with open_server_over(stream) as handshake:
        socket = await handshake.accept()
        try:
            await serve(socket)
        finally:
            await socket.aclose()

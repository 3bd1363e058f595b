"""Both ends of a WebSocket, by every engine: over memory, over TCP, over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
from typing_extensions import override

from agent.sim.memory import open_memory_sockets
from agent.wire import websocket
from agent.wire.poller import Poller
from agent.wire.upgrade import receive_upgrade
from agent.wire.websocket import EngineSocket, Handshake, open_client, open_server_handshake, open_server_over

ENGINES: Final = ("stream over memory", "stream over TCP", "polled over TCP", "polled over TLS")
CERTIFICATES: Final = Path(__file__).parent / "certificates"
NAME: Final = "receiver.test"
"""Of the certificate."""


@attrs.frozen
class Resolver(trio.abc.HostnameResolver):
    """Every name is this machine's."""

    @override
    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        await trio.lowlevel.checkpoint()
        return socket.getaddrinfo("127.0.0.1", int(port), socket.AF_INET, type, proto, flags)

    @override
    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def server_context() -> ssl.SSLContext:
    """What a TLS server named NAME speaks."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATES / "receiver.pem", CERTIFICATES / "receiver.key")
    return context


def client_context() -> ssl.SSLContext:
    """What trusts it."""
    return ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")


@asynccontextmanager
async def open_sockets(engine: str) -> AsyncIterator[tuple[EngineSocket, EngineSocket]]:
    """The client's and the server's end, connected; both are dropped when left.

    Over TLS only the client is the poller's, as in the product.
    """
    if engine == "stream over memory":
        async with open_memory_sockets() as pair:
            yield pair
        return
    accepted, accepting = trio.open_memory_channel[EngineSocket](1)
    secure = engine.endswith("TLS")

    async def serve(stream: trio.SocketStream) -> None:
        async with AsyncExitStack() as stack:
            handshake: Handshake
            if secure:
                tls = trio.SSLStream(stream, server_context(), server_side=True, https_compatible=True)
                handshake = await stack.enter_async_context(open_server_over(tls))
            else:
                opening = open_server_handshake(await receive_upgrade(stream))
                handshake = await stack.enter_async_context(opening)
            await accepted.send(await handshake.accept())
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        if engine.startswith("polled"):
            await nursery.start(Poller().run)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        url = f"wss://{NAME}:{port}/" if secure else f"ws://127.0.0.1:{port}/"
        with trusted():
            async with open_client(url) as client:
                try:
                    yield client, await accepting.receive()
                finally:
                    await client.abort()  # noqa: ASYNC102 - it does not wait
        nursery.cancel_scope.cancel()


class trusted:  # noqa: N801 - a context manager
    """Clients trust the tests' authority, and find every name here."""

    def __enter__(self) -> None:
        self._before = websocket.client_tls
        websocket.client_tls = client_context  # type: ignore[assignment]
        trio.socket.set_custom_hostname_resolver(Resolver())

    def __exit__(self, *_: object) -> None:
        websocket.client_tls = self._before
        trio.socket.set_custom_hostname_resolver(None)

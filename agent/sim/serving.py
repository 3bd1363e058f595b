"""Simulated web services over TCP on loopback."""

import ssl
from functools import partial
from typing import Final, cast

import trio
from fastapi import FastAPI

from agent.carrier.front_door import FrontDoor
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.web.asgi import AsgiApp
from agent.web.connection import Bounds
from agent.web.lobby import Lobby
from agent.web.peer import TrustedProxies, parse_networks

_PLACES: Final = 4096
_BODY_BYTES: Final = 64 * 1024 * 1024
"""Recordings are uploaded to a simulated OpenAI."""


async def serve_app(
    app: FastAPI,
    port: int = 0,
    *,
    certfile: str | None = None,
    keyfile: str | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on 127.0.0.1 until cancelled; with a certificate by https.

    ``task_status`` is started with its URL, without a slash at the end. Raises OSError if ``port`` is taken; 0
    takes a free one.
    """
    bounds = Bounds(idle_s=60.0, body_s=60.0, body_bytes=_BODY_BYTES, requests=1_000_000)
    # FastAPI and we spell ASGI's types differently.
    door = FrontDoor(
        cast("AsgiApp", app),
        EventLog(Telemetry()),
        proxies=TrustedProxies(parse_networks("127.0.0.1")),  # nobody here is a stranger
        bounds=bounds,
        lobby=Lobby(_PLACES, _PLACES),
    )
    [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
    scheme, listeners = "http", [cast("trio.abc.Listener[trio.SocketStream]", listener)]
    if certfile is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certfile, keyfile)
        scheme, listeners = (
            "https",
            [cast("trio.abc.Listener[trio.SocketStream]", trio.SSLListener(listener, context))],
        )
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, door.serve_connection, listeners))
        task_status.started(f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}")

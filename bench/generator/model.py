"""The model of a load run: one process, a session for each call.

Started by ``bench.rig.players`` as ``python -m bench.generator.model``; prints its URL as a line of JSON, ends at
SIGTERM, and leaves its report in a file.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import ssl
import sys
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from picows import WSUpgradeRequest, ws_create_server

from bench.generator.clockwork import Clockwork
from bench.generator.observations import ModelCall, ModelReport
from bench.generator.plan import Order
from bench.generator.session import Session

CERTIFICATES: Final = Path(__file__).parent / "certificates"


async def serve_model(order: Order) -> ModelReport:
    """Serve on a free port until SIGTERM; prints the URL as one line of JSON first."""
    clockwork, calls = Clockwork(), list[ModelCall]()

    def begin(_request: WSUpgradeRequest) -> Session:
        calls.append(ModelCall())
        return Session(order.plan, clockwork, calls[-1])

    tls = None
    if order.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(CERTIFICATES / "model.pem", CERTIFICATES / "model.key")
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    server = await ws_create_server(begin, "127.0.0.1", 0, ssl=tls, backlog=512)
    port = server.sockets[0].getsockname()[1]
    url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}/v1/realtime"
    print(msgspec.json.encode(url).decode(), flush=True)  # noqa: T201 - how the parent is told
    await asked.wait()
    server.close()
    return ModelReport(calls, clockwork.late_s)


def main() -> None:
    """Do what the order on the command line says."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    gc.disable()  # a process of minutes whose pauses are not what is measured
    report = uvloop.run(serve_model(order))
    Path(order.result).write_bytes(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()

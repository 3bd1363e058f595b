"""A tenant's server that receives ``call.completed``: checks signatures, acts on a key once, fails on demand.

::

    receiver = WebhookReceiver("whsec_test", faults=deque([ReceiverFault(500), HANGS]))
    url = await nursery.start(serve_app, receiver.make_app())      # webhook_url is f"{url}/calls"
    ...
    assert receiver.times("call.completed-CA1") >= 1
"""

import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from typing import Any, Final

import attrs
import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from agent.pipeline.webhook.signature import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, verify
from agent.web.streaming import StreamedResponse


@attrs.frozen
class ReceiverFault:
    """How the next request ends: after ``delay_s``, with ``status``; ``location`` makes it a redirect.

    A faulty request is not taken. ``drip``: the body comes a byte a second, for ever.
    """

    status: int = 200
    delay_s: float = 0.0
    location: str = ""
    body: bytes = b""
    drip: bool = False


HANGS: Final = ReceiverFault(delay_s=float("inf"))
FAILS: Final = ReceiverFault(500, body=b"the receiver fails, as asked for")
GONE: Final = ReceiverFault(410)


@attrs.define(eq=False)
class WebhookReceiver:
    """The application's state; ``bodies`` by idempotency key, in the order in which they first came."""

    secret: str = attrs.field(repr=False)
    faults: deque[ReceiverFault] = attrs.field(factory=deque)
    """One for each of the next requests."""
    fail_every: int = 0
    """Every request whose number is a multiple of this is answered with 500; 0: none."""
    bodies: dict[str, bytes] = attrs.field(factory=dict)
    counts: Counter[str] = attrs.field(factory=Counter)
    """How often each key was taken."""
    changed: Counter[str] = attrs.field(factory=Counter)
    """How often a key came again with another body."""
    unsigned: int = 0
    """Requests whose signature did not fit; they are answered with 401."""
    requests: int = 0

    def times(self, key: str) -> int:
        """How often ``key`` was taken."""
        return self.counts[key]

    def make_app(self) -> FastAPI:
        """The ASGI application: POST to any path delivers, GET /received tells what came."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/received")
        async def received() -> dict[str, Any]:
            return {
                "keys": dict(self.counts),
                "changed": dict(self.changed),
                "unsigned": self.unsigned,
                "requests": self.requests,
            }

        @app.post("/{path:path}")
        async def take(request: Request, path: str) -> Response:  # noqa: ARG001 - any will do
            body = await request.body()
            return await self._take(body, request.headers)

        return app

    async def _take(self, body: bytes, headers: Any) -> Response:
        self.requests += 1
        if self.faults:
            return await _fail(self.faults.popleft())
        if self.fail_every and self.requests % self.fail_every == 0:
            return await _fail(FAILS)
        if not verify(headers.get(SIGNATURE_HEADER, ""), body, self.secret, time.time()):
            self.unsigned += 1
            return JSONResponse({"error": "the signature does not fit"}, 401)
        key = headers.get(IDEMPOTENCY_HEADER, "")
        self.counts[key] += 1
        if self.bodies.setdefault(key, body) != body:
            self.changed[key] += 1
            self.bodies[key] = body
        return JSONResponse({"taken": key})


async def _fail(fault: ReceiverFault) -> Response:
    await trio.sleep(fault.delay_s)
    if fault.drip:
        return StreamedResponse(_drip(), fault.status)
    headers = {"Location": fault.location} if fault.location else {}
    return Response(fault.body, fault.status, headers)


async def _drip() -> AsyncGenerator[bytes, None]:
    while True:
        yield b"."
        await trio.sleep(1)

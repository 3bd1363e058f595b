"""One request, answered by an ASGI application.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html, version 3; no lifespan, no WebSockets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import unquote

import attrs
import trio

from agent.web.exchange import Exchange

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
SendBytes = Callable[[bytes], Awaitable[None]]
AFTER_END_S: Final = 2.0
"""How long a client that has closed its side may still be answered."""


@attrs.frozen
class Origin:
    """Where a request comes from. The application finds it as ``request.state.origin``."""

    client: str
    """The client's address, behind a trusted proxy the one it names; empty over memory streams."""
    base: str
    """The URL that was reached, without a path: our own address, or what a trusted proxy says."""
    vouch: Callable[[], None] = lambda: None
    """To be called once the request's signature is found to be good."""


@attrs.define(eq=False)
class AppRun:
    """Runs ``app`` for one request that is there as a whole.

    HEAD is run as GET, and the body not sent. The error of an application that fails is raised, after an answer
    500 if none had begun. A client that is gone ends the application, after ``http.disconnect``.
    """

    app: AsgiApp
    exchange: Exchange
    origin: Origin
    send_bytes: SendBytes
    """Raises trio.BrokenResourceError when the client does not read."""
    _asked: bool = False
    _gone: trio.Event = attrs.field(factory=trio.Event)
    _pending: bytes = b""
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Raises what the application raises, and trio.BrokenResourceError; a cancel ends the application."""
        with self._scope:
            failed: Exception | None = None
            try:
                await self.app(self._make_scope(), self._receive, self._send)
            except Exception as error:  # noqa: BLE001 - raised again when the client has its answer
                failed = error
            if failed is None and self.exchange.is_over:
                return
            await self._fail()
            raise failed or RuntimeError("the application did not finish its answer")

    def client_ended(self) -> None:
        """The client will send no more: the answer has a moment left."""
        self._gone.set()
        self._scope.deadline = trio.current_time() + AFTER_END_S

    def client_gone(self) -> None:
        """The client reads no more."""
        self._gone.set()
        self._scope.cancel(reason="the client is gone")

    def _make_scope(self) -> dict[str, Any]:
        head, origin = self.exchange.head, self.origin
        path, _, query = head.target.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET" if head.method == "HEAD" else head.method,
            "scheme": origin.base.partition("://")[0],
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in head.headers.items()],
            "client": (origin.client, 0) if origin.client else None,
            "server": None,
            "state": {"origin": origin},
        }

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": bytes(self.exchange.body), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        exchange = self.exchange
        if message["type"] == "http.response.start":
            # Sent with the first of the body: one packet instead of two.
            await trio.lowlevel.checkpoint()
            date = (b"date", formatdate(usegmt=True).encode())
            self._pending = exchange.encode_head(message["status"], [*message.get("headers", ()), date])
            return
        body = exchange.encode_body(message.get("body", b""), more=message.get("more_body", False))
        data, self._pending = self._pending + body, b""
        await self.send_bytes(data)

    async def _fail(self) -> None:
        """500, if there is time for it."""
        if self.exchange.has_begun:
            return
        self.exchange.is_last = True
        text = b"Internal Server Error\n"
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
        head = self.exchange.encode_head(500, fields)
        await self.send_bytes(head + self.exchange.encode_body(text, more=False))

"""One HTTP connection: every wait in it is bounded, and its work is done in turns with that of all others."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import attrs
import trio

from agent.web.asgi import AppRun, AsgiApp, Origin
from agent.web.exchange import Exchange
from agent.web.head import MAX_HEAD_BYTES, HeadReader, RefusedError, RequestHead

READ_BYTES: Final = 16 * 1024
WRITE_BYTES: Final = 64 * 1024
LINGER_S: Final = 1.0
"""How long after the last answer we wait for the client to go: closing at once could lose the answer."""
LINGER_BYTES: Final = 64 * 1024


@attrs.frozen
class Bounds:
    """What one connection may take."""

    idle_s: float = 5.0
    """Without a request."""
    head_s: float = 5.0
    """For a request's head, from its first byte."""
    body_s: float = 5.0
    body_bytes: int = 64 * 1024
    """Twilio posts 1.5 KB."""
    write_s: float = 10.0
    """For each 64 KB that the client reads."""
    requests: int = 1000
    """On one connection; the last is answered with Connection: close."""


@attrs.frozen(eq=False)
class Turns:
    """How many connections may go on in one pass of the scheduler.

    Trio runs all tasks that became ready before it looks again: a thousand requests that came at once would be
    served in one go, and no call would send meanwhile. Who waits its turn waits for a later pass.
    """

    reads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(16))
    known_reads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(16))
    """The same for addresses that signed requests came from: they do not wait behind a thousand others."""
    runs: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(2))
    """A run of the application takes up to a millisecond until it first waits."""
    signed: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(2))
    """The same for requests that look signed: they do not wait behind a thousand that do not."""

    @staticmethod
    async def take(turns: trio.CapacityLimiter) -> None:
        """Go on in a pass in which few others do."""
        async with turns:
            pass


@attrs.define(eq=False)
class HttpConnection:
    """Reads requests and answers them, one after the other. Whoever made it closes ``stream``."""

    stream: trio.abc.Stream
    bounds: Bounds
    reads: trio.CapacityLimiter
    """Whose turn it is to read."""
    reader: HeadReader = attrs.field(factory=HeadReader)
    stretch: float = 1.0
    """Of the bounds of this connection: if a thousand ran out in the same instant, calls would hear it."""
    _requests: int = 0

    async def next_head(self) -> RequestHead | None:
        """The next request's head; None when the client leaves, or is idle for too long.

        Raises RefusedError, 408 for a head that takes too long, and trio.BrokenResourceError.
        """
        head = self.reader.next_head()
        if head is None:
            if not self.reader.unread:
                with trio.move_on_after(self.bounds.idle_s * self.stretch):
                    self.reader.feed(await self._receive())
                if not self.reader.unread:
                    return None
            with trio.move_on_after(self.bounds.head_s * self.stretch):
                return await self._rest_of_head()
            raise RefusedError(408, f"the request's head took more than {self.bounds.head_s:.0f} s")
        return head

    async def _rest_of_head(self) -> RequestHead:
        while (head := self.reader.next_head()) is None:
            data = await self._receive()
            if not data:
                raise RefusedError(400, "the request ends in the middle of its head")
            self.reader.feed(data)
        return head

    async def serve(
        self,
        head: RequestHead,
        app: AsgiApp,
        origin: Origin,
        turns: trio.CapacityLimiter,
        *,
        is_whole: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> bool:
        """Have ``app`` answer, in its turn; whether another request may follow.

        ``is_whole`` is called when all of the request is there, and ``failed`` with the errors of ``app``.
        Raises RefusedError while nothing is answered, and trio.BrokenResourceError.
        """
        self._requests += 1
        is_last = self._requests >= self.bounds.requests
        exchange = Exchange(head, self.bounds.body_bytes, is_last)
        await self._read_body(exchange)
        self.reader.feed(exchange.unread)
        is_whole()
        await Turns.take(turns)
        run = AppRun(app, exchange, origin, self._send)
        lost: list[Exception] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, run)
            try:
                await run.run()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                lost.append(error)
            except Exception as error:  # noqa: BLE001 - the application's boundary
                failed(error)
            nursery.cancel_scope.cancel(reason="the request is answered")
        if lost:
            raise lost[0]
        return exchange.is_reusable

    async def _read_body(self, exchange: Exchange) -> None:
        if exchange.is_whole:
            return
        if exchange.waits_for_continue and not self.reader.unread:
            await self._send(exchange.encode_continue())
        with trio.move_on_after(self.bounds.body_s * self.stretch):
            data: bytes | bytearray = bytes(self.reader.unread)
            self.reader.unread.clear()
            exchange.feed(data) if data else None
            while not exchange.is_whole:
                exchange.feed(await self._receive())
            return
        raise RefusedError(408, f"the request's body took more than {self.bounds.body_s:.0f} s")

    async def _watch(self, run: AppRun) -> None:
        """Notice that the client leaves; requests it sends meanwhile are kept, a head's length of them."""
        try:
            while len(self.reader.unread) < MAX_HEAD_BYTES:
                data = await self._receive()
                if not data:
                    run.client_ended()
                    return
                self.reader.feed(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            run.client_gone()

    async def refuse(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        """Answer without reading further. Raises nothing of the stream."""
        body = text.encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        await self._finish(head.encode() + body)

    async def finish(self) -> None:
        """Say that nothing follows, and wait shortly for the client to go. Raises nothing of the stream."""
        await self._finish(b"")

    async def _finish(self, last: bytes) -> None:
        try:
            with trio.move_on_after(LINGER_S):
                await self.stream.send_all(last)
                if isinstance(self.stream, trio.abc.HalfCloseableStream):
                    await self.stream.send_eof()
                left_bytes = LINGER_BYTES
                while left_bytes > 0 and (data := await self._receive()):
                    left_bytes -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async def _receive(self) -> bytes | bytearray:
        """Wait until there is something to read, then for a turn to read it."""
        if isinstance(self.stream, trio.SocketStream):
            await trio.lowlevel.wait_readable(self.stream.socket)
            await Turns.take(self.reads)
        return await self.stream.receive_some(READ_BYTES)

    async def _send(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError, also for a client that does not read."""
        for start in range(0, len(data), WRITE_BYTES):
            with trio.move_on_after(self.bounds.write_s) as writing:
                await self.stream.send_all(memoryview(data)[start : start + WRITE_BYTES])
            if writing.cancelled_caught:
                raise trio.BrokenResourceError("the client does not read its answer")

"""A process of strangers: ``python -m bench.attacks.stranger`` with an order on the command line.

It prints what it did when its time is over. It runs at a low priority: what is measured beside it is the server.
"""

from __future__ import annotations

import asyncio
import enum
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import uvloop

NICE: Final = 15
CONNECT_S: Final = 5.0
GET: Final = b"GET /readyz HTTP/1.1\r\nHost: a\r\n"
_H2C: Final = (
    GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HANDSHAKE: Final = (
    b"GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"X-Twilio-Signature: x\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_HEADS: Final = (
    GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    GET + b"X-A: b\r\n folded\r\n\r\n",
    GET.replace(b"\r\n", b"\n") + b"\n",
    GET + b"X-A: " + b"b" * 15_000 + b"\r\n\r\n",
    b"POST /voice/incoming HTTP/1.1\r\nHost: a\r\nX-Twilio-Signature: x\r\nContent-Length: 60000\r\n\r\n"
    + b"a=b&" * 14_999,
    _HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    bytes(range(256)) * 60,
)


class Attack(enum.StrEnum):
    """What strangers do."""

    CALM = "calm"
    HTTP_2 = "http-2"
    SILENT = "silent"
    HANDSHAKES = "handshakes"
    HEADS = "heads"
    PIPELINE = "pipeline"
    AT_ONCE = "at-once"


class StrangerOrder(msgspec.Struct, frozen=True):
    """What to do, and to whom."""

    attack: Attack
    host: str
    port: int
    seconds: float
    connections: int = 50
    addresses: int = 50
    """Loopback addresses they come from, 127.0.1.1 and on."""


class Strangers:
    """All of them."""

    def __init__(self, order: StrangerOrder) -> None:
        self.order = order
        self.counts: Counter[str] = Counter()
        self.end_s = time.monotonic() + order.seconds

    async def run(self) -> None:
        """Until the time is over."""
        visit: dict[Attack, Callable[[int], Awaitable[None]]] = {
            Attack.CALM: self.silent,
            Attack.HTTP_2: self.http_2,
            Attack.SILENT: self.silent,
            Attack.HANDSHAKES: partial(self.ask, requests=(GET + b"\r\n", _HANDSHAKE)),
            Attack.HEADS: self.heads,
            Attack.PIPELINE: self.pipeline,
            Attack.AT_ONCE: self.at_once,
        }
        with suppress(TimeoutError):
            async with asyncio.timeout(self.order.seconds), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(self.order.seconds))
                for number in range(self.order.connections):
                    group.create_task(self.again(number, visit[self.order.attack]))

    async def again(self, number: int, visit: Callable[[int], Awaitable[None]]) -> None:
        """One of them, again and again."""
        while time.monotonic() < self.end_s:
            try:
                await visit(number)
                self.counts["visits"] += 1
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.counts[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async def ask(self, number: int, requests: tuple[bytes, ...]) -> None:
        """Requests on one connection, each when the last was answered."""
        reader, writer = await self.connect(number)
        try:
            for request in requests:
                writer.write(request)
                answer = await asyncio.wait_for(reader.read(65_536), CONNECT_S)
                self.counts[answer[9:12].decode("latin-1") or "closed"] += 1
        finally:
            writer.close()

    async def http_2(self, number: int) -> None:
        """A tunnel of HEADERS and RST_STREAM frames, after an upgrade or as a second request."""
        frames = bytearray()
        for stream in range(1, 20_001, 2):
            name = stream.to_bytes(4, "big")
            frames += bytes([0, 0, 5, 1, 5]) + name + b"\x82\x84\x86\x41\x01"
            frames += bytes([0, 0, 4, 3, 0]) + name + bytes([0, 0, 0, 8])
        first = _H2C if number % 2 else GET + b"\r\n"
        await self.ask(number, (first, _PREFACE + bytes(frames)))

    async def silent(self, number: int) -> None:
        """A connection and nothing more, for as long as it is let."""
        reader, writer = await self.connect(number)
        try:
            await reader.read(1)
        finally:
            writer.close()

    async def heads(self, number: int) -> None:
        """What is no request, or could be two."""
        await self.ask(number, (_HEADS[(number + self.counts["visits"]) % len(_HEADS)],))

    async def pipeline(self, number: int) -> None:
        """Requests without end, whose answers are read."""
        reader, writer = await self.connect(number)

        async def write() -> None:
            while True:
                writer.write((GET + b"\r\n") * 50)
                await writer.drain()

        writing = asyncio.ensure_future(write())
        try:
            while data := await reader.read(65_536):
                self.counts["200"] += data.count(b"HTTP/1.1 200")
        finally:
            writing.cancel()
            writer.close()

    async def at_once(self, number: int) -> None:
        """A whole request on every connection in the same instant, each second."""
        reader, writer = await self.connect(number)
        try:
            await asyncio.sleep(1 - time.monotonic() % 1)
            writer.write(GET + b"\r\n")
            answer = await asyncio.wait_for(reader.read(65_536), CONNECT_S)
            self.counts[answer[9:12].decode("latin-1") or "closed"] += 1
        finally:
            writer.close()

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """From an address of their own."""
        address = f"127.0.1.{1 + number % self.order.addresses}"
        opening = asyncio.open_connection(self.order.host, self.order.port, local_addr=(address, 0))
        return await asyncio.wait_for(opening, CONNECT_S)


def main() -> None:
    """Do what the order on the command line says."""
    os.nice(NICE)
    strangers = Strangers(msgspec.json.decode(sys.argv[1], type=StrangerOrder))
    print(flush=True)  # noqa: T201 - how the parent is told that it begins
    uvloop.run(strangers.run())
    print(msgspec.json.encode(strangers.counts).decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

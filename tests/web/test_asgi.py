"""A real application behind the adapter, on real sockets: files, streams, HEAD, and clients that leave. DO-1."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import httpx
import pytest
import trio
from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles

from agent.carrier.front_door import FrontDoor
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.web.asgi import AsgiApp
from agent.web.connection import Bounds
from agent.web.streaming import StreamedResponse

pytestmark = pytest.mark.sockets
PAGE = b"<!doctype html>\n" * 20_000


@attrs.define(eq=False)
class Site:
    """A small site, and what became of its stream."""

    client: httpx.AsyncClient
    events: EventLog
    port: int
    ended: trio.Event


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    (folder / "page.html").write_bytes(PAGE)
    app, ended = FastAPI(), trio.Event()
    app.mount("/files", StaticFiles(directory=folder))

    @app.get("/ticks")
    async def ticks() -> StreamedResponse:
        async def tick() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"tick\n"
                    await trio.sleep(0.01)
            finally:
                ended.set()

        return StreamedResponse(tick())

    @app.post("/echo")
    async def echo(request: Request) -> dict[str, Any]:
        client = request.client.host if request.client else ""
        return {"body": (await request.body()).decode(), "client": client, "scheme": request.url.scheme}

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    events = EventLog(Telemetry())
    door = FrontDoor(cast("AsgiApp", app), events, bounds=Bounds(body_bytes=1_000_000))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, door.serve_connection, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                yield Site(client, events, port, ended)
            nursery.cancel_scope.cancel()


async def test_files_whole_in_part_by_head_and_unchanged(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        whole = await site.client.get("/files/page.html")
        assert (whole.status_code, whole.content) == (200, PAGE)
        assert whole.headers["date"]
        head = await site.client.head("/files/page.html")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(PAGE))
        etag = whole.headers["etag"]
        unchanged = await site.client.get("/files/page.html", headers={"if-none-match": etag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        part = await site.client.get("/files/page.html", headers={"range": "bytes=0-14"})
        assert (part.status_code, part.content) == (206, PAGE[:15])
        for outside in ("/files/../secret", "/files/%2e%2e/secret", "/files/nothing"):
            assert (await site.client.get(outside)).status_code == 404


async def test_a_posted_body_comes_whole_however_it_was_sent(tmp_path: Path) -> None:
    """Also in chunks, after which the connection is closed, and after leave was given for it."""

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            await trio.sleep(0.01)
            yield part

    async with open_site(tmp_path) as site:
        said = (await site.client.post("/echo", content=parts())).json()
        assert said == {"body": "one two three", "client": "127.0.0.1", "scheme": "http"}
        long = "x" * 500_000
        expecting = {"expect": "100-continue"}
        assert (await site.client.post("/echo", content=long, headers=expecting)).json()["body"] == long


async def test_a_streamed_answer_ends_with_its_client(tmp_path: Path) -> None:
    """The generator is cancelled, and nothing of it is an error."""
    async with open_site(tmp_path) as site:
        async with await trio.open_tcp_stream("127.0.0.1", site.port) as stream:
            await stream.send_all(b"GET /ticks HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = bytearray()
            while b"tick\n\r\n" not in answer:
                answer += await stream.receive_some()
            assert b"transfer-encoding: chunked" in answer.lower()
        await site.ended.wait()
        assert "CONNECTION_ERROR" not in site.events.counts


async def test_an_application_that_fails_is_answered_for(tmp_path: Path) -> None:
    """And the connection goes on (the second request on it got no answer before)."""
    async with open_site(tmp_path) as site:
        for _ in range(2):
            assert (await site.client.get("/broken")).status_code == 500
        assert site.events.counts["CONNECTION_ERROR"] == 2
        assert (await site.client.get("/files/page.html")).status_code == 200

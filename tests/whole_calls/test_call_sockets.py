"""Whole calls over real sockets, through the server as a process of its own, and what is left of them (ST-1)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import psutil
import pytest
import trio

from agent.core.errors import SocketClosedError
from agent.core.records import CallRecord, Outcome
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.sim.sounds import tone
from agent.store.spool import decode_record
from agent.wire.websocket import open_client

pytestmark = pytest.mark.sockets
ADMIN = "token of the operator"
ACCOUNT, AUTH = "AC" + "b" * 32, "token of the account"
CALLER, NUMBER = "+15550001111", "+15552223333"
GREETING = Answer("Hello, how can I help?", 600)
GOODBYE = Answer("Goodbye and thank you.", 600, tool_call=ScriptedToolCall("end_call", {}))
IDLE_THREADS_S = 10.0
"""How long Trio keeps a worker thread for the next job."""


@attrs.frozen
class Served:
    """A server's process between a simulated Twilio and a scripted model."""

    process: psutil.Process
    url: str
    model_port: int
    data: Path
    twilio: SimulatedTwilio
    client: httpx.AsyncClient

    async def records(self, count: int) -> list[CallRecord]:
        """The first ``count`` records, as soon as they are on disk, oldest first."""
        while len(paths := list(self.data.glob("calls/*.json"))) < count:  # noqa: ASYNC110 - files have no events
            await trio.sleep(0.02)
        return sorted((decode_record(path.read_bytes()) for path in paths), key=lambda record: record.answered_at)

    async def metrics(self) -> str:
        """As Prometheus gets them."""
        return (await self.client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"})).text

    def call_sockets(self) -> list[object]:
        """Connections of calls that are not closed: with the carrier's streams, and with the model."""
        ours = int(self.url.rpartition(":")[2])
        return [
            (connection.laddr, connection.raddr, connection.status)
            for connection in self.process.net_connections("tcp")
            if connection.raddr and (connection.laddr.port == ours or connection.raddr.port == self.model_port)
        ]

    def files(self) -> list[str]:
        """Regular files that are open, the record's among them; but for the server's own hold on its database."""
        paths = [file.path for file in self.process.open_files() if file.path.startswith(str(self.data))]
        return [path for path in paths if not path.endswith(".users.lock")]


async def free_port() -> int:
    """A port nobody listens on: the signatures need the server's URL before it starts."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@asynccontextmanager
async def open_served(
    folder: Path, make_model: Callable[[], ScriptedRealtime] | None, **more: str
) -> AsyncIterator[Served]:
    """``call-agent serve`` on a free port, ready; without ``make_model`` nobody is where the model should be."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = f"http://127.0.0.1:{await free_port()}"
            model = f"ws://127.0.0.1:{await free_port()}/v1/realtime"
            if make_model is not None:
                model = await nursery.start(serve_realtime, 0, make_model)
            async with (
                open_simulated_twilio(
                    agent_url=url, auth_token=AUTH, account_sid=ACCOUNT, numbers=[NUMBER]
                ) as twilio,
                httpx.AsyncClient(base_url=url, trust_env=False) as client,
            ):
                environment = {
                    "AGENT_HOST": "127.0.0.1",
                    "AGENT_DATA_DIR": str(folder / "data"),
                    "AGENT_PUBLIC_URL": url,
                    "AGENT_IDLE_PROMPT_S": "0",
                    "AGENT_ADMIN_PORT": "0",
                    "AGENT_ADMIN_TOKEN": ADMIN,
                    "OPENAI_API_KEY": "sk-test",
                    "OPENAI_REALTIME_URL": model,
                    "TWILIO_ACCOUNT_SID": ACCOUNT,
                    "TWILIO_AUTH_TOKEN": AUTH,
                    "TWILIO_API_URL": twilio.api_url,
                    **more,
                }
                process = await nursery.start(
                    partial(
                        trio.run_process,
                        [sys.executable, "-m", "agent", "serve", "--port", url.rpartition(":")[2]],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        check=False,
                        cwd=folder,
                        env={**_without_ours(), "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
                    )
                )
                served = Served(
                    psutil.Process(process.pid),
                    url,
                    int(model.rpartition(":")[2].partition("/")[0]),
                    folder / "data",
                    twilio,
                    client,
                )
                await _until_ready(client)
                yield served
                process.terminate()
                assert await process.wait() == 0
            nursery.cancel_scope.cancel()


def _without_ours() -> dict[str, str]:
    ours = ("AGENT_", "OPENAI_", "TWILIO_", "DEBUG_TX")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


async def _until_ready(client: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await client.get("/readyz")).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        await trio.sleep(0.05)


async def test_st_1_after_calls_of_every_kind_nothing_is_left(tmp_path: Path) -> None:
    """ST-1: ended by the agent, the caller, a broken line; a lost model: no socket, thread or file is left.

    Each has its record on disk, and its leg was hung up by REST unless the caller did.
    """
    models: list[ScriptedRealtime] = []

    def another_model() -> ScriptedRealtime:
        models.append(ScriptedRealtime([GREETING, GOODBYE]))
        return models[-1]

    async with open_served(tmp_path, another_model) as served:
        place_call = partial(served.twilio.place_call, CALLER, NUMBER)
        async with place_call() as stream:
            await stream.until_heard_ms(300)
            await stream.hang_up()
        await served.records(1)
        threads = served.process.num_threads()

        async with place_call() as stream:
            await stream.until_heard_ms(600)
            stream.say(tone(300))
            await stream.until_closed()
        async with place_call() as stream:
            await stream.until_heard_ms(300)
            await stream.hang_up()
        async with place_call() as stream:
            await stream.until_heard_ms(300)
            assert len(served.call_sockets()) >= 2, "the check below sees what there is"
            await stream.vanish()
        async with place_call() as stream:
            await stream.until_heard_ms(600)
            models[-1].disconnect(drop=True)
            await trio.sleep(0.3)
            await stream.hang_up()
        records = await served.records(5)
        assert [record.outcome for record in records[1:]] == [
            Outcome.AGENT_HUNG_UP,
            Outcome.CALLER_HUNG_UP,
            Outcome.CARRIER_LOST,
            Outcome.CALLER_HUNG_UP,
        ]
        assert records[1].turns[-1].heard_text == GOODBYE.text
        assert all(record.recording_sid in served.twilio.api.recordings for record in records)
        hung_up = [
            request.path for request in served.twilio.api.requests if request.form == {"Status": "completed"}
        ]
        assert [path.rpartition("/")[2].removesuffix(".json") for path in hung_up] == [
            records[1].call_sid,
            records[3].call_sid,
        ]
        assert "agent_active_calls 0.0" in await served.metrics()
        await served.client.aclose()
        while served.call_sockets():  # noqa: ASYNC110 - bounded by open_served
            await trio.sleep(0.05)
        assert served.files() == []
        assert not list((tmp_path / "data").glob("calls/*.part"))
        with trio.fail_after(IDLE_THREADS_S + 5):
            while served.process.num_threads() > threads:  # noqa: ASYNC110
                await trio.sleep(0.2)


async def test_a_model_that_refuses_connections_is_apologised_for(tmp_path: Path) -> None:
    """Nobody listens at the model's address: the caller hears why, the leg is hung up, the record says so."""
    async with open_served(tmp_path, None) as served:
        async with served.twilio.place_call(CALLER, NUMBER) as stream:
            assert await stream.until_closed() == 1000
            assert stream.heard_ms() > 1000
        [record] = await served.records(1)
        assert record.outcome is Outcome.MODEL_UNAVAILABLE
        assert {"Status": "completed"} in [request.form for request in served.twilio.api.requests]


async def test_a_carrier_killed_outright_ends_its_calls_and_no_other(tmp_path: Path) -> None:
    """The carrier gets kill -9: its two calls are recorded as lost at once; a call beside them hears on."""
    long = Answer("On and on.", 20_000)
    async with open_served(tmp_path, lambda: ScriptedRealtime([long]), AGENT_ALLOW_UNSIGNED="1") as served:
        async with served.twilio.place_call(CALLER, NUMBER) as stream, trio.open_nursery() as nursery:
            await stream.until_heard_ms(200)
            url = served.url.replace("http", "ws") + "/media-stream"
            command = [sys.executable, "-m", "agent.sim", "carrier", "--url", url, "--calls", "2"]
            carrier = await nursery.start(
                partial(
                    trio.run_process,
                    [*command, "--seconds", "60"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                )
            )
            while "agent_active_calls 3.0" not in await served.metrics():  # noqa: ASYNC110
                await trio.sleep(0.05)
            await trio.sleep(0.5)
            carrier.kill()
            with trio.fail_after(8):
                lost = await served.records(2)
            assert [record.outcome for record in lost] == [Outcome.CARRIER_LOST] * 2
            heard_ms = stream.heard_ms()
            await trio.sleep(0.5)
            assert stream.heard_ms() >= heard_ms + 400
            assert "agent_active_calls 1.0" in await served.metrics()
            await stream.hang_up()
        assert len(await served.records(3)) == 3


async def garble(stream: trio.SocketStream) -> None:
    """Answer TLS with something else."""
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await stream.receive_some()


async def drop(stream: trio.SocketStream) -> None:
    """Hang up in the middle of the handshake."""
    await stream.receive_some(100)
    await stream.aclose()


@pytest.mark.parametrize("serve", [garble, drop])
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_model_whose_handshake_breaks_is_an_error_the_call_knows(
    serve: Callable[[trio.SocketStream], Awaitable[None]], scheme: str
) -> None:
    """Neither TLS nor WebSocket: an OSError or SocketClosedError, which calls expect; no socket is left."""
    process = psutil.Process()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            with pytest.raises((OSError, SocketClosedError)):
                async with open_client(f"{scheme}://127.0.0.1:{port}/v1/realtime"):
                    raise AssertionError("it was accepted")
            assert [one for one in process.net_connections("tcp") if one.raddr and one.raddr.port == port] == []
            nursery.cancel_scope.cancel()

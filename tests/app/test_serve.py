"""The composed server: calls of a simulated Twilio through real sockets, stopping, and the process itself."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio

from agent.app.server import serve
from agent.core.errors import HandshakeRejectedError, LocalModelMissingError
from agent.core.records import Outcome
from agent.core.settings import Settings, load_settings
from agent.sim.carrier.dialling import CallNotTakenError
from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.store.spool import decode_record
from agent.wire.websocket import open_client

pytestmark = pytest.mark.sockets
ACCOUNT = "AC" + "a" * 32
ADMIN = "token of the operator"
AUTH = "token of the account"
CALLER, NUMBER = "+15550001111", "+15552223333"


async def free_port() -> int:
    """A port nobody listens on; the server's URL must be known before it starts, for the webhooks' signatures."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@attrs.define(eq=False)
class World:
    """A running server between a simulated Twilio and a scripted model."""

    url: str
    settings: Settings
    twilio: SimulatedTwilio
    client: httpx.AsyncClient
    stopped: trio.Event = attrs.field(factory=trio.Event)

    def record_files(self) -> list[Path]:
        """The records written so far."""
        return sorted(self.settings.data_dir.glob("calls/*.json"))


@asynccontextmanager
async def open_world(tmp_path: Path, *answers: Answer, **more: object) -> AsyncIterator[World]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            url = f"http://127.0.0.1:{await free_port()}"
            model = await nursery.start(serve_realtime, 0, lambda: ScriptedRealtime(answers))
            async with (
                open_simulated_twilio(
                    agent_url=url, auth_token=AUTH, account_sid=ACCOUNT, numbers=[NUMBER]
                ) as twilio,
                httpx.AsyncClient(base_url=url, trust_env=False) as client,
            ):
                settings = load_settings(
                    **{
                        "host": "127.0.0.1",
                        "port": int(url.rpartition(":")[2]),
                        "public_url": url,
                        "data_dir": tmp_path,
                        "openai_api_key": "sk-test",
                        "realtime_url": model,
                        "twilio_account_sid": ACCOUNT,
                        "twilio_auth_token": AUTH,
                        "twilio_number": NUMBER,
                        "twilio_api_url": twilio.api_url,
                        "drain_s": 0.2,
                        "admin_port": 0,
                        "admin_token": ADMIN,
                        "log_level": "warning",
                        **more,
                    }
                )
                world = World(url, settings, twilio, client)

                async def run(task_status: trio.TaskStatus[str]) -> None:
                    await serve(settings, task_status=task_status)
                    world.stopped.set()

                assert await nursery.start(run) == url
                yield world
            nursery.cancel_scope.cancel()


GREETING = Answer("Hello, how can I help?", 600)


async def test_a_call_from_webhook_to_record(tmp_path: Path) -> None:
    """Signed webhook, token, signed stream, greeting heard, recording, hang-up, durable record, status."""
    async with open_world(tmp_path, GREETING) as world:
        async with world.twilio.place_call(CALLER, NUMBER) as stream:
            await stream.until_heard_ms(500)
            await stream.hang_up()
            await stream.until_closed()
        while not world.record_files():  # noqa: ASYNC110 - files have no events
            await trio.sleep(0.02)
        [path] = world.record_files()
        record = decode_record(path.read_bytes())
        assert (record.caller, record.called, record.direction) == (CALLER, NUMBER, "inbound")
        assert record.outcome is Outcome.CALLER_HUNG_UP
        assert record.recording_sid in world.twilio.api.recordings
        assert [webhook.answer for webhook in world.twilio.webhooks] == [200, 204]
        metrics = (await world.client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"})).text
        assert 'agent_calls_total{outcome="caller_hung_up"} 1.0' in metrics
        assert "agent_active_calls 0.0" in metrics


async def test_a_first_signal_lets_calls_end_and_refuses_new_ones(tmp_path: Path) -> None:
    """While it drains /readyz says 503 and new calls are refused; the call goes on until its time is up."""
    async with open_world(tmp_path, GREETING, drain_s=1.0) as world:
        async with world.twilio.place_call(CALLER, NUMBER) as stream:
            await stream.until_heard_ms(100)
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(0.1)
            ready = await world.client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"ready": False})
            with pytest.raises(CallNotTakenError, match="<Say>"):
                async with world.twilio.place_call(CALLER, NUMBER):
                    raise AssertionError("the call was taken")
            heard_ms = stream.heard_ms()
            await trio.sleep(0.3)
            assert stream.heard_ms() > heard_ms
            await stream.until_closed()
        await world.stopped.wait()
        [record] = [decode_record(path.read_bytes()) for path in world.record_files()]
        assert record.outcome is Outcome.SERVER_STOPPED
        assert {"Status": "completed"} in [request.form for request in world.twilio.api.requests]


async def test_a_second_signal_ends_the_calls_at_once(tmp_path: Path) -> None:
    async with open_world(tmp_path, GREETING, drain_s=1000.0) as world:
        async with world.twilio.place_call(CALLER, NUMBER) as stream:
            await stream.until_heard_ms(100)
            signal.raise_signal(signal.SIGTERM)
            await trio.sleep(0.1)
            signal.raise_signal(signal.SIGINT)
            await stream.until_closed()
        with trio.fail_after(5):
            await world.stopped.wait()
        assert len(world.record_files()) == 1


async def test_when_all_lines_are_taken_the_next_caller_is_told(tmp_path: Path) -> None:
    async with (
        open_world(tmp_path, GREETING, max_calls=1) as world,
        world.twilio.place_call(CALLER, NUMBER) as stream,
    ):
        await stream.until_heard_ms(100)
        with pytest.raises(CallNotTakenError, match="busy"):
            async with world.twilio.place_call(CALLER, NUMBER):
                raise AssertionError("the second call was taken")
        await stream.hang_up()


async def test_a_stream_that_twilio_did_not_open_is_refused(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        with pytest.raises(HandshakeRejectedError, match="403"):
            async with open_client(world.url.replace("http", "ws") + "/media-stream"):
                raise AssertionError("the stream was accepted")


async def test_a_port_that_is_taken_is_an_error_at_once(tmp_path: Path) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    settings = load_settings(host="127.0.0.1", port=port, data_dir=tmp_path, openai_api_key="sk-test")
    async with listener:
        with trio.fail_after(60), pytest.RaisesGroup(OSError, flatten_subgroups=True):
            await serve(settings)


async def test_a_second_server_of_a_machine_takes_calls_without_the_operators_port(tmp_path: Path) -> None:
    """It says so; the first has the port, with what is not for everybody."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with open_world(tmp_path / "second", GREETING, admin_port=port) as world:
        metrics = (await world.client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"})).text
        assert 'agent_events_total{event="ADMIN_NOT_SERVED"} 1.0' in metrics
        assert (await world.client.get("/metrics")).status_code == 401
    await listener.aclose()
    async with open_world(tmp_path / "first", GREETING, admin_port=port, admin_token=None) as world:
        assert (await world.client.get("/metrics")).status_code == 404
        async with httpx.AsyncClient(trust_env=False) as operator:
            assert "ADMIN_SERVED" in (await operator.get(f"http://127.0.0.1:{port}/metrics")).text


async def test_without_key_and_extra_the_server_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise LocalModelMissingError("install it")

    monkeypatch.setattr("agent.local.process.check_installed", missing)
    settings = load_settings(host="127.0.0.1", port=0, data_dir=tmp_path, openai_api_key="")
    with trio.fail_after(5), pytest.RaisesGroup(LocalModelMissingError, flatten_subgroups=True):
        await serve(settings)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "OPENAI_", "TWILIO_"))
    }
    return {**kept, "AGENT_DATA_DIR": str(tmp_path / "data"), "AGENT_HOST": "127.0.0.1", **more}


async def start_process(tmp_path: Path, nursery: trio.Nursery, **more: str) -> tuple[trio.Process, str]:
    """``call-agent serve --port 0`` as a user starts it, and the URL it says it listens on."""
    process: trio.Process = await nursery.start(
        partial(
            trio.run_process,
            [sys.executable, "-m", "agent", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            capture_stdout=False,
            check=False,
            cwd=tmp_path,
            env=environment(tmp_path, **more),
        )
    )
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        line += await process.stdout.receive_some()
    return process, line.decode().split()[3]


async def ready(client: httpx.AsyncClient) -> None:
    while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - as a balancer does
        await trio.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_where_it_listens_and_leaves_quickly(
    tmp_path: Path, number: signal.Signals
) -> None:
    """One line on standard output, /readyz 200, then one signal and exit status 0; on standard error logs."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            more = {"OPENAI_API_KEY": "sk-test", "OPENAI_REALTIME_URL": "ws://127.0.0.1:1/v1/realtime"}
            process, url = await start_process(tmp_path, nursery, **more)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                await ready(client)
                assert (await client.post("/voice/incoming", data={"CallSid": "CA1"})).status_code == 403
            began = trio.current_time()
            process.send_signal(number)
            assert await process.wait() == 0
            assert trio.current_time() - began < 3
            assert process.stderr is not None
            log = b"".join([some async for some in process.stderr]).decode()
            events = [json.loads(line)["event"] for line in log.splitlines()]
            ready_order = [event for event in events if event in ("DATABASE_READY", "MODEL_READY", "READY")]
            assert ready_order == ["DATABASE_READY", "MODEL_READY", "READY"]
            assert "sk-test" not in log


@pytest.mark.speech
async def test_without_a_key_the_embedded_model_answers(tmp_path: Path) -> None:
    """It starts with the server and ends with it."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            process, url = await start_process(tmp_path, nursery, AGENT_ALLOW_UNSIGNED="1")
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                await ready(client)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


def test_serving_with_a_key_loads_nothing_it_does_not_need() -> None:
    """Neither the [local] extra nor plotting nor arrays: they cost memory and start-up time."""
    unwanted = ["onnxruntime", "ctranslate2", "tokenizers", "hibari", "matplotlib", "numpy"]
    code = f"import sys, agent.app.server; sys.exit(', '.join(m for m in {unwanted} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

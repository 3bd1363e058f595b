"""One server of several processes, each a real one: who gets which connection, and who stays."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
import trio
from several_processes import CALLER, NUMBER, SeveralProcesses, open_processes

from agent.core.records import Outcome
from agent.sim.carrier.dialling import CallNotTakenError, StreamOrder, parse_twiml
from agent.sim.carrier.stream import SimulatedStream
from agent.store.spool import decode_record
from agent.wire.websocket import open_client

pytestmark = pytest.mark.sockets
SHOP = "https://shop.example"


async def announce(server: SeveralProcesses, call_sid: str) -> StreamOrder:
    """What a call's webhook is answered."""
    caller = server.twilio.caller
    fields = caller.fields(call_sid, CALLER, NUMBER, "inbound", "ringing")
    return parse_twiml(await caller.post(f"{server.url}/voice/incoming", fields))


def number_of(order: StreamOrder) -> int:
    """The process that wants a call's stream."""
    return int(order.url.rpartition("/")[2])


async def a_browser_comes_again(server: SeveralProcesses) -> None:
    """Its connection breaks, and the process that has its call stands still while the next one comes."""
    origin = {"Origin": SHOP}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=origin) as client:
        token = (await client.post("/browser/token", json={})).json()["token"]
    base, headers = server.url.replace("http", "ws"), list(origin.items())
    async with open_client(f"{base}/browser-stream", headers=headers) as socket:
        await socket.send(f'{{"type":"hello","version":1,"format":"pcm16","token":"{token}"}}')
        welcome = msgspec.json.decode(await socket.receive())
        await socket.abort()  # closed in order it would be a hang-up
    number = int(welcome["path"].removeprefix("browser-stream/"))
    resume = {"type": "resume", "call": welcome["call"], "token": welcome["token"], "received": 0}
    os.kill(server.pid_of(number), signal.SIGSTOP)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on_later, server.pid_of(number))
        async with open_client(f"{base}/{welcome['path']}", headers=headers) as socket:
            await socket.send(msgspec.json.encode(resume).decode())
            assert msgspec.json.decode(await socket.receive())["call"] == welcome["call"]
            await socket.send('{"type":"hangup"}')
    [ended] = await server.until("CALL_METRICS", call=welcome["call"])
    assert ended["process"] == number
    assert 'agent_events_total{event="CONNECTION_PASSED_ON"} 2.0' in await server.metrics()


async def go_on_later(pid: int) -> None:
    """It was stopped, and a connection came meanwhile."""
    await trio.sleep(1)
    os.kill(pid, signal.SIGCONT)


async def test_a_stream_that_comes_elsewhere_finds_its_process_and_all_count_as_one(tmp_path: Path) -> None:
    """The process that answered the webhook stands still while its stream comes: another accepts that."""
    with trio.fail_after(180):
        async with open_processes(tmp_path, AGENT_MAX_CALLS="1", AGENT_BROWSER_ORIGINS=SHOP) as server:
            call_sid = f"CA{secrets.token_hex(16)}"
            order = await announce(server, call_sid)
            number = number_of(order)
            os.kill(server.pid_of(number), signal.SIGSTOP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_on_later, server.pid_of(number))
                async with server.twilio.caller.connect(order, call_sid) as stream:
                    await stream.until_heard_ms(300)
                    for _ in range(4):  # whoever answers
                        with pytest.raises(CallNotTakenError, match="busy"):
                            await announce(server, f"CA{secrets.token_hex(16)}")
                    metrics = await server.metrics()
                    await stream.hang_up()
                    await stream.until_closed()
            assert 'agent_events_total{event="CONNECTION_PASSED_ON"} 1.0' in metrics
            assert "agent_active_calls 1.0" in metrics
            assert 'agent_processes{state="taking"} 2.0' in metrics
            [ended] = await server.until("CALL_METRICS")
            assert (ended["call"], ended["process"]) == (call_sid, number)
            assert 'agent_calls_total{outcome="caller_hung_up"} 1.0' in await server.metrics()
            await a_browser_comes_again(server)


async def test_a_process_that_is_killed_takes_only_its_own_calls_with_it(tmp_path: Path) -> None:
    """Another takes its place, and its calls are recorded as crashed at once."""
    with trio.fail_after(180):
        async with open_processes(tmp_path) as server, AsyncExitStack() as stack:
            calls: dict[int, list[tuple[str, SimulatedStream]]] = {}
            while len(calls) < 2:
                call_sid = f"CA{secrets.token_hex(16)}"
                order = await announce(server, call_sid)
                stream = await stack.enter_async_context(server.twilio.caller.connect(order, call_sid))
                await stream.until_heard_ms(100)
                calls.setdefault(number_of(order), []).append((call_sid, stream))
            (killed, lost), (_, kept) = calls.items()
            await trio.sleep(1)  # their rows are in the database
            os.kill(server.pid_of(killed), signal.SIGKILL)
            heard_ms = [stream.heard_ms() for _, stream in kept]
            for _, stream in lost:
                await stream.until_closed()
            await server.until("CALL_CRASHED", len(lost))
            assert {event["call"] for event in server.events("CALL_CRASHED")} == {sid for sid, _ in lost}
            await server.until("PROCESS_READY", 3)
            for before_ms, (_, stream) in zip(heard_ms, kept, strict=True):
                await stream.until_heard_ms(before_ms + 500)
            call_sid = f"CA{secrets.token_hex(16)}"
            stream = await stack.enter_async_context(
                server.twilio.caller.connect(await announce(server, call_sid), call_sid)
            )
            await stream.until_heard_ms(100)
            assert f"agent_active_calls {len(kept) + 1}.0" in await server.metrics()


async def test_hang_up_renews_the_processes_and_the_end_leaves_nothing(tmp_path: Path) -> None:
    """After SIGHUP new calls are the new processes', old ones go on where they are; then SIGTERM."""
    with trio.fail_after(180):
        async with open_processes(tmp_path, AGENT_DRAIN_S="0.2") as server:
            old_sid, new_sid = f"CA{secrets.token_hex(16)}", f"CA{secrets.token_hex(16)}"
            early = await announce(server, new_sid)  # its stream comes when its process leaves
            order = await announce(server, old_sid)
            old = {event["process"] for event in server.events("PROCESS_READY")}
            async with server.twilio.caller.connect(order, old_sid) as stream:
                await stream.until_heard_ms(100)
                dotenv = tmp_path / ".env"
                dotenv.write_text("AGENT_LEAD_MS=-1")
                server.process.send_signal(signal.SIGHUP)
                await server.until("RELOAD_FAILED")
                assert "AGENT_LEAD_MS" in server.events("SETTINGS_WRONG")[0]["error"]
                dotenv.unlink()
                server.process.send_signal(signal.SIGHUP)
                await server.until("RELOADED")
                await server.until("RETIRING", 2)
                async with server.twilio.caller.connect(early, new_sid) as another:
                    await another.until_heard_ms(500)
                    before_ms = stream.heard_ms()
                    await stream.until_heard_ms(before_ms + 500)
                    left = await server.until("PROCESS_LEFT", role="calls")
                    assert [event["process"] for event in left] == list(old - {number_of(order)})
                    await stream.hang_up()
                    await stream.until_closed()
                    await server.until("PROCESS_LEFT", 2, role="calls")
                    server.process.send_signal(signal.SIGTERM)
                    await another.until_closed()
            pids = [event["pid"] for event in server.events("PROCESS_READY")]
            postgres_pid = server.data_dir / "postgres" / "postmaster.pid"
            assert postgres_pid.exists()
            assert await server.process.wait() == 0
            assert not [pid for pid in pids if psutil.pid_exists(pid)]
            assert not postgres_pid.exists()
            records = {
                path.stem: decode_record(path.read_bytes()) for path in server.data_dir.glob("calls/*.json")
            }
            assert {sid: record.outcome for sid, record in records.items()} == {
                old_sid: Outcome.CALLER_HUNG_UP,
                new_sid: Outcome.SERVER_STOPPED,
            }
            by_call = {event["call"]: event["process"] for event in server.events("CALL_METRICS")}
            assert by_call[old_sid] == number_of(order)
            assert by_call[new_sid] not in old
            assert not server.events("PROCESS_DIED")


async def test_a_server_whose_processes_do_not_start_says_so_and_ends(tmp_path: Path) -> None:
    """What is wrong is said by the child that failed; nobody is left."""
    settings = {
        "AGENT_PROCESSES": "2",
        "AGENT_PORT": "0",
        "AGENT_HOST": "127.0.0.1",
        "AGENT_ADMIN_PORT": "0",
        "AGENT_DATA_DIR": str(tmp_path / "data"),
        "AGENT_TOOLS": "no_such_module",
        "OPENAI_API_KEY": "sk-test",
        "DATABASE_URL": "postgresql://127.0.0.1:1/nowhere",
    }
    with trio.fail_after(120):
        done = await trio.run_process(
            [sys.executable, "-m", "agent", "serve"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | settings,
        )
    assert done.returncode == 1
    assert b"call-agent: the processes of the server do not start" in done.stderr
    assert b"no_such_module" in done.stderr

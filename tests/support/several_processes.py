"""A server of several processes between a simulated Twilio and a scripted model, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import msgspec
import trio

from agent.sim.carrier.twilio import SimulatedTwilio, open_simulated_twilio
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime, serve_realtime

AUTH = "token of the account"
CALLER, NUMBER = "+15550001111", "+15552223333"
LONG = Answer("A long story.", 60_000)


@attrs.define(eq=False)
class SeveralProcesses:
    """The running server."""

    url: str
    operators_url: str
    process: trio.Process
    log: Path
    data_dir: Path
    twilio: SimulatedTwilio

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What it has logged so far, the oldest first."""
        found = [msgspec.json.decode(line) for line in self.log.read_bytes().splitlines() if line[:1] == b"{"]
        return [event for event in found if name in ("", event["event"])]

    async def until(self, name: str, count: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Wait until it has logged an event with ``fields`` so often."""
        while True:
            found = [event for event in self.events(name) if fields.items() <= event.items()]
            if len(found) >= count:
                return found
            await trio.sleep(0.05)

    def pid_of(self, number: int) -> int:
        """Of the process with that number."""
        [ready] = [event for event in self.events("PROCESS_READY") if event["process"] == number]
        return int(ready["pid"])

    async def metrics(self) -> str:
        """What Prometheus reads."""
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{self.operators_url}/metrics")).text


@asynccontextmanager
async def open_processes(tmp_path: Path, count: int = 2, **more: str) -> AsyncIterator[SeveralProcesses]:
    """A server whose processes have the embedded database; it is killed if it still runs when left."""
    ports = [await _free_port(), await _free_port()]
    url, log = f"http://127.0.0.1:{ports[0]}", tmp_path / "log"
    # Not below tmp_path: pytest closes that to Postgres's user whenever another run begins.
    with tempfile.TemporaryDirectory(prefix="call-agent-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        async with trio.open_nursery() as nursery:
            model = await nursery.start(serve_realtime, 0, lambda: ScriptedRealtime([LONG]))
            async with open_simulated_twilio(
                agent_url=url, auth_token=AUTH, account_sid="AC" + "a" * 32, numbers=[NUMBER]
            ) as twilio:
                settings = {
                    "AGENT_PROCESSES": str(count),
                    "AGENT_HOST": "127.0.0.1",
                    "AGENT_PORT": str(ports[0]),
                    "AGENT_ADMIN_PORT": str(ports[1]),
                    "AGENT_PUBLIC_URL": url,
                    "AGENT_DATA_DIR": str(data_dir),
                    "AGENT_LOG_FORMAT": "json",
                    "OPENAI_API_KEY": "sk-test",
                    "OPENAI_REALTIME_URL": model,
                    "TWILIO_ACCOUNT_SID": "AC" + "a" * 32,
                    "TWILIO_AUTH_TOKEN": AUTH,
                    "TWILIO_NUMBER": NUMBER,
                    "TWILIO_API_URL": twilio.api_url,
                    **more,
                }
                ours = ("AGENT_", "OPENAI_", "TWILIO_")
                kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
                with log.open("wb") as stderr:
                    process = await trio.lowlevel.open_process(
                        [sys.executable, "-m", "agent", "serve"],
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                        cwd=tmp_path,
                        env=kept | settings,
                    )
                server = SeveralProcesses(url, f"http://127.0.0.1:{ports[1]}", process, log, data_dir, twilio)
                try:
                    await server.until("READY", processes=count)
                    # Of the parent and of each child that takes calls: else a call's row waits on the disk.
                    await server.until("DATABASE_READY", 1 + count)
                    yield server
                finally:
                    await _end(process)  # noqa: ASYNC102 - it shields and bounds itself
            nursery.cancel_scope.cancel()


async def _end(process: trio.Process) -> None:
    """Children of a parent that was killed end by themselves, but not at once."""
    with trio.move_on_after(20, shield=True):
        for _ in range(3):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                with trio.move_on_after(5):
                    await process.wait()
    if process.returncode is None:
        process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()


async def _free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port

"""The agent's server in a process of its own, with nothing of the user's settings: ``call-agent serve``."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

import agent
from agent.core.errors import AgentError
from agent.local.process import end_process, first_line

LOG: Final = "server.log"
PUBLIC_URL: Final = "https://agent.example"
"""Where the carrier is told to call back; the simulated one knows that this machine is meant."""
DATA: Final = "data"
"""The server's data directory, in the folder it runs in."""
READY_S: Final = 75.0
"""How long the server may take to be ready: the embedded model loads in two seconds, on a cold disk in more."""
STOP_S: Final = 8.0
_POLL_S: Final = 0.1
_OURS: Final = ("AGENT_", "OPENAI_", "TWILIO_", "DATABASE_URL", "PG", "DEBUG_TX")
_LOG_LINE: Final = 300


class ServerError(AgentError):
    """The agent's server did not start, or ended; the message says why, as far as its log tells."""


@attrs.frozen
class Account:
    """The simulated Twilio account, as the server is told of it."""

    sid: str
    auth_token: str = attrs.field(repr=False)
    api_url: str
    number: str


def environment(current: Mapping[str, str], account: Account, data_dir: Path) -> dict[str, str]:
    """The server's environment: no key, so that the embedded model answers, and a carrier that signs.

    Greeting and instructions come from the tenant, whose webhook is on this machine.
    """
    kept = {name: value for name, value in current.items() if not name.upper().startswith(_OURS)}
    source = str(Path(agent.__file__).parent.parent)
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [source, current.get("PYTHONPATH", "")])),
        "AGENT_HOST": "127.0.0.1",
        "AGENT_DATA_DIR": str(data_dir),
        "AGENT_DRAIN_S": "0",
        "AGENT_ADMIN_PORT": "0",
        "AGENT_LOG_FORMAT": "json",
        "AGENT_PUBLIC_URL": PUBLIC_URL,
        "AGENT_ALLOW_INWARD_WEBHOOKS": "1",
        "TWILIO_ACCOUNT_SID": account.sid,
        "TWILIO_AUTH_TOKEN": account.auth_token,
        "TWILIO_API_URL": account.api_url,
        "TWILIO_NUMBER": account.number,
    }


@asynccontextmanager
async def open_agent(account: Account, folder: Path) -> AsyncIterator[str]:
    """Run the server in ``folder``; yields its URL once ``/readyz`` answers 200, and ends it when left.

    It runs in a session of its own, so that a Ctrl-C in our terminal is ours to pass on, and in ``folder``, so
    that it reads no ``.env`` of the user's. Leaving takes at most STOP_S + 1 s, also when cancelled. Raises
    ServerError.
    """
    log = folder / LOG
    with log.open("wb") as log_file:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "agent", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd=folder,
            env=environment(os.environ, account, Path(DATA)),
            start_new_session=True,
        )
        try:
            with trio.move_on_after(READY_S) as waiting:
                url = await _url(process, log)
                await _until_ready(url, process, log)
            if waiting.cancelled_caught:
                raise ServerError(f"the agent was not ready within {READY_S:.0f} s; its log is {log}")
            yield url
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.terminate()  # which ends the embedded model too
                await end_process(process, STOP_S)


async def _url(process: trio.Process, log: Path) -> str:
    """The address in the line that the server prints when it listens."""
    line = await first_line(process.stdout)
    if not line:
        await process.wait()
        raise ServerError(f"the agent did not start: {_last_words(log)}")
    address = [word for word in line.split() if word.startswith("http://")]
    if not address:
        raise ServerError(f"the agent said something unexpected: {line!r}")
    return address[0]


async def _until_ready(url: str, process: trio.Process, log: Path) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=READY_S) as client:
        while process.returncode is None:
            try:
                if (await client.get(f"{url}/readyz")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # between two looks it ended; the next look says so
            await trio.sleep(_POLL_S)
            process.poll()
    raise ServerError(f"the agent ended before it was ready: {_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:_LOG_LINE] if said else "it said nothing"

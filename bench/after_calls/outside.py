"""What post-call work talks to in a benchmark, each a process: OpenAI's API, a tenant's receiver, the carrier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import httpx
import msgspec
import trio

from agent.store.pg import open_connection
from bench.after_calls.aftermath import Received
from bench.after_calls.recording_desk import ACCOUNT_SID, TOKEN, DeskOrder
from bench.rig.processes import BenchError, Child, open_child

SECRET: Final = "whsec_bench"  # noqa: S105 - of a receiver that is not one
START_S: Final = 20.0
ANSWER_S: Final = 10.0
RECORDING_S: Final = 4.0


@attrs.frozen
class Outside:
    """The URLs of the processes, and what a worker is set to so that it uses them."""

    folder: Path
    openai_url: str
    receiver_url: str
    desk_url: str
    conninfo: str = attrs.field(repr=False)

    @property
    def settings(self) -> dict[str, str]:
        """For a worker or a server."""
        return {
            "DATABASE_URL": self.conninfo,
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": f"{self.openai_url}/v1",
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_API_URL": self.desk_url,
            "AGENT_ALLOW_INWARD_WEBHOOKS": "1",
            "AGENT_LOG_FORMAT": "json",
        }

    async def have_tenant(self) -> None:
        """Give the default tenant its webhook."""
        async with open_connection(self.conninfo) as connection:
            await connection.execute(
                "UPDATE tenants SET webhook_url = %s, webhook_secret = %s WHERE id = 'default'",
                [f"{self.receiver_url}/calls", SECRET],
            )

    async def received(self) -> Received:
        """What the receiver has got so far."""
        return msgspec.json.decode(await self._get(f"{self.receiver_url}/received"), type=Received)

    async def asked(self) -> dict[str, int]:
        """How often the model API was asked, by endpoint."""
        return msgspec.json.decode(await self._get(f"{self.openai_url}/counts"), type=dict[str, int])

    async def tell_ended(self, call_sids: Sequence[str]) -> None:
        """The carrier knows that these calls have ended."""
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_S) as client:
            (await client.post(f"{self.desk_url}/ended", json=list(call_sids))).raise_for_status()

    @asynccontextmanager
    async def open_worker(self, data_dir: Path, core: int | None, number: int = 0) -> AsyncIterator[Child]:
        """``call-agent worker``, at work on ``core``; killed when left."""
        settings = {**self.settings, "AGENT_DATA_DIR": str(data_dir)}
        arguments, name = ["-m", "agent", "worker"], f"worker-{number}"
        async with open_child(name, arguments, core=core, folder=self.folder, settings=settings) as worker:
            with trio.fail_after(START_S):
                await worker.line()
            yield worker

    async def _get(self, url: str) -> bytes:
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_S) as client:
            return (await client.get(url)).content


@asynccontextmanager
async def open_outside(conninfo: str, folder: Path, core: int | None, *, delay_ms: int) -> AsyncIterator[Outside]:
    """Start the processes on ``core``; the model API takes ``delay_ms`` for each answer."""
    desk = msgspec.json.encode(DeskOrder(RECORDING_S)).decode()
    async with (
        _open_sim("openai", ["openai-rest", "--port", "0", "--delay-ms", str(delay_ms)], folder, core) as openai,
        _open_sim("receiver", ["webhook-receiver", "--port", "0", "--secret", SECRET], folder, core) as receiver,
        open_child(
            "recordings", ["-m", "bench.after_calls.recording_desk", desk], core=core, folder=folder
        ) as records,
    ):
        with trio.fail_after(START_S):
            outside = Outside(
                folder,
                openai_url=await _url_of(openai),
                receiver_url=await _url_of(receiver),
                desk_url=msgspec.json.decode(await records.line(), type=str),
                conninfo=conninfo,
            )
        await outside.have_tenant()
        yield outside


def _open_sim(
    name: str, arguments: Sequence[str], folder: Path, core: int | None
) -> AbstractAsyncContextManager[Child]:
    return open_child(name, ["-m", "agent.sim", *arguments], core=core, folder=folder)


async def _url_of(child: Child) -> str:
    line = (await child.line()).decode()
    found = next((word for word in line.split() if word.startswith("http://")), "")
    if not found:
        raise BenchError(f"{child.name} did not say where it is: {line}")
    return found

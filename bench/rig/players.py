"""Who plays in a run with calls: the model, the agent and the callers, each a process of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec
import trio

from bench.generator.observations import CarrierReport, ModelReport, Window
from bench.generator.plan import LoadPlan, Order
from bench.rig.processes import Child, open_child

READY_S: Final = 60.0
ANSWER_S: Final = 10.0
"""How long a process of the load may take to begin."""
_Report = TypeVar("_Report", CarrierReport, ModelReport)


@asynccontextmanager
async def open_model(
    plan: LoadPlan, folder: Path, core: int | None, *, tls: bool = False
) -> AsyncIterator[tuple[Child, str]]:
    """The load's speech-to-speech model, with its URL; its report will be ``model.report``."""
    order = Order(plan=plan, result=str(folder / "model.report"), tls=tls)
    async with open_child(
        "model", ["-m", "bench.generator.model", _said(order)], core=core, folder=folder
    ) as model:
        with trio.fail_after(ANSWER_S):
            url = msgspec.json.decode(await model.line(), type=str)
        yield model, url


def open_callers(plan: LoadPlan, url: str, result: Path, core: int | None) -> AbstractAsyncContextManager[Child]:
    """All callers of ``plan``: at a ws:// URL straight to the media stream, at an http:// one by the webhook."""
    order = Order(plan=plan, result=str(result), url=url)
    arguments = ["-m", "bench.generator.carrier", _said(order)]
    return open_child("carrier", arguments, core=core, folder=result.parent)


def server_settings(plan: LoadPlan, model_url: str, data_dir: Path) -> dict[str, str]:
    """What a server is set to. It does no post-call work: that is measured by itself, unless it is asked for."""
    whose = {"TWILIO_AUTH_TOKEN": plan.auth_token} if plan.auth_token else {"AGENT_ALLOW_UNSIGNED": "1"}
    return {
        **whose,
        "AGENT_HOST": "127.0.0.1",
        "AGENT_DATA_DIR": str(data_dir),
        "AGENT_MAX_CALLS": "" if plan.knocking else str(plan.calls + 1),
        "AGENT_LEAD_MS": str(plan.lead_ms),
        "AGENT_DRAIN_S": "5",
        "AGENT_ADMIN_PORT": "0",
        "AGENT_LOG_FORMAT": "json",
        "AGENT_WORKER": "0",
        "OPENAI_API_KEY": "none",
        "OPENAI_REALTIME_URL": model_url,
    }


def open_server(
    folder: Path, core: int | None, settings: Mapping[str, str], port: int = 0, tree: Path | None = None
) -> AbstractAsyncContextManager[Child]:
    """``call-agent serve`` of this checkout or of ``tree``; see ``until_ready``."""
    arguments = ["-m", "agent", "serve", "--port", str(port)]
    return open_child("agent", arguments, core=core, folder=folder, settings=settings, tree=tree)


async def until_ready(agent: Child) -> str:
    """Wait until the server can take calls; its URL."""
    with trio.fail_after(READY_S):
        line = (await agent.line()).decode()
        base = next((word for word in line.split() if word.startswith("http://")), "")
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=READY_S) as client:
            # A server in another process has no event to wait for.
            while (await client.get("/readyz")).status_code != httpx.codes.OK:  # noqa: ASYNC110
                await trio.sleep(0.1)
    return base


async def window_of(callers: Child) -> Window:
    """When they are measured; they say so as they begin."""
    with trio.fail_after(ANSWER_S):
        return msgspec.json.decode(await callers.line(), type=Window)


async def until(monotonic_s: float) -> None:
    """Wait until a moment of CLOCK_MONOTONIC; not at all for one that is over."""
    await trio.sleep(max(monotonic_s - time.monotonic(), 0.0))


def read_report(path: Path, kind: type[_Report]) -> _Report:
    """What a process of the load left behind."""
    return msgspec.msgpack.decode(path.read_bytes(), type=kind)


def _said(order: Order) -> str:
    return msgspec.json.encode(order).decode()

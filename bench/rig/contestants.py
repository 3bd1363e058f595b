"""Who is measured under one and the same load: this checkout's agent, another checkout's, the yardstick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.generator.plan import LoadPlan
from bench.rig.players import ANSWER_S, open_server, server_settings, until_ready
from bench.rig.processes import Child, open_child

CERTIFICATE: Final = Path(__file__).parents[1] / "generator" / "certificates" / "ca.pem"
API_DELAY_MS: Final = 200
"""Of the model API that a worker asks."""


@attrs.frozen
class Contestant:
    """A server that answers calls; ``tree`` is the checkout of an agent, None for the yardstick."""

    name: str
    tree: Path | None = None
    processes: int = 1
    """That take calls, all of them on the one core."""

    @property
    def is_yardstick(self) -> bool:
        """It does not pace, keeps nothing, and has no worker."""
        return self.tree is None


OURS: Final = Contestant("ours", Path(__file__).parents[2])
YARDSTICK: Final = Contestant("yardstick")


@asynccontextmanager
async def open_contestant(
    contestant: Contestant,
    plan: LoadPlan,
    model_url: str,
    folder: Path,
    cores: tuple[int | None, int | None],
    *,
    worker: bool,
) -> AsyncIterator[tuple[Child, str]]:
    """Run it on the first of ``cores``; yields it, ready, with the URL of its media stream.

    Where the carrier signs, it is the URL of its webhooks.
    With ``worker`` an agent does post-call work, against a model API on the second core. Raises BenchError,
    trio.TooSlowError.
    """
    trust = {"SSL_CERT_FILE": str(CERTIFICATE)} if model_url.startswith("wss:") else {}
    if contestant.is_yardstick:
        settings = {"OPENAI_REALTIME_URL": model_url, **trust}
        arguments = ["-m", "bench.yardstick"]
        async with open_child("agent", arguments, core=cores[0], folder=folder, settings=settings) as bridge:
            with trio.fail_after(ANSWER_S):
                base = (await bridge.line()).decode()
            yield bridge, _stream_of(base)
        return
    settings = {**server_settings(plan, model_url, folder / "data"), **trust}
    if contestant.processes > 1:  # an older checkout knows nothing of it
        settings["AGENT_PROCESSES"] = str(contestant.processes)
    async with AsyncExitStack() as stack:
        if worker:
            arguments = ["-m", "agent.sim", "openai-rest", "--port", "0", "--delay-ms", str(API_DELAY_MS)]
            api = await stack.enter_async_context(open_child("api", arguments, core=cores[1], folder=folder))
            line = (await api.line()).decode()
            url = next(word for word in line.split() if word.startswith("http://"))
            settings |= {"AGENT_WORKER": "1", "OPENAI_BASE_URL": f"{url}/v1"}
        server = open_server(folder, cores[0], settings, tree=contestant.tree)
        agent = await stack.enter_async_context(server)
        base = await until_ready(agent)
        yield agent, base if plan.auth_token else _stream_of(base)


def _stream_of(base: str) -> str:
    return f"ws://{base.removeprefix('http://')}/media-stream"

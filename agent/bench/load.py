"""A load run: the real server on one core, the simulators on another, over loopback sockets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import attrs
import httpx
import msgspec
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.bench.figures import LoadFigures, evaluate
from agent.bench.observations import CarrierReport, ModelReport, Window
from agent.bench.plan import LoadPlan, SimulatorOrder
from agent.bench.processes import Child, cores, open_child
from agent.record_store import decode_record
from agent.records import Outcome

READY_S: Final = 30.0
REST_S: Final = 1.0
"""What the agent is given to come to rest before its idle memory is read."""
ANSWER_S: Final = 10.0
"""How long the agent may take to answer a web request, or a simulator to begin."""
Say = Callable[[str], None]
_Report = TypeVar("_Report", CarrierReport, ModelReport)


@attrs.frozen(kw_only=True)
class LoadResult:
    """The figures of a run: what the simulators saw, and what was seen of the agent's process."""

    figures: LoadFigures
    cpu_ms: float
    """CPU time of the agent per call and second, in milliseconds."""
    memory_kb: float
    """Memory of the agent per call: with all calls, minus idle after one call, by the number of calls."""
    idle_mb: float
    pacer_late: dict[float, float]
    """The agent's own histogram: the share of its ticks that ran within so many milliseconds."""
    records: int
    """Calls with a durable record that says that the caller hung up."""


async def run_load(plan: LoadPlan, folder: Path, say: Say) -> LoadResult:
    """Run it. Raises BenchError when a process fails; a cancel kills all of them."""
    agent_core, simulator_core = cores() or (None, None)
    with _moved_to(simulator_core):
        async with open_child(
            "model",
            ["-m", "agent.bench.models", _order(plan, folder / "model.json")],
            core=simulator_core,
            folder=folder,
        ) as model:
            with trio.fail_after(ANSWER_S):
                model_url = msgspec.json.decode(await model.line(), type=str)
            settings = _settings(plan, model_url, folder / "data")
            arguments = ["-m", "agent", "serve", "--port", "0"]
            async with open_child("agent", arguments, core=agent_core, folder=folder, settings=settings) as agent:
                result = await _measure(plan, folder, say, agent=agent, model=model, core=simulator_core)
    return result


async def _measure(
    plan: LoadPlan, folder: Path, say: Say, *, agent: Child, model: Child, core: int | None
) -> LoadResult:
    base = await _ready(agent)
    say("the agent is ready; one call, so that everything is loaded")
    await _phone(attrs.evolve(plan, calls=1, seconds=1.0), base, folder / "first.json", core)
    await trio.sleep(REST_S)
    idle_bytes = agent.rss_bytes()
    say(f"{plan.calls} callers begin, one each {plan.ramp_s / plan.calls * 1000:.0f} ms")
    async with _carriers(plan, base, folder / "carrier.json", core) as carriers:
        window = await _window(carriers)
        await _until(window.begin_s)
        say(f"measuring for {plan.seconds:.0f} s")
        cpu_s, ticks = agent.cpu_s(), await _pacer_ticks(base)
        for left_s in range(int(plan.seconds) // 10 * 10, 0, -10):
            await _until(window.end_s - left_s)
            say(f"{left_s} s left")
        await _until(window.end_s - 0.5)
        rss_bytes = agent.rss_bytes()
        await _until(window.end_s)
        cpu_s = agent.cpu_s() - cpu_s
        late = _shares(ticks, await _pacer_ticks(base))
        say("all callers hang up")
        await carriers.until_done()
    await agent.stop()
    await model.stop()
    carrier_report = _read(folder / "carrier.json", CarrierReport)
    model_report = _read(folder / "model.json", ModelReport)
    # The first session of the model is that of the one call before.
    load_report = attrs.evolve(model_report, calls=model_report.calls[1:])
    return LoadResult(
        figures=evaluate(carrier_report, load_report, lead_ms=plan.lead_ms),
        cpu_ms=cpu_s * 1000 / plan.calls / plan.seconds,
        memory_kb=(rss_bytes - idle_bytes) / 1024 / plan.calls,
        idle_mb=idle_bytes / 1024**2,
        pacer_late=late,
        records=_hung_up(folder / "data"),
    )


async def _phone(plan: LoadPlan, base: str, result: Path, core: int | None) -> None:
    async with _carriers(plan, base, result, core) as carriers:
        await _window(carriers)
        await carriers.until_done()


def _carriers(plan: LoadPlan, base: str, result: Path, core: int | None) -> AbstractAsyncContextManager[Child]:
    url = f"ws://{base.removeprefix('http://')}/media-stream"
    arguments = ["-m", "agent.bench.carriers", _order(plan, result, url)]
    return open_child("carrier", arguments, core=core, folder=result.parent)


async def _window(carriers: Child) -> Window:
    with trio.fail_after(ANSWER_S):
        return msgspec.json.decode(await carriers.line(), type=Window)


async def _ready(agent: Child) -> str:
    """The agent's URL, once it can take calls."""
    with trio.fail_after(READY_S):
        line = (await agent.line()).decode()
        base = next((word for word in line.split() if word.startswith("http://")), "")
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            # A server in another process has no event to wait for.
            while (await client.get("/readyz")).status_code != httpx.codes.OK:  # noqa: ASYNC110
                await trio.sleep(0.1)
    return base


async def _until(monotonic_s: float) -> None:
    await trio.sleep(max(monotonic_s - time.monotonic(), 0.0))


async def _pacer_ticks(base: str) -> dict[float, float]:
    """The agent's lateness histogram: ticks counted up to each border, in seconds."""
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=ANSWER_S) as client:
        text = (await client.get("/metrics")).text
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "agent_frame_lateness_seconds_bucket"
    }


def _shares(before: Mapping[float, float], after: Mapping[float, float]) -> dict[float, float]:
    """The share of the ticks between two looks that ran within each border, in milliseconds."""
    total = after[inf] - before[inf]
    return {border * 1000: (after[border] - before[border]) / max(total, 1) for border in after}


def _settings(plan: LoadPlan, model_url: str, data_dir: Path) -> dict[str, str]:
    return {
        "AGENT_HOST": "127.0.0.1",
        "AGENT_ALLOW_UNSIGNED": "1",
        "AGENT_DATA_DIR": str(data_dir),
        "AGENT_MAX_CALLS": str(plan.calls + 1),
        "AGENT_LEAD_MS": str(plan.lead_ms),
        "AGENT_DRAIN_S": "5",
        "AGENT_LOG_FORMAT": "json",
        "OPENAI_API_KEY": "none",
        "OPENAI_REALTIME_URL": model_url,
    }


def _order(plan: LoadPlan, result: Path, url: str = "") -> str:
    return msgspec.json.encode(SimulatorOrder(plan=plan, result=str(result), url=url)).decode()


def _read(path: Path, kind: type[_Report]) -> _Report:
    return msgspec.json.decode(path.read_bytes(), type=kind)


def _hung_up(data_dir: Path) -> int:
    records = [decode_record(path.read_bytes()) for path in data_dir.glob("calls/*.json")]
    return sum(record.outcome is Outcome.CALLER_HUNG_UP for record in records)


@contextmanager
def _moved_to(core: int | None) -> Iterator[None]:
    """Run this process on ``core`` meanwhile: the agent's is the agent's alone."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

"""A load run: the real server on one core, the simulators on another, over loopback sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.core.records import Outcome
from agent.store.record_store import decode_record
from bench.figures import LoadFigures, evaluate
from bench.observations import CarrierReport, ModelReport
from bench.plan import LoadPlan
from bench.players import (
    ANSWER_S,
    open_callers,
    open_model,
    open_server,
    read_report,
    server_settings,
    until,
    until_ready,
    window_of,
)
from bench.processes import Child, cores, moved_to

REST_S: Final = 1.0
"""What the agent is given to come to rest before its idle memory is read."""
Say = Callable[[str], None]


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
    with moved_to(simulator_core):
        async with open_model(plan, folder, simulator_core) as (model, model_url):
            settings = server_settings(plan, model_url, folder / "data")
            async with open_server(folder, agent_core, settings) as agent:
                result = await _measure(plan, folder, say, agent=agent, model=model, core=simulator_core)
    return result


async def _measure(
    plan: LoadPlan, folder: Path, say: Say, *, agent: Child, model: Child, core: int | None
) -> LoadResult:
    base = await until_ready(agent)
    say("the agent is ready; one call, so that everything is loaded")
    await _phone(attrs.evolve(plan, calls=1, seconds=1.0), base, folder / "first.json", core)
    await trio.sleep(REST_S)
    idle_bytes = agent.rss_bytes()
    say(f"{plan.calls} callers begin, one each {plan.ramp_s / plan.calls * 1000:.0f} ms")
    async with open_callers(plan, _stream_of(base), folder / "carrier.json", core) as carriers:
        window = await window_of(carriers)
        await until(window.begin_s)
        say(f"measuring for {plan.seconds:.0f} s")
        cpu_s, ticks = agent.cpu_s(), await _pacer_ticks(base)
        for left_s in range(int(plan.seconds) // 10 * 10, 0, -10):
            await until(window.end_s - left_s)
            say(f"{left_s} s left")
        await until(window.end_s - 0.5)
        rss_bytes = agent.rss_bytes()
        await until(window.end_s)
        cpu_s = agent.cpu_s() - cpu_s
        late = _shares(ticks, await _pacer_ticks(base))
        say("all callers hang up")
        await carriers.until_done()
    await agent.stop()
    await model.stop()
    carrier_report = read_report(folder / "carrier.json", CarrierReport)
    model_report = read_report(folder / "model.json", ModelReport)
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
    async with open_callers(plan, _stream_of(base), result, core) as carriers:
        await window_of(carriers)
        await carriers.until_done()


def _stream_of(base: str) -> str:
    return f"ws://{base.removeprefix('http://')}/media-stream"


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


def _hung_up(data_dir: Path) -> int:
    records = [decode_record(path.read_bytes()) for path in data_dir.glob("calls/*.json")]
    return sum(record.outcome is Outcome.CALLER_HUNG_UP for record in records)

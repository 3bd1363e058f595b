"""Load runs: one server on one core, the load on another, over loopback sockets; one run, and runs in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from bench.generator.observations import CarrierReport, ModelReport, Window
from bench.generator.plan import LoadPlan
from bench.reporting.figures import LATE_TICK_MS, LoadFigures, evaluate, faults
from bench.rig.contestants import Contestant, open_contestant
from bench.rig.players import open_callers, open_model, read_report, until, window_of
from bench.rig.processes import BenchError, Child, Say, cores, moved_to

REST_S: Final = 1.0
"""What a server is given to come to rest before its idle memory is read."""
TRIES: Final = 3
"""How often a run whose load was late itself is repeated before it is given up."""
BURST_AT: Final = 0.5
STOP_AT: Final = 0.4
"""Where in the window callers hang up together, and where the server is stopped."""
KNOCKING_AT: Final = 0.1
KNOCKING_WITHIN: Final = 0.6
"""From a tenth of the window on to seven tenths: who is let in last has time for an answer."""
SIGNED_EACH_S: Final = 0.1
"""From one call's begin to the next, where the server may refuse: a beginning costs more than a second."""
AUTH_TOKEN: Final = "of the account"  # noqa: S105 - nobody's
FIRST_CALL: Final = LoadPlan(calls=1, first=60_000, seconds=0.5, every_s=0.5, per_call_s=0.0)


@attrs.frozen(kw_only=True)
class Variant:
    """How the load is run, besides how many calls there are."""

    tls: bool = False
    """Between server and model."""
    worker: bool = False
    burst: int = 0
    """So many callers hang up together in mid-run."""
    stop_s: float = 0.0
    """For so long the server is stopped in mid-run."""
    knocking: float = 0.0
    """So many times the calls phone besides, in mid-run; then all are signed, and the server may refuse."""


@attrs.frozen(kw_only=True)
class RunResult:
    """One run of one contestant."""

    contestant: str
    calls: int
    seconds: float
    variant: Variant
    faults: tuple[str, ...]
    """Why it did not pass."""
    cpu_ms: float
    """CPU time of the server per call and second, in milliseconds; its children's beside it."""
    children_cpu_ms: float
    load_cpu_ms: float
    """Likewise of the load, both sides together."""
    cpu_share: float
    """Of a core, that the server used."""
    memory_kb: float
    """Of the server per call: with all calls, minus idle after one call, by the number of calls."""
    idle_mb: float
    records: int | None
    """Calls with a durable record that says that the caller hung up; None of one who keeps none."""
    figures: LoadFigures

    @property
    def passed(self) -> bool:
        """Whether it did all that a call needs."""
        return not self.faults


def plan_of(calls: int, seconds: float, variant: Variant) -> LoadPlan:
    """The plan of a run."""
    plan = LoadPlan(calls=calls, seconds=seconds, leaving=variant.burst, leaving_at_s=seconds * BURST_AT)
    if not variant.knocking:
        return plan
    return attrs.evolve(
        plan,
        per_call_s=SIGNED_EACH_S,
        knocking=round(calls * variant.knocking),
        knocking_at_s=seconds * KNOCKING_AT,
        knocking_within_s=seconds * KNOCKING_WITHIN,
        auth_token=AUTH_TOKEN,
    )


async def run_valid(contestant: Contestant, plan: LoadPlan, variant: Variant, say: Say) -> RunResult:
    """A run whose own ticks were on time; one that is void is repeated. Raises BenchError after TRIES.

    A cancel kills all processes.
    """
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
            result = await run_once(contestant, plan, variant, Path(folder))
        late_ms = result.figures.late_tick_ms
        if late_ms <= LATE_TICK_MS:
            say(f"  {contestant.name}: {summary(result)}")
            return result
        say(f"  {contestant.name}: void, the load's own ticks were {late_ms:.1f} ms late (p99)")
    raise BenchError(f"the load was late {TRIES} times: have nothing else run, or fewer calls than {plan.calls}")


async def run_in_turns(
    contestants: Sequence[Contestant], plan: LoadPlan, variant: Variant, runs: int, say: Say
) -> list[RunResult]:
    """A B A B: what changes on the machine meanwhile changes for all."""
    results = []
    for run in range(runs):
        say(f"run {run + 1} of {runs}, {plan.calls} calls, {_length_s(plan):.0f} s for each contestant")
        for contestant in contestants:
            # A lone comprehension would hide that each starts after the one before has ended.
            results.append(await run_valid(contestant, plan, variant, say))  # noqa: PERF401
    return results


def summary(result: RunResult) -> str:
    """One line: never a CPU time without the frames that it was used for."""
    seen = result.figures
    knocked = seen.let_in + seen.refused
    verdict = "passed" if result.passed else f"FAILED ({'; '.join(result.faults)})"
    return (
        f"{verdict}; {result.cpu_ms:.2f} ms of CPU per call-second ({result.cpu_share:.0%} of the core), "
        f"{seen.delivered} of {seen.due} frames, {seen.underruns} underruns, gap {seen.max_gap_ms:.1f} ms, "
        f"late p99.9 {seen.late_ms[2]:.1f} ms; load {result.load_cpu_ms:.2f} ms"
        + f"; of {knocked} who knocked {seen.let_in} were let in"
        * bool(knocked)
    )


def _length_s(plan: LoadPlan) -> float:
    """About how long a run takes, with the server's start."""
    return plan.ramp_s + plan.warm_up_s + plan.seconds + 8.0


async def run_once(contestant: Contestant, plan: LoadPlan, variant: Variant, folder: Path) -> RunResult:
    """One run, void or not; the logs of its processes are left in ``folder``. Raises BenchError."""
    own = cores() or (None, None)
    with moved_to(own[1]):
        async with (
            open_model(plan, folder, own[1], tls=variant.tls) as (model, model_url),
            open_contestant(contestant, plan, model_url, folder, own, worker=variant.worker) as (server, url),
        ):
            await _phone_once(url, folder / "first.report", own[1], plan.auth_token)
            await trio.sleep(REST_S)
            idle_bytes = server.rss_bytes()
            async with open_callers(plan, url, folder / "carrier.report", own[1]) as callers:
                window = await window_of(callers)
                used = await _measure(window, server, (model, callers), variant)
                await callers.until_done()
            await _stop(server, contestant)
            await model.stop()
    figures = evaluate(
        read_report(folder / "carrier.report", CarrierReport),
        _without_first(read_report(folder / "model.report", ModelReport)),
        lead_ms=None if contestant.is_yardstick else plan.lead_ms,
        stopped_until_s=used.stopped_until_s,
    )
    records = None if contestant.is_yardstick else _hung_up(folder / "data")
    found = faults(figures, paced=not contestant.is_yardstick, stopped=bool(variant.stop_s))
    if records is not None and records < (calls := plan.calls + figures.let_in):
        found.append(f"{records} records of {calls} calls")
    per_ms = 1000 / figures.call_seconds
    return RunResult(
        contestant=contestant.name,
        calls=plan.calls,
        seconds=plan.seconds,
        variant=variant,
        faults=tuple(found),
        cpu_ms=used.server_s * per_ms,
        children_cpu_ms=used.children_s * per_ms,
        load_cpu_ms=used.load_s * per_ms,
        cpu_share=used.server_s / plan.seconds,
        memory_kb=(used.rss_bytes - idle_bytes) / 1024 / plan.calls,
        idle_mb=idle_bytes / 1024**2,
        records=records,
        figures=figures,
    )


@attrs.frozen
class _Used:
    """What was used during the window."""

    server_s: float
    children_s: float
    load_s: float
    rss_bytes: int
    stopped_until_s: float | None


async def _measure(window: Window, server: Child, load: Sequence[Child], variant: Variant) -> _Used:
    await until(window.begin_s)
    server_s, children_s = server.cpu_s(), server.children_cpu_s()
    load_s = sum(child.cpu_s() for child in load)
    stopped_until_s = None
    if variant.stop_s:
        stop_s = window.begin_s + (window.end_s - window.begin_s) * STOP_AT
        await until(stop_s)
        await server.stand_still(variant.stop_s)
        stopped_until_s = stop_s + variant.stop_s
    await until(window.end_s - 0.5)
    rss_bytes = server.rss_bytes()
    await until(window.end_s)
    return _Used(
        server.cpu_s() - server_s,
        server.children_cpu_s() - children_s,
        sum(child.cpu_s() for child in load) - load_s,
        rss_bytes,
        stopped_until_s,
    )


async def _phone_once(url: str, report: Path, core: int | None, auth_token: str) -> None:
    """One call, so that everything is loaded."""
    async with open_callers(attrs.evolve(FIRST_CALL, auth_token=auth_token), url, report, core) as callers:
        await window_of(callers)
        await callers.until_done()


def _without_first(report: ModelReport) -> ModelReport:
    """The model's first session is that of the one call before."""
    return attrs.evolve(report, calls=report.calls[1:])


async def _stop(server: Child, contestant: Contestant) -> None:
    if contestant.is_yardstick:
        server.process.kill()  # it has nothing to end in order
    else:
        await server.stop()


class _Record(msgspec.Struct):
    outcome: str = ""


def _hung_up(data_dir: Path) -> int:
    """Durable records that say so, without the first call's. Another checkout's may have other fields."""
    records = [msgspec.json.decode(path.read_bytes(), type=_Record) for path in data_dir.glob("calls/*.json")]
    return sum(record.outcome == "caller_hung_up" for record in records) - 1

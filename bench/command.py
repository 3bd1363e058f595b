"""The command line: ``python -m bench``."""

from __future__ import annotations

import enum
import logging
import secrets
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeVar

import structlog
import trio
import typer
from rich.console import Console
from rich.markdown import Markdown

from bench.burst import BURST, run_burst
from bench.demo_latency import measure_demo
from bench.keeping import measure_keeping
from bench.kills import KillPlan, run_kills
from bench.load import Say, run_load
from bench.own_postgres import open_postgres
from bench.pg_queries import measure_queries
from bench.plan import LoadPlan
from bench.processes import BenchError, cores, moved_to
from bench.report import Machine, Row, demo_row, hour_row, load_rows, markdown, skipped_row
from bench.restarts import RestartPlan, run_restarts
from bench.rows import burst_rows, keeping_row, kills_row, queries_row, restart_rows
from bench.virtual_hour import SPARSE, TALKING, measure_hour

_FAILED: Final = 1
REPORT: Final = Path("docs/benchmarks.md")
_T = TypeVar("_T")


class Part(enum.StrEnum):
    """A part of the benchmark."""

    LOAD = "load"
    HOUR = "hour"
    DEMO = "demo"
    BURST = "burst"
    KILLS = "kills"
    RESTARTS = "restarts"
    KEEPING = "keeping"
    QUERIES = "queries"


app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)


@app.callback()
def _measure() -> None:
    """Measure the agent on this machine, from outside.

    Have nothing else run meanwhile: two cores are needed, and what else ran is in every figure.
    """


def main() -> None:
    """Entry point of ``python -m bench``."""
    app(prog_name="python -m bench")


@app.command()
def parts(
    *,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Calls at once in the load run.")] = 80,
    seconds: Annotated[float, typer.Option(min=1, help="How long the load is measured, after a warm-up.")] = 60.0,
    kills: Annotated[int, typer.Option(min=1, help="How often a worker is killed.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Of the moments of the kills; else a new one is taken.")
    ] = None,
    only: Annotated[
        list[Part] | None, typer.Option(help="Run this part alone; may be given more than once.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help=f"Write the report to {REPORT}.")] = False,
) -> None:
    """Measure the agent against simulators on this machine, and print a table: must, measured, ok.

    **load** (100 s): the real server on one core, a simulated carrier with 80 calls and a simulated model on
    another; everyone talks and is interrupted twice every 15 s. **hour** (a minute): one hour of call in virtual
    time.
    **demo** (a minute): the latency of the embedded model, where the [local] extra is installed.

    With a Postgres of the benchmark's own: **burst** (a minute): 50 calls end in the same second beside 20
    others. **kills** (8 minutes): workers are killed while calls end. **restarts** (a minute): Postgres is
    restarted during 50 calls. **keeping**, **queries** (seconds): what a turn that is kept costs the event loop,
    and what a query costs on Trio, against asyncio.

    Have nothing else run meanwhile: two cores are needed, and what else ran is in every figure. Exit status 1: a
    figure missed its must.
    """
    machine = Machine.here()
    console = Console(stderr=True, highlight=False)
    chosen = only or list(Part)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        if Part.LOAD in chosen:
            plan = LoadPlan(calls=calls, seconds=seconds)
            rows += trio.run(_load, plan, Path(folder), console.print)
        if Part.HOUR in chosen:
            rows += _hours(console.print)
        if Part.DEMO in chosen:
            console.print("the demo call, for its latency: a minute")
            rows.append(trio.run(_demo, Path(folder)))
        kill_plan = KillPlan(kills=kills, seed=secrets.randbelow(2**32) if seed is None else seed)
        with _quiet():
            rows += _after_calls(chosen, Path(folder), kill_plan, console.print)
    report = markdown(rows, machine, shlex.join(["python", "-m", "bench", *sys.argv[1:]]))
    if write:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(report)
    _show(report)
    missed = [row.what for row in rows if row.ok is False]
    if missed:
        console.print(f"missed: {'; '.join(missed)}", soft_wrap=True)
        raise typer.Exit(_FAILED)


async def _load(plan: LoadPlan, folder: Path, say: Say) -> list[Row]:
    return load_rows(await run_load(plan, folder, say))


def _hours(say: Say) -> list[Row]:
    rows = []
    with _quiet():
        for plan in (SPARSE, TALKING):
            say("an hour of call in virtual time")
            rows.append(hour_row(plan, measure_hour(plan)))
    return rows


def _after_calls(chosen: Sequence[Part], folder: Path, kill_plan: KillPlan, say: Say) -> list[Row]:
    """The parts with a database, one after the other; each has a folder for the logs of its processes."""
    rows: list[Row] = []
    for part in (Part.BURST, Part.KILLS, Part.RESTARTS, Part.KEEPING, Part.QUERIES):
        if part not in chosen:
            continue
        place = folder / part
        place.mkdir()
        match part:
            case Part.BURST:
                rows += burst_rows(trio.run(run_burst, BURST, place, say))
            case Part.KILLS:
                rows.append(kills_row(trio.run(run_kills, kill_plan, place, say)))
            case Part.RESTARTS:
                rows += restart_rows(trio.run(run_restarts, RestartPlan(), place, say))
            case Part.KEEPING:
                say("turns that are kept")
                rows.append(keeping_row(trio.run(_with_database, measure_keeping)))
            case Part.QUERIES:
                say("queries on Trio and on asyncio")
                rows.append(queries_row(trio.run(_with_database, measure_queries)))
    return rows


async def _with_database(measure: Callable[[str], Awaitable[_T]]) -> _T:
    """Measure on the agent's core, with an empty database on the other."""
    agent_core, other_core = cores() or (None, None)
    async with open_postgres(other_core) as postgres:
        conninfo = await postgres.make_database("bench", migrated=False)
        with moved_to(agent_core):
            return await measure(conninfo)


@contextmanager
def _quiet() -> Iterator[None]:
    """What happens in this process is not logged: that would be measured, too."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _demo(folder: Path) -> Row:
    try:
        return demo_row(*await measure_demo(folder))
    except BenchError as error:
        return skipped_row(str(error))
    except trio.TooSlowError:
        return skipped_row("it took too long")


def _show(report: str) -> None:
    """On a terminal as a table, elsewhere as Markdown."""
    out = Console()
    if out.is_terminal:
        out.print(Markdown(report))
    else:
        print(report)  # noqa: T201  (the command's output, not a log)

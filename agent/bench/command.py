"""The command line of ``call-agent bench``."""

from __future__ import annotations

import enum
import logging
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import structlog
import trio
import typer
from rich.console import Console
from rich.markdown import Markdown

from agent.bench.demo_latency import measure_demo
from agent.bench.load import Say, run_load
from agent.bench.plan import LoadPlan
from agent.bench.processes import BenchError
from agent.bench.report import Machine, Row, demo_row, hour_row, load_rows, markdown, skipped_row
from agent.bench.virtual_hour import SPARSE, TALKING, measure_hour

_FAILED: Final = 1
REPORT: Final = Path("docs/benchmarks.md")


class Part(enum.StrEnum):
    """A part of the benchmark."""

    LOAD = "load"
    HOUR = "hour"
    DEMO = "demo"


def command(
    *,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Calls at once in the load run.")] = 80,
    seconds: Annotated[float, typer.Option(min=1, help="How long the load is measured, after a warm-up.")] = 60.0,
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

    Have nothing else run meanwhile: two cores are needed, and what else ran is in every figure. Exit status 1: a
    figure missed its must.
    """
    machine = Machine.here()
    console = Console(stderr=True, highlight=False)
    parts = only or list(Part)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        if Part.LOAD in parts:
            plan = LoadPlan(calls=calls, seconds=seconds)
            rows += trio.run(_load, plan, Path(folder), console.print)
        if Part.HOUR in parts:
            rows += _hours(console.print)
        if Part.DEMO in parts:
            console.print("the demo call, for its latency: a minute")
            rows.append(trio.run(_demo, Path(folder)))
    report = markdown(rows, machine, shlex.join(["call-agent", "bench", *sys.argv[2:]]))
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
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        rows = []
        for plan in (SPARSE, TALKING):
            say("an hour of call in virtual time")
            rows.append(hour_row(plan, measure_hour(plan)))
    finally:
        structlog.reset_defaults()
    return rows


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

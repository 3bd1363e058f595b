"""The command line: ``python -m bench``."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import attrs
import trio
import typer
from rich.console import Console
from rich.markdown import Markdown

from bench.after_calls.full_disk import FullDiskPlan, run_full_disk
from bench.after_calls.kills import KillPlan
from bench.after_calls.rows import full_disk_row
from bench.attacks.rows import run_attacks
from bench.attacks.stranger import Attack
from bench.load import RunResult, Variant, plan_of, run_in_turns
from bench.machine import Machine
from bench.parts.browser.chromium import HOW_TO_GET_IT, chromium
from bench.parts.browser.measuring import measure_browser
from bench.parts.browser.rows import browser_rows
from bench.parts.browser.screenshots import take_screenshots
from bench.parts.recordings.rows import run_recordings
from bench.parts.running import Part, run_parts
from bench.reporting.load_table import largest_table, load_tables
from bench.reporting.report import REPORT
from bench.reporting.report import write as write_report
from bench.reporting.results import LargestLine, Line, RowLine, RunLine
from bench.reporting.table import must_table
from bench.rig.contestants import OURS, YARDSTICK, Contestant
from bench.rig.processes import BenchError
from bench.search import Largest, find_largest

_FAILED: Final = 1
_console: Final = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)

Seconds = Annotated[float, typer.Option(min=1, help="How long each run is measured, after a warm-up.")]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS to the model.")]
Worker = Annotated[bool, typer.Option("--worker/--no-worker", help="Whether the agent does post-call work, too.")]
Write = Annotated[
    bool, typer.Option("--write", help=f"Keep the results, and make {REPORT} and its picture of all.")
]
AgentTree = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Another checkout, whose agent runs as a third: before/after."
    ),
]


@app.callback()
def _measure() -> None:
    """Measure the agent on this machine, from outside.

    Have nothing else run meanwhile: two cores are needed, and what else ran is in every figure.
    """


@app.command()
def load(
    *,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Calls at once.")] = 40,
    seconds: Seconds = 20.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each server; medians are shown.")] = 3,
    tls: Tls = False,
    worker: Worker = False,
    burst: Annotated[int, typer.Option(min=0, help="So many callers hang up together in mid-run.")] = 0,
    stop_s: Annotated[float, typer.Option(min=0, help="Stop the server (SIGSTOP) for so long in mid-run.")] = 0.0,
    knocking: Annotated[
        float, typer.Option(min=0, help="So many times the calls phone besides in mid-run;.")
    ] = 0.0,
    agent_tree: AgentTree = None,
    processes: Annotated[
        int, typer.Option(min=1, help="The agent runs once more, with so many processes on the one core.")
    ] = 1,
    write: Write = False,
) -> None:
    """Run calls against the agent and against a yardstick, in turns, and show the figures side by side.

    Each server has one core, a simulated carrier and model have another. The **yardstick** is a plain uvloop and
    websockets bridge in the style of the carrier's sample: machines differ, a ratio to it does not. A run whose
    own load was late is void and repeated.

    Half a minute and a run for each server. Exit status 1: the agent failed a run.

    - `python -m bench load --calls 80` shows both at 80 calls.
    - `python -m bench load --calls 40 --agent-tree ../before` shows what a change cost.
    - `python -m bench load --calls 40 --processes 2` shows what it costs to share a core between two processes.
    - `python -m bench load --calls 80 --stop-s 0.3` shows how long the agent takes to come back from a stall.
    - `python -m bench load --calls 200 --knocking 1.5` has 300 more callers phone while 200 talk: a call is let
      in and as good as the others, or told that we are busy. The yardstick, which refuses nobody, is left out.
    """
    variant = Variant(tls=tls, worker=worker, burst=min(burst, calls), stop_s=stop_s, knocking=knocking)
    results: list[RunResult] = []
    machine, when = Machine.here(), _now()
    with _errors_in_one_sentence():
        plan = plan_of(calls, seconds, variant)
        servers = [each for each in _contestants(agent_tree) if not (knocking and each.is_yardstick)]
        if processes > 1:
            servers.insert(0, attrs.evolve(OURS, name=f"{processes} processes", processes=processes))
        results = trio.run(run_in_turns, servers, plan, variant, runs, _console.print)
    _show(load_tables(results))
    _keep([RunLine(when, machine, _command(), result) for result in results], write=write)
    if any(result.contestant == OURS.name and not result.passed for result in results):
        raise typer.Exit(_FAILED)


@app.command()
def search(
    *,
    budget_s: Annotated[float, typer.Option(min=1, help="Time for each server; no run begins later.")] = 1200.0,
    seconds: Seconds = 15.0,
    most: Annotated[int, typer.Option(min=20, max=1000, help="Look no further than this.")] = 500,
    tls: Tls = False,
    worker: Worker = False,
    agent_tree: AgentTree = None,
    write: Write = False,
) -> None:
    """Find the most calls that the agent carries on one core, and the most that the yardstick does.

    The number is doubled from 20 until a run fails, then bisected in steps of 10; it counts when three of three
    runs pass. An agent passes when no playback runs dry, no gap reaches 60 ms, lateness stays under 10 ms (p99.9)
    and every frame that was due came; the yardstick when no playback runs dry.
    """
    variant = Variant(tls=tls, worker=worker)
    machine, when = Machine.here(), _now()
    results: list[RunResult] = []
    found: list[Largest] = []
    for contestant in _contestants(agent_tree):
        find = partial(
            find_largest,
            contestant,
            seconds=seconds,
            variant=variant,
            budget_s=budget_s,
            most=most,
            say=_console.print,
            keep=results.append,
        )
        found.append(trio.run(find))
    _show(["", *largest_table(found)])
    lines: list[Line] = [RunLine(when, machine, _command(), result) for result in results]
    lines += [LargestLine(when, machine, _command(), each) for each in found]
    _keep(lines, write=write)


@app.command()
def parts(
    *,
    kills: Annotated[int, typer.Option(min=1, help="How often a worker is killed.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Of the moments of the kills; else a new one is taken.")
    ] = None,
    only: Annotated[list[Part] | None, typer.Option(help="Run this alone; may be given more than once.")] = None,
    write: Write = False,
) -> None:
    """Measure all that is not load, and print a table: must, measured, ok.

    **hour** (a minute): an hour of call in virtual time. **demo** (a minute): the latency of the embedded model,
    where the [local] extra is installed.

    With a Postgres of the benchmark's own: **burst** (a minute): 50 calls end in the same second beside 20
    others. **kills** (8 minutes): workers are killed while calls end. **restarts** (a minute): Postgres is
    restarted during 50 calls. **keeping**, **queries** (seconds): what a turn that is kept costs the event loop,
    and what a query costs on Trio, against asyncio.

    Exit status 1: a figure missed its must.
    """
    machine, when = Machine.here(), _now()
    plan = KillPlan(kills=kills, seed=secrets.randbelow(2**32) if seed is None else seed)
    with _errors_in_one_sentence(), tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        rows = run_parts(only or list(Part), plan, Path(folder), _console.print)
    _show(must_table(rows))
    _keep([RowLine(when, machine, _command(), row) for row in rows], write=write)
    missed = [row.what for row in rows if row.ok is False]
    if missed:
        _console.print(f"missed: {'; '.join(missed)}")
        raise typer.Exit(_FAILED)


@app.command()
def browser(*, write: Write = False) -> None:
    """Phone the embedded model from the installed Chromium, and listen beside the page: five minutes.

    Answer times, interruptions, what counts as heard against what was played, a connection that breaks, the page
    itself. Exit status 1: a figure missed its must, or the [local] extra or Chromium is missing.
    """
    machine, when = Machine.here(), _now()
    if chromium() is None:
        _console.print(f"bench: {HOW_TO_GET_IT}")
        raise typer.Exit(_FAILED)
    with _errors_in_one_sentence(), tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        Path(folder).chmod(0o755)  # the embedded Postgres of root runs as another user
        rows = browser_rows(measure_browser(Path(folder), _console.print))
    _show(must_table(rows))
    _keep([RowLine(when, machine, _command(), row) for row in rows], write=write)
    if not all(row.ok for row in rows):
        raise typer.Exit(_FAILED)


@app.command()
def recordings(
    *,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="Browsers at once.")] = 100,
    seconds: Seconds = 20.0,
    write: Write = False,
) -> None:
    """Have browsers phone in low bandwidth: WebM/Opus in chunks, decoded by a real server on one core.

    Its model talks on and on, so that all calls have audio both ways. A minute. Exit status 1: a figure missed
    its must.
    """
    machine, when = Machine.here(), _now()
    with _errors_in_one_sentence(), tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        Path(folder).chmod(0o755)  # the embedded Postgres of root runs as another user
        rows = run_recordings(calls, seconds, Path(folder), _console.print)
    _show(must_table(rows))
    _keep([RowLine(when, machine, _command(), row) for row in rows], write=write)
    if any(row.ok is False for row in rows):
        raise typer.Exit(_FAILED)


@app.command()
def disk(
    *,
    calls: Annotated[int, typer.Option(min=1, help="Calls that end while the disk is full.")] = 20,
    full_s: Annotated[float, typer.Option(min=1, help="How long it is full after the last of them.")] = 60.0,
    write: Write = False,
) -> None:
    """Have calls end on a full disk, with Postgres elsewhere and then with the embedded one on the same disk.

    The disk is a small tmpfs: only root can mount it. Two minutes each. Exit status 1: a call was not completed,
    or twice, or the server did not live through it.
    """
    machine, when = Machine.here(), _now()
    rows = []
    for same_disk in (False, True):
        plan = FullDiskPlan(calls=calls, full_s=full_s, same_disk=same_disk)
        with _errors_in_one_sentence(), tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
            Path(folder).chmod(0o755)  # the embedded Postgres of root runs as another user
            rows.append(full_disk_row(trio.run(run_full_disk, plan, Path(folder), _console.print)))
    _show(must_table(rows))
    _keep([RowLine(when, machine, _command(), row) for row in rows], write=write)
    if not all(row.ok for row in rows):
        raise typer.Exit(_FAILED)


@app.command()
def attacks(
    *,
    only: Annotated[
        list[Attack] | None, typer.Option(help="Run this alone; may be given more than once.")
    ] = None,
    write: Write = False,
) -> None:
    """Have strangers at the door of a real server, ten seconds each, beside a live call and signed webhooks.

    **calm** (nobody: what this machine costs by itself), **http-2** (tunnels by upgrade and as a second request),
    **silent** (2,000 connections from 50 addresses), **handshakes**, **heads** (ambiguous, huge, none),
    **pipeline** (one connection without end), **at-once** (a thousand requests in one instant, each second). Exit
    status 1: a figure missed its must.
    """
    machine, when = Machine.here(), _now()
    with _errors_in_one_sentence(), tempfile.TemporaryDirectory(prefix="call-agent-bench-") as folder:
        rows = run_attacks(only or list(Attack), Path(folder), _console.print)
    _show(must_table(rows))
    _keep([RowLine(when, machine, _command(), row) for row in rows], write=write)
    if not all(row.ok for row in rows):
        raise typer.Exit(_FAILED)


@app.command()
def screenshots(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where the pictures go.")],
    *,
    only: Annotated[
        list[str] | None, typer.Option(help="Of this state alone, such as idle; may be given more than once.")
    ] = None,
    look: Annotated[str, typer.Option(help="Of these looks alone: phone-dark, desktop, light-he.")] = "",
) -> None:
    """Take pictures of every state of the browser's page, errors included, in each of its looks.

    Before a server that only plays its part, in the installed Chromium: three minutes.
    """
    if chromium() is None:
        _console.print(f"bench: {HOW_TO_GET_IT}")
        raise typer.Exit(_FAILED)
    count = take_screenshots(folder, only or (), look, _console.print)
    _console.print(f"{count} pictures in {folder}")


def main() -> None:
    """Entry point of ``python -m bench``."""
    app(prog_name="python -m bench")


def _contestants(agent_tree: Path | None) -> list[Contestant]:
    before = [] if agent_tree is None else [Contestant(agent_tree.resolve().name, agent_tree.resolve())]
    return [*before, OURS, YARDSTICK]


@contextmanager
def _errors_in_one_sentence() -> Iterator[None]:
    try:
        yield
    except* BenchError as group:
        _console.print(f"bench: {group.exceptions[0]}")
        raise typer.Exit(_FAILED) from None


def _show(lines: Sequence[str]) -> None:
    """On a terminal as tables, elsewhere as Markdown."""
    text, out = "\n".join(lines), Console()
    if out.is_terminal:
        out.print(Markdown(text))
    else:
        print(text)  # noqa: T201 - the command's output, not a log


def _keep(lines: Sequence[Line], *, write: bool) -> None:
    if write and lines:
        write_report(lines)
        _console.print(f"written to {REPORT}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _command() -> str:
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])

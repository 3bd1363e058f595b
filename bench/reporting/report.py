"""``docs/benchmarks.md``: the whole report, made anew of all results there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.load import RunResult
from bench.reporting.load_table import largest_table, load_tables
from bench.reporting.picture import draw
from bench.reporting.results import RESULTS, LargestLine, Line, RowLine, RunLine, append, read
from bench.reporting.table import must_table

REPORT: Final = RESULTS.with_suffix(".md")
PICTURE: Final = RESULTS.with_suffix(".png")


def write(new: Sequence[Line], folder: Path = Path()) -> None:
    """Add ``new`` to the results in ``folder`` and make report and picture of all of them."""
    append(folder / RESULTS, new)
    lines = read(folder / RESULTS)
    (folder / REPORT).write_text(markdown(lines))
    if runs := newest_runs(lines):
        draw(runs, folder / PICTURE)


def newest_runs(lines: Sequence[Line]) -> list[RunResult]:
    """Of the runs under one load those that were measured together last: others had another machine, or code."""
    runs = [line for line in lines if isinstance(line, RunLine)]
    newest = {
        (line.result.calls, line.result.variant): line.when for line in sorted(runs, key=lambda line: line.when)
    }
    return [line.result for line in runs if line.when == newest[line.result.calls, line.result.variant]]


def markdown(lines: Sequence[Line]) -> str:
    """The report of all results; what was measured again counts as it was measured last."""
    newest = lines[-1]
    runs = newest_runs(lines)
    largest = {line.result.contestant: line.result for line in lines if isinstance(line, LargestLine)}
    rows = {line.result.what: line.result for line in lines if isinstance(line, RowLine)}
    commands = list(dict.fromkeys(line.command for line in lines))
    text = [
        "# Benchmarks",
        "",
        f"Measured until {newest.when} by",
        "",
        *(f"- `{command}`" for command in commands),
        "",
        "on",
        "",
        *newest.machine.lines(),
        "",
        f"Every result is a line of [{RESULTS.name}]({RESULTS.name}).",
    ]
    if runs:
        text += ["", f"![CPU and lateness against calls]({PICTURE.name})", "", "## Calls at once", "", *_LOAD]
        text += ["", *largest_table(list(largest.values()))] if largest else []
        text += load_tables(runs)
    if rows:
        text += ["", "## Everything else", "", *must_table(list(rows.values())), "", *_REST]
    return "\n".join([*text, ""])


_LOAD: Final = (
    "Each server is a process of its own on one core, the agent with its embedded Postgres beside it; the",
    "carrier and the model are lean processes on another core. Each caller has a 20 ms grid of its own, speaks",
    "for 0.8 s each 5 s, asks once and interrupts twice in 15 s. Servers take turns. The yardstick is a plain",
    "uvloop and websockets bridge in the style of the carrier's sample: it forwards each delta as one message",
    "and does not pace, keeps and measures nothing, and passes when no playback runs dry. An agent passes when",
    "no playback runs dry, no gap reaches 60 ms, lateness stays under 10 ms (p99.9), every frame that was due",
    "came, and every call has its record. Due is what the 20 ms schedule of an answer asks for until its end.",
    "Lateness of an agent is against that schedule, the yardstick's against the model's deltas. A run in which",
    "the load's own ticks were over 3 ms late (p99) is void and repeated. A server that loses ticks uses less",
    "CPU: read no CPU time without the frames beside it.",
)
_REST: Final = (
    "What is done after calls: `call-agent worker`, a durable Postgres of the benchmark's own, and the",
    "simulators of OpenAI's REST API (200 ms an answer), of the tenant's receiver and of the carrier's",
    "recordings are each a process on the load's core. In the burst, the server and the callers are",
    "real, and every call was recorded: a worker downloads 4 s of sound for each, has both channels",
    "transcribed, the call summarised and its particulars read, keeps the lead and posts the signed webhook;",
    "the time is from the first hang-up to the last webhook. The workers that are killed have the agent's",
    "core; records come by the spool, every second call was recorded, in every third an appointment was made.",
    "Postgres is stopped by turns at once and in order, as calls begin, while they talk and as all hang up.",
    "What keeping costs is the CPU time of the thread that the event loop runs in.",
)

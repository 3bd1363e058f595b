"""Load runs as tables: a figure a row, a server a column, medians, and ours against the yardstick. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Final

from bench.load import RunResult, Variant
from bench.search import RUNS, Largest

Figure = Callable[[RunResult], float]
_FIGURES: Final[tuple[tuple[str, str, Figure], ...]] = (
    ("CPU per call-second, ms", ".2f", lambda run: run.cpu_ms),
    ("share of the core", ".2f", lambda run: run.cpu_share),
    ("CPU per call-second of its children, ms", ".2f", lambda run: run.children_cpu_ms),
    ("underruns", ".0f", lambda run: run.figures.underruns),
    ("longest gap between messages of an answer, ms", ".1f", lambda run: run.figures.max_gap_ms),
    ("lateness p50, ms", ".1f", lambda run: run.figures.late_ms[0]),
    ("lateness p99, ms", ".1f", lambda run: run.figures.late_ms[1]),
    ("lateness p99.9, ms", ".1f", lambda run: run.figures.late_ms[2]),
    ("first delta to first audio p50, ms", ".1f", lambda run: run.figures.first_audio_ms[0]),
    ("first delta to first audio p99, ms", ".1f", lambda run: run.figures.first_audio_ms[1]),
    ("speech_started to the last audio p99, ms", ".1f", lambda run: run.figures.silenced_ms[1]),
    ("speech_started to the clear p99, ms", ".1f", lambda run: run.figures.cleared_ms[1]),
    ("answers spoken into that were not cleared", ".0f", lambda run: run.figures.uninterrupted),
    ("messages of an answer behind its clear", ".0f", lambda run: run.figures.stale),
    ("truncate error p99, ms", ".1f", lambda run: run.figures.truncate_ms[1]),
    ("memory per call, KB", ".0f", lambda run: run.memory_kb),
    ("idle memory, MB", ".0f", lambda run: run.idle_mb),
    ("calls lost", ".0f", lambda run: run.figures.lost),
    ("the load's own CPU per call-second, ms", ".2f", lambda run: run.load_cpu_ms),
    ("the load's own ticks late p99, ms", ".1f", lambda run: run.figures.late_tick_ms),
)
_KNOCKING: Final[tuple[tuple[str, str, Figure], ...]] = (
    ("let in of those who knocked", ".0f", lambda run: run.figures.let_in),
    ("told that we are busy", ".0f", lambda run: run.figures.refused),
)
_RECOVERY: Final = ("stop's end to normal lateness, s", ".1f", lambda run: run.figures.recovery_s)


def told(variant: Variant) -> str:
    """How the load was run, in words."""
    parts = [
        "TLS to the model" if variant.tls else "no TLS",
        "with a worker" if variant.worker else "",
        f"{variant.burst} hang up together" if variant.burst else "",
        f"stopped for {variant.stop_s:g} s" if variant.stop_s else "",
        f"{variant.knocking:g} times as many knocking" if variant.knocking else "",
    ]
    return ", ".join(filter(None, parts))


def grouped(runs: Sequence[RunResult]) -> dict[tuple[int, Variant], dict[str, list[RunResult]]]:
    """Runs under the same load, by contestant; fewest calls first."""
    groups: dict[tuple[int, Variant], dict[str, list[RunResult]]] = {}
    for run in sorted(runs, key=lambda run: (run.calls, told(run.variant))):
        groups.setdefault((run.calls, run.variant), {}).setdefault(run.contestant, []).append(run)
    return groups


def median(runs: Sequence[RunResult], figure: Figure) -> float:
    """The middle one of what ``figure`` is in each run."""
    return statistics.median(figure(run) for run in runs)


def load_tables(runs: Sequence[RunResult]) -> list[str]:
    """One table for each load, as Markdown."""
    lines: list[str] = []
    for (calls, variant), servers in grouped(runs).items():
        lines += ["", f"### {calls} calls, {told(variant)}", "", *_table(servers, variant)]
    return lines


def _table(servers: dict[str, list[RunResult]], variant: Variant) -> Iterator[str]:
    yield f"| median of {max(map(len, servers.values()))} | {' | '.join(servers)} | ours / yardstick |"
    yield "|---" * (len(servers) + 2) + "|"
    passed = [f"{sum(run.passed for run in runs)} of {len(runs)}" for runs in servers.values()]
    yield f"| passed | {' | '.join(passed)} | |"
    shares = [_delivered(runs) for runs in servers.values()]
    yield f"| frames delivered of those due | {' | '.join(shares)} | |"
    more = (*((_RECOVERY,) if variant.stop_s else ()), *(_KNOCKING if variant.knocking else ()))
    for what, form, figure in (*_FIGURES, *more):
        values = {name: median(runs, figure) for name, runs in servers.items()}
        shown = [format(value, form) if isfinite(value) else "-" for value in values.values()]
        yield f"| {what} | {' | '.join(shown)} | {_ratio(values)} |"


def _delivered(runs: Sequence[RunResult]) -> str:
    due = sum(run.figures.due for run in runs)
    delivered = sum(run.figures.delivered for run in runs)
    return f"{delivered} of {due}"


def _ratio(values: dict[str, float]) -> str:
    ours, theirs = values.get("ours", 0.0), values.get("yardstick", 0.0)
    return f"{ours / theirs:.2f}" if theirs and isfinite(ours) and isfinite(theirs) else ""


def largest_table(found: Sequence[Largest]) -> list[str]:
    """What searches found, as Markdown."""
    head = [f"| server | most calls that passed {RUNS} of {RUNS} runs | why not more |", "|---|---|---|"]
    return head + [f"| {each.contestant} | {each.calls} | {each.ended} |" for each in found]

"""Rows of the benchmark's tables: what was measured against what must be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from bench.parts.pass_time import HOURS, PassFigures
from bench.parts.virtual_hour import SPARSE, HourFigures, HourPlan

DEMO_MS: Final = 900.0
HOUR_S: Final = 60.0
SPARSE_HOUR_S: Final = 5.0
_DEMO: Final = "demo, end of caller speech to first agent audio, embedded model, median"


@attrs.frozen
class Row:
    """One line of a table; ``ok`` is None for what is only told."""

    what: str
    must: str
    measured: str
    ok: bool | None = None


def hour_row(plan: HourPlan, figures: HourFigures) -> Row:
    """The row of an hour in virtual time."""
    sparse = plan is SPARSE
    must_s = SPARSE_HOUR_S if sparse else HOUR_S
    what = "with a carrier that sends no silence" if sparse else "50 frames a second both ways"
    return Row(
        f"one hour of call in virtual time, {what}",
        f"{'<' if sparse else '<='} {must_s:.0f} s",
        f"{figures.wall_s:.1f} s ({figures.frames_rx} frames in, {figures.frames_tx} out)",
        figures.wall_s < must_s and figures.underruns == 0,
    )


def pass_row(figures: PassFigures) -> Row:
    """The row of the worst pass of the scheduler: the yardstick is what two milliseconds are here."""
    measured = (
        f"{figures.worst_ms:.2f} ms, yardstick {figures.yardstick_ms:.2f} ms: "
        f"{figures.worst_ms / figures.yardstick_ms:.2f} ({figures.task} at {figures.at_s:.2f} s, "
        f"{figures.passes} passes; {figures.seen_ms:.2f} ms in one of {HOURS} hours)"
    )
    ok = figures.worst_ms <= figures.yardstick_ms
    return Row("worst pass of the scheduler in an hour-long call, thread CPU time", "<= yardstick", measured, ok)


def demo_row(median_ms: float, answers: int) -> Row:
    """The row of the demo."""
    return Row(_DEMO, f"<= {DEMO_MS:.0f} ms", f"{median_ms:.0f} ms of {answers} answers", median_ms <= DEMO_MS)


def skipped_row(reason: str) -> Row:
    """The demo's row when it did not run."""
    return Row(_DEMO, f"<= {DEMO_MS:.0f} ms", f"not run: {reason}")


def must_table(rows: Sequence[Row]) -> list[str]:
    """As Markdown."""
    marks = {True: "yes", False: "**no**", None: ""}
    head = ["| what | must | measured | ok |", "|---|---|---|---|"]
    return head + [f"| {row.what} | {row.must} | {row.measured} | {marks[row.ok]} |" for row in rows]

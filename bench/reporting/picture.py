"""CPU and lateness against the number of calls, ours and the yardstick's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.load import RunResult, Variant
from bench.reporting.load_table import Figure as FigureOf
from bench.reporting.load_table import grouped, median

_PANELS: Final[tuple[tuple[str, FigureOf], ...]] = (
    ("CPU per call-second (ms)", lambda run: run.cpu_ms),
    ("lateness p99.9 (ms)", lambda run: run.figures.late_ms[2]),
)


def draw(runs: Sequence[RunResult], path: Path) -> None:
    """Medians of the plain runs, as a PNG; a hollow point is a number of calls at which a run failed."""
    groups = {calls: servers for (calls, variant), servers in grouped(runs).items() if variant == Variant()}
    picture = Figure(figsize=(9, 4), layout="constrained")
    panels: list[Axes] = list(picture.subplots(1, len(_PANELS)))
    for panel, (label, figure) in zip(panels, _PANELS, strict=True):
        for name in sorted({name for servers in groups.values() for name in servers}):
            points = [(calls, servers[name]) for calls, servers in groups.items() if name in servers]
            calls = [each for each, _ in points]
            values = [median(of, figure) for _, of in points]
            [line] = panel.plot(calls, values, label=name)
            for each, value, (_, of) in zip(calls, values, points, strict=True):
                face = line.get_color() if all(run.passed for run in of) else "white"
                panel.plot([each], [value], "o", color=line.get_color(), markerfacecolor=face)
        panel.set_xlabel("calls")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    panels[1].set_yscale("symlog", linthresh=10)
    panels[0].legend(frameon=False)
    picture.savefig(path, dpi=110)

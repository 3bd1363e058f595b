"""A call for people to read: its figures, and what was checked. Pure."""

from collections.abc import Sequence
from statistics import median

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agent.app.demo.checks import TARGET_LATENCY_MS, Check
from agent.app.demo.timeline.stream_analysis import StreamAnalysis
from agent.core.records import CallMetrics


def tell_metrics(metrics: CallMetrics, seen: StreamAnalysis) -> RenderableType:
    """CALL_METRICS as the agent counted them, beside what the carrier saw."""
    columns = ("", Column("agent", justify="right"), Column("carrier", justify="right"))
    table = Table(
        *columns, title="CALL_METRICS", title_justify="left", title_style="bold", header_style="dim", box=SIMPLE
    )
    latency_ms = seen.median_latency_ms
    own_ms = metrics.turn_latencies_ms
    rows: list[tuple[str, str, str]] = [
        ("duration", f"{metrics.duration_ms / 1000:.1f} s", f"{seen.duration_s:.1f} s"),
        ("barge-ins", str(metrics.barge_in_events), f"{len(seen.clears_s)} clears"),
        ("frames a second, speaking", _shown(metrics.fps, ".2f"), ""),
        (
            "longest gap",
            _shown(metrics.max_gap_ms, ".1f", " ms"),
            f"{seen.frames.max_gap_ms:.1f} ms, {len(seen.underruns)} underruns",
        ),
        (
            "answer to first audio",
            _shown(metrics.first_audio_ms, "d", " ms"),
            _shown(None if seen.first_audio_s is None else round(seen.first_audio_s * 1000), "d", " ms"),
        ),
        (
            f"speech end to answer, median (goal {TARGET_LATENCY_MS} ms)",
            _shown(round(median(own_ms)) if own_ms else None, "d", " ms"),
            _shown(latency_ms, "d", " ms"),
        ),
        ("speech end to answer, each", _list(own_ms), _list([latency.ms for latency in seen.latencies])),
        ("frames from the caller", str(metrics.frames_in), ""),
        ("frames to the caller", str(metrics.frames_out), f"{seen.sent_ms / 1000:.1f} s of audio"),
        (
            "frames dropped at barge-ins",
            str(metrics.frames_dropped),
            f"{seen.cleared_ms} ms cleared, {seen.frames.stale} stale",
        ),
        ("stalls, reconnects", f"{metrics.stalls}, {metrics.reconnects}", ""),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def tell_checks(checks: Sequence[Check]) -> RenderableType:
    """Every requirement and how it was met."""
    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark = Text("ok", "green") if check.held else Text("BROKEN", "bold red")
        table.add_row(mark, check.name, Text(check.said, "dim" if check.held else ""))
    return Group(Text("Checked", "bold"), table)


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _list(values_ms: Sequence[int]) -> str:
    return ", ".join(map(str, values_ms)) or "-"

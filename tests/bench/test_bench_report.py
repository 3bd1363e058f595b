"""The benchmark's table and its command line."""

from __future__ import annotations

from typing import Any

import attrs
from typer.testing import CliRunner

from bench.command import app
from bench.figures import LoadFigures
from bench.load import LoadResult
from bench.report import Machine, demo_row, hour_row, load_rows, markdown, skipped_row
from bench.virtual_hour import SPARSE, TALKING, HourFigures

GOOD = LoadFigures(
    calls=80,
    seconds=60.0,
    failures=[],
    underruns=0,
    max_gap_ms=31.0,
    frames=1000,
    lateness_ms=[0.5] * 1000,
    silenced_ms=[0.0, 3.0],
    cleared_ms=[1.0, 4.0],
    uninterrupted=0,
    stale_frames=0,
    truncate_errors_ms=[1.0, 2.0],
    first_audio_ms=[210.0],
    carrier_cpu=0.4,
    model_cpu=0.3,
    worst_tick_ms=5.0,
)
RESULT = LoadResult(
    figures=GOOD, cpu_ms=6.5, memory_kb=280.0, idle_mb=69.0, pacer_late={1.0: 0.9, 5.0: 0.9995}, records=80
)


def missed(result: LoadResult) -> int:
    return sum(row.ok is False for row in load_rows(result))


def test_a_good_run_misses_nothing() -> None:
    assert missed(RESULT) == 0


def test_each_must_is_looked_at() -> None:
    """One figure out of its bounds at a time is one row that says so."""
    worse: list[dict[str, Any]] = [
        {"underruns": 1},
        {"max_gap_ms": 60.0},
        {"lateness_ms": [16.0] * 1000},
        {"silenced_ms": [21.0]},
        {"silenced_ms": []},
        {"uninterrupted": 1},
        {"stale_frames": 1},
        {"truncate_errors_ms": [11.0]},
        {"failures": ["call 3: it broke"]},
    ]
    for change in worse:
        assert missed(attrs.evolve(RESULT, figures=attrs.evolve(GOOD, **change))) == 1, change
    outsides: list[dict[str, Any]] = [{"cpu_ms": 9.1}, {"memory_kb": 321.0}, {"records": 79}]
    for outside in outsides:
        assert missed(attrs.evolve(RESULT, **outside)) == 1, outside


def test_cpu_and_memory_are_promised_for_eighty_calls_only() -> None:
    few = attrs.evolve(RESULT, figures=attrs.evolve(GOOD, calls=5), records=5, cpu_ms=20.0, memory_kb=500.0)
    assert missed(few) == 0


def test_hours_and_demo() -> None:
    assert hour_row(SPARSE, HourFigures(4.9, 1, 2, 0)).ok
    assert hour_row(SPARSE, HourFigures(5.1, 1, 2, 0)).ok is False
    assert hour_row(TALKING, HourFigures(59.0, 1, 2, 0)).ok
    assert hour_row(TALKING, HourFigures(59.0, 1, 2, 1)).ok is False
    assert demo_row(899.0, 6).ok
    assert demo_row(901.0, 6).ok is False
    assert skipped_row("no extra").measured == "not run: no extra"
    assert skipped_row("no extra").ok is None


def test_the_report_is_a_markdown_table() -> None:
    text = markdown([skipped_row("no extra")], Machine.here(), "python -m bench parts")
    assert "| what | must | measured | ok |" in text
    assert "not run: no extra" in text
    assert "Load average before" in text


def test_help_teaches() -> None:
    result = CliRunner().invoke(app, ["parts", "--help"])
    assert result.exit_code == 0
    assert "--calls" in result.output
    assert "one core" in result.output

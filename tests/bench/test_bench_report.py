"""The benchmark's tables, its results on disk, its search and its command line."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path
from typing import Any

import attrs
import pytest
from typer.testing import CliRunner

from bench.command import app
from bench.load import RunResult, Variant, summary
from bench.machine import Machine
from bench.parts.pass_time import PassFigures
from bench.parts.virtual_hour import SPARSE, TALKING, HourFigures
from bench.reporting.figures import LoadFigures
from bench.reporting.load_table import load_tables
from bench.reporting.report import PICTURE, REPORT, write
from bench.reporting.results import RESULTS, LargestLine, Line, RowLine, RunLine, read
from bench.reporting.table import demo_row, hour_row, must_table, pass_row, skipped_row
from bench.search import Bracket, Largest

FIGURES = LoadFigures(
    call_seconds=800.0,
    problems=(),
    lost=0,
    due=1000,
    delivered=1000,
    underruns=0,
    max_gap_ms=31.0,
    late_ms=(0.5, 1.0, 2.0),
    first_audio_ms=(1.0, 2.0),
    silenced_ms=(0.0, 3.0),
    cleared_ms=(1.0, nan),
    interruptions=2,
    uninterrupted=0,
    stale=0,
    truncate_ms=(1.0, 2.0),
    late_tick_ms=1.2,
)
RUN = RunResult(
    contestant="ours",
    calls=40,
    seconds=20.0,
    variant=Variant(),
    faults=(),
    cpu_ms=12.0,
    children_cpu_ms=0.1,
    load_cpu_ms=3.0,
    cpu_share=0.4,
    memory_kb=280.0,
    idle_mb=69.0,
    records=40,
    figures=FIGURES,
)
YARDSTICK = attrs.evolve(RUN, contestant="yardstick", cpu_ms=6.0, memory_kb=70.0, records=None)


def rows_of(runs: list[RunResult]) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in load_tables(runs) if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def test_figures_stand_side_by_side_with_their_ratio() -> None:
    """Medians, a server a column; what is no number has no ratio."""
    runs = [attrs.evolve(RUN, cpu_ms=cpu_ms) for cpu_ms in (11.0, 12.0, 99.0)]
    rows = rows_of([*runs, YARDSTICK])
    assert rows["CPU per call-second, ms"] == ["12.00", "6.00", "2.00"]
    assert rows["memory per call, KB"] == ["280", "70", "4.00"]
    assert rows["speech_started to the clear p99, ms"][:2] == ["-", "-"]
    assert rows["passed"][:2] == ["3 of 3", "1 of 1"]


def test_no_cpu_time_stands_without_the_frames_it_was_used_for() -> None:
    failed = attrs.evolve(RUN, faults=("7 underruns",), figures=attrs.evolve(FIGURES, delivered=900))
    assert rows_of([failed])["frames delivered of those due"][0] == "900 of 1000"
    assert "900 of 1000 frames" in summary(failed)
    assert "FAILED (7 underruns)" in summary(failed)


def test_runs_under_other_loads_stand_apart() -> None:
    stopped = attrs.evolve(RUN, variant=Variant(tls=True, stop_s=0.3))
    text = "\n".join(load_tables([RUN, stopped, attrs.evolve(RUN, calls=20)]))
    assert text.index("### 20 calls, no TLS") < text.index("### 40 calls, TLS to the model, stopped for 0.3 s")
    assert text.count("stop's end to normal lateness") == 1


def test_a_run_in_which_others_knock_tells_what_they_heard() -> None:
    knocked = attrs.evolve(
        RUN, variant=Variant(knocking=1.5), figures=attrs.evolve(FIGURES, let_in=12, refused=48)
    )
    assert "of 60 who knocked 12 were let in" in summary(knocked)
    rows = rows_of([knocked])
    assert rows["told that we are busy"][0] == "48"
    assert "1.5 times as many knocking" in "\n".join(load_tables([knocked]))


def test_results_are_kept_and_the_report_is_made_of_all_of_them(tmp_path: Path) -> None:
    """Numbers that are none, too; what was measured again counts as it was measured last."""
    machine = Machine.here()
    about: dict[str, Any] = {"when": "2026-11-24", "machine": machine, "command": "python -m bench load"}
    lost = attrs.evolve(RUN, figures=attrs.evolve(FIGURES, recovery_s=inf), faults=("lost",))
    older = {**about, "when": "2026-11-23"}
    first: list[Line] = [
        RunLine(**older, result=attrs.evolve(RUN, cpu_ms=99.0)),
        RunLine(**about, result=RUN),
        RunLine(**about, result=lost),
        RowLine(**about, result=skipped_row("no extra")),
    ]
    second: list[Line] = [
        RunLine(**about, result=YARDSTICK),
        LargestLine(**about, result=Largest("ours", 80, "100 failed")),
    ]
    write(first, tmp_path)
    write(second, tmp_path)
    write([RowLine(**about, result=skipped_row("still none"))], tmp_path)
    lines = read(tmp_path / RESULTS)
    assert len(lines) == 7
    assert isinstance(lines[2], RunLine)
    assert lines[2].result.figures.recovery_s == inf
    text = (tmp_path / REPORT).read_text()
    assert "| ours | 80 | 100 failed |" in text
    assert "not run: still none" in text
    assert "not run: no extra" not in text
    assert "| CPU per call-second, ms | 12.00 | 6.00 | 2.00 |" in text
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")


def search(carries: int, most: int = 500) -> tuple[int, list[int]]:
    """What is found for a server that carries so many calls, and what was tried."""
    bracket, tried = Bracket(most=most), list[int]()
    while (calls := bracket.next_calls()) is not None:
        tried.append(calls)
        bracket.note(calls, passed=calls <= carries)
    return bracket.passed, tried


@pytest.mark.parametrize("carries", [*range(10, 499, 7), 499])
def test_a_search_finds_the_largest_number_to_a_step_of_ten(carries: int) -> None:
    found, tried = search(carries)
    assert found == carries // 10 * 10
    assert len(tried) <= 11


def test_a_search_doubles_then_bisects_and_knows_its_bounds() -> None:
    assert search(87) == (80, [20, 40, 80, 160, 120, 100, 90])
    assert search(5) == (0, [20, 10])
    assert search(1000, most=100) == (100, [20, 40, 80, 100])


def test_hours_and_demo() -> None:
    assert hour_row(SPARSE, HourFigures(4.9, 1, 2, 0)).ok
    assert hour_row(SPARSE, HourFigures(5.1, 1, 2, 0)).ok is False
    assert hour_row(TALKING, HourFigures(59.0, 1, 2, 0)).ok
    assert hour_row(TALKING, HourFigures(59.0, 1, 2, 1)).ok is False
    assert pass_row(PassFigures(1.9, 9.0, "a task", 60.0, 1000, 2.0)).ok
    assert pass_row(PassFigures(2.1, 9.0, "a task", 60.0, 1000, 2.0)).ok is False
    assert demo_row(899.0, 6).ok
    assert demo_row(901.0, 6).ok is False
    assert skipped_row("no extra").ok is None
    assert must_table([skipped_row("no extra")])[0] == "| what | must | measured | ok |"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("load", ["--calls", "--tls", "--stop-s", "--burst", "--agent-tree", "yardstick", "one core"]),
        ("search", ["--budget-s", "three of three"]),
        ("parts", ["--only", "kills"]),
    ],
)
def test_help_teaches(command: str, words: list[str]) -> None:
    result = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert [word for word in words if word not in result.output] == []

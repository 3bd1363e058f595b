"""The benchmark itself, small: a few calls through real processes, a minute of call in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from bench.load import Variant, plan_of, run_once
from bench.parts.pass_time import measure_passes
from bench.parts.virtual_hour import LIVELY, SPARSE, TALKING, measure_hour
from bench.rig import contestants
from bench.rig.contestants import OURS, YARDSTICK
from bench.rig.players import server_settings
from bench.rig.processes import BenchError, open_child


@pytest.mark.sockets
async def test_five_calls_over_tls_are_interrupted_stopped_and_hung_up(tmp_path: Path) -> None:
    """NB-4, BI-2, PL-5: what depends on no other load of the machine holds, seen from both sides of the load."""
    variant = Variant(tls=True, burst=1, stop_s=0.3)
    with trio.fail_after(120):
        result = await run_once(OURS, plan_of(5, 8.0, variant), variant, tmp_path)
    seen = result.figures
    assert seen.problems == ()
    assert result.records == 5
    assert seen.stale == 0
    assert seen.delivered > 1000
    assert seen.max_gap_ms > 300, "it stood still in the middle of answers"
    assert seen.interruptions >= 2
    assert seen.call_seconds == pytest.approx(4 * 8 + 4, abs=1)
    assert result.cpu_ms > 0
    assert result.load_cpu_ms > 0


@pytest.mark.sockets
@pytest.mark.parametrize("processes", [1, 2])
async def test_nb_6_callers_who_knock_are_let_in_or_hear_that_we_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Four talk and six more phone, all signed, at a server that has six lines; running calls notice nothing.

    However many processes the server has: lines are counted over all, and each stream finds the one it is for.
    """

    def settings(*about: Any) -> dict[str, str]:
        return {**server_settings(*about), "AGENT_MAX_CALLS": "6"}

    monkeypatch.setattr(contestants, "server_settings", settings)
    variant = Variant(knocking=1.5)
    with trio.fail_after(120):
        ours = attrs.evolve(OURS, processes=processes)
        result = await run_once(ours, plan_of(4, 6.0, variant), variant, tmp_path)
    seen = result.figures
    assert (seen.problems, seen.lost, seen.stale) == ((), 0, 0)
    assert (seen.let_in, seen.refused, result.records) == (2, 4, 6)
    assert seen.delivered > 1000


@pytest.mark.sockets
async def test_the_yardstick_takes_the_same_calls(tmp_path: Path) -> None:
    """It forwards each delta at once, clears and truncates when a caller speaks, and is cut off by a hang-up."""
    with trio.fail_after(120):
        result = await run_once(YARDSTICK, plan_of(3, 6.0, Variant()), Variant(), tmp_path)
    seen = result.figures
    assert (seen.lost, seen.stale, result.records) == (0, 0, None)
    assert seen.delivered == seen.due > 500
    assert seen.interruptions >= 1
    assert seen.max_gap_ms > 100, "one message a delta: it does not pace"


@pytest.mark.sockets
async def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with open_child("sum", ["-c", "raise SystemExit('no luck')"], core=None, folder=tmp_path) as child:
            with pytest.raises(BenchError, match="sum ended early: no luck"):
                await child.line()


def test_st_6_a_minute_of_call_takes_a_moment() -> None:
    """50 frames a second both ways while the agent talks; without silence from the carrier, only what is said."""
    talking = measure_hour(attrs.evolve(TALKING, call_s=60.0, every_s=20.0))
    assert talking.frames_rx == pytest.approx(3000, abs=5)
    assert talking.frames_tx > 2500
    sparse = measure_hour(attrs.evolve(SPARSE, call_s=60.0, every_s=20.0))
    assert 80 <= sparse.frames_rx <= 130
    assert talking.underruns == sparse.underruns == 0


def test_the_worst_pass_of_a_call_is_found() -> None:
    """With its task, over all passes of a call whose session is lost."""
    figures = measure_passes(attrs.evolve(LIVELY, call_s=20.0, exchanges=2))
    assert figures.passes > 20 * 50
    assert 0 < figures.worst_ms <= figures.seen_ms < 1000
    assert 0 <= figures.at_s <= 21.0, "from the answer to the end of the ending"
    assert figures.task
    assert figures.yardstick_ms > 0

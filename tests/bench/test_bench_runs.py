"""The benchmark itself, small: five calls through real processes, a minute of call in virtual time."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from bench.load import run_load
from bench.plan import LoadPlan
from bench.processes import BenchError, open_child
from bench.virtual_hour import SPARSE, TALKING, measure_hour


@pytest.mark.sockets
async def test_five_calls_are_interrupted_and_nothing_stale_leaves(tmp_path: Path) -> None:
    """NB-4, BI-2, PL-5: what depends on no other load of the machine holds, seen from both simulators."""
    said: list[str] = []
    with trio.fail_after(90):
        plan = LoadPlan(calls=5, seconds=3.0, every_s=2.5)
        result = await run_load(plan, tmp_path, said.append)
    seen = result.figures
    assert seen.failures == []
    assert result.records == 5
    assert seen.stale_frames == 0
    assert seen.frames > 100
    assert len(seen.silenced_ms) >= 4
    assert len(seen.truncate_errors_ms) >= 4
    assert len(seen.first_audio_ms) == 5
    assert result.cpu_ms > 0
    assert said


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

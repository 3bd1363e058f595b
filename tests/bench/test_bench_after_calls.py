"""The benchmark of what is done after calls, small: real processes, a Postgres of its own, all parts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from agent.store.pg import open_connection
from bench.after_calls.burst import run_burst
from bench.after_calls.kills import KillPlan, run_kills
from bench.after_calls.own_postgres import StopMode, open_postgres
from bench.after_calls.restarts import RestartPlan, run_restarts
from bench.command import app
from bench.generator.plan import LoadPlan

pytestmark = pytest.mark.sockets
REQUESTS = 6
"""To the model API for each call: two utterances on each channel, the summary, the particulars."""


async def test_calls_that_end_together_are_completed_beside_one_that_goes_on(tmp_path: Path) -> None:
    """PC-2: recorded by the carrier, worked on by one worker, every webhook taken."""
    said: list[str] = []
    with trio.fail_after(120):
        plan = LoadPlan(calls=4, leaving=3, seconds=2.5, every_s=1.5, leaving_within_s=1.0)
        seen = await run_burst(plan, tmp_path, said.append, delay_ms=20)
    assert (seen.calls, seen.others) == (3, 1)
    assert seen.problems == ()
    assert 0 < seen.half_s <= seen.completed_s < 60
    assert seen.max_gap_ms > 0
    assert seen.asked == 3 * REQUESTS
    assert said


async def test_pc_4_workers_are_killed_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    said: list[str] = []
    with trio.fail_after(120):
        plan = KillPlan(kills=3, seed=5, calls=4, every_s=0.05, alive_s=(0.2, 0.8))
        seen = await run_kills(plan, tmp_path, said.append)
    assert (seen.verdict.lost, seen.verdict.duplicated) == ((), ())
    assert (seen.calls, seen.kills, seen.seed) == (12, 3, 5)
    assert 0 < seen.in_a_step <= 3
    assert said


async def test_restarts_of_the_database_harm_no_call_and_lose_no_turn(tmp_path: Path) -> None:
    said: list[str] = []
    with trio.fail_after(120):
        seen = await run_restarts(RestartPlan(calls=3, restarts=2, seconds=2.0), tmp_path, said.append)
    assert (seen.harmed, seen.lost) == ((), ())
    assert seen.away_s > 1.0
    assert seen.turns >= 6
    assert seen.max_gap_ms > 0
    assert len(said) == 2


def test_parts_are_selected_one_by_one_and_come_in_one_table() -> None:
    """Whether the figures are met on a machine that does ten things at once is not the claim."""
    result = CliRunner().invoke(app, ["parts", "--only", "queries", "--only", "keeping"])
    assert result.exit_code in (0, 1), result.output
    rows = [line for line in result.output.splitlines() if line.startswith("| ")]
    assert len(rows) == 3
    assert "added event-loop time per turn" in rows[1]
    assert "through the Trio connection" in rows[2]


async def test_a_postgres_of_its_own_goes_and_comes_back() -> None:
    """With what was in it, by both ways of stopping."""
    with trio.fail_after(60):
        async with open_postgres(None) as postgres:
            conninfo = await postgres.make_database("kept", migrated=False)
            async with open_connection(conninfo) as connection:
                await connection.execute("CREATE TABLE marks AS SELECT 7 AS n")
            modes: tuple[StopMode, ...] = ("immediate", "fast")
            for mode in modes:
                await postgres.stop(mode)
                await postgres.start()
                async with open_connection(conninfo) as connection:
                    cursor = await connection.execute("SELECT n FROM marks")
                    assert await cursor.fetchone() == (7,)

"""Runs the parts of the benchmark that are not load, one after the other."""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from bench.after_calls.burst import BURST, run_burst
from bench.after_calls.kills import KillPlan, run_kills
from bench.after_calls.own_postgres import open_postgres
from bench.after_calls.restarts import RestartPlan, run_restarts
from bench.after_calls.rows import burst_rows, keeping_row, kills_row, queries_row, restart_rows
from bench.parts.demo_latency import measure_demo
from bench.parts.keeping import measure_keeping
from bench.parts.pass_time import measure_passes
from bench.parts.pg_queries import measure_queries
from bench.parts.virtual_hour import SPARSE, TALKING, measure_hour
from bench.reporting.table import Row, demo_row, hour_row, pass_row, skipped_row
from bench.rig.processes import BenchError, Say, cores, moved_to

_T = TypeVar("_T")


class Part(enum.StrEnum):
    """A part of the benchmark."""

    HOUR = "hour"
    PASSES = "passes"
    DEMO = "demo"
    BURST = "burst"
    KILLS = "kills"
    RESTARTS = "restarts"
    KEEPING = "keeping"
    QUERIES = "queries"


def run_parts(chosen: Sequence[Part], kill_plan: KillPlan, folder: Path, say: Say) -> list[Row]:
    """Run what is chosen, each part with a folder for its logs. Raises BenchError, DatabaseError."""
    rows: list[Row] = []
    with _quiet():
        for part in Part:
            if part in chosen:
                place = folder / part
                place.mkdir()
                rows += _run(part, kill_plan, place, say)
    return rows


def _run(part: Part, kill_plan: KillPlan, folder: Path, say: Say) -> list[Row]:  # noqa: PLR0911 - a table
    match part:
        case Part.HOUR:
            say("two hours of call in virtual time")
            return [hour_row(plan, measure_hour(plan)) for plan in (SPARSE, TALKING)]
        case Part.PASSES:
            say("three hours of lively call in virtual time, each pass of the scheduler timed")
            return [pass_row(measure_passes())]
        case Part.DEMO:
            say("the demo call, for its latency: a minute")
            return [trio.run(_demo, folder)]
        case Part.BURST:
            return burst_rows(trio.run(run_burst, BURST, folder, say))
        case Part.KILLS:
            return [kills_row(trio.run(run_kills, kill_plan, folder, say))]
        case Part.RESTARTS:
            return restart_rows(trio.run(run_restarts, RestartPlan(), folder, say))
        case Part.KEEPING:
            say("turns that are kept")
            return [keeping_row(trio.run(_with_database, measure_keeping))]
        case Part.QUERIES:
            say("queries on Trio and on asyncio")
            return [queries_row(trio.run(_with_database, measure_queries))]


async def _with_database(measure: Callable[[str], Awaitable[_T]]) -> _T:
    """Measure on the agent's core, with an empty database on the other."""
    agent_core, other_core = cores() or (None, None)
    async with open_postgres(other_core) as postgres:
        conninfo = await postgres.make_database("bench", migrated=False)
        with moved_to(agent_core):
            return await measure(conninfo)


async def _demo(folder: Path) -> Row:
    try:
        return demo_row(*await measure_demo(folder))
    except BenchError as error:
        return skipped_row(str(error))
    except trio.TooSlowError:
        return skipped_row("it took too long")


@contextmanager
def _quiet() -> Iterator[None]:
    """What happens in this process is not logged: that would be measured, too."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)

"""Workers that are killed at random moments, again and again, while calls end; then one that is let through."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.postcall import Ledger, RecordMover
from agent.store import Database
from agent.store.pg import open_connection, open_pool
from agent.store.spool import Spool
from bench.after_calls.aftermath import KillFigures, judge
from bench.after_calls.ended_calls import EndingCalls
from bench.after_calls.outside import Outside, open_outside
from bench.after_calls.own_postgres import open_postgres
from bench.after_calls.reading import count_rows, read_ledger
from bench.rig.processes import Child, Say, cores, moved_to

LAST_S: Final = 300.0
"""How long the last worker is given for what the others left."""
_SAY_EVERY: Final = 20
_LOOK_S: Final = 0.1
Workers = Callable[[int], AbstractAsyncContextManager[Child]]


@attrs.frozen(kw_only=True)
class KillPlan:
    """How often, and when."""

    kills: int = 200
    seed: int = 1
    alive_s: tuple[float, float] = (0.0, 1.6)
    """A worker is killed at a random moment of this time after it said that it is at work."""
    calls: int = 8
    """So many end while each worker lives, and dies."""
    every_s: float = 0.25
    delay_ms: int = 200
    """Of the model API: a step is to be under way when its worker is killed."""


async def run_kills(plan: KillPlan, folder: Path, say: Say) -> KillFigures:
    """Run it. Raises BenchError when a process fails by itself, DatabaseError, trio.TooSlowError."""
    worker_core, other_core = cores() or (None, None)
    began_s = time.monotonic()
    with moved_to(other_core):
        async with open_postgres(other_core) as postgres:
            conninfo = await postgres.make_database("kills")
            async with (
                open_outside(conninfo, folder, other_core, delay_ms=plan.delay_ms) as outside,
                _open_calls(conninfo, folder / "server") as calls,
            ):
                workers = partial(outside.open_worker, folder / "data", worker_core)
                in_a_step = await _kill_all(plan, outside, workers, calls, say)
                say(f"the last worker is let through; {await _left(outside)} calls are open")
                with trio.fail_after(LAST_S):
                    await calls.mover.wait_idle()
                    async with workers(plan.kills) as worker:
                        while await _left(outside):  # noqa: ASYNC110 - asked from outside
                            await trio.sleep(_LOOK_S)
                        await worker.stop()
                ledger = await read_ledger(outside)
    return KillFigures(
        calls=len(calls.appointments),
        kills=plan.kills,
        in_a_step=in_a_step,
        verdict=judge(calls.appointments, ledger),
        seed=plan.seed,
        seconds=time.monotonic() - began_s,
    )


async def _kill_all(plan: KillPlan, outside: Outside, workers: Workers, calls: EndingCalls, say: Say) -> int:
    """Returns how many of the killed were in the middle of a step."""
    chance = random.Random(plan.seed)  # noqa: S311 - moments, not secrets
    caught: set[str] = set()
    async with trio.open_nursery() as nursery:
        for kill in range(plan.kills):
            if kill % _SAY_EVERY == 0:
                say(f"{kill} of {plan.kills} workers killed (seed {plan.seed})")
            numbers = range(kill * plan.calls, (kill + 1) * plan.calls)
            nursery.start_soon(calls.end_some, numbers, plan.every_s)
            async with workers(kill) as worker:
                await trio.sleep(chance.uniform(*plan.alive_s))
                worker.process.kill()
                await worker.process.wait()
            caught |= await _left_running(outside)
    return len(caught)


async def _left(outside: Outside) -> int:
    return await count_rows(outside.conninfo, "calls WHERE due_at IS NOT NULL")


async def _left_running(outside: Outside) -> set[str]:
    """The workers that left steps running: each has a name of its own."""
    async with open_connection(outside.conninfo) as connection:
        cursor = await connection.execute("SELECT claimed_by FROM postcall_steps WHERE state = 'running'")
        return {str(name) for (name,) in await cursor.fetchall()}


@asynccontextmanager
async def _open_calls(conninfo: str, data_dir: Path) -> AsyncIterator[EndingCalls]:
    """Calls that end as in a server: with a spool, and a mover that brings it into the database."""
    async with open_pool(conninfo) as pool, trio.open_nursery() as nursery:
        database = Database(conninfo, pool)
        await database.make_ready()
        spool = Spool(data_dir)
        mover = RecordMover(spool, Ledger(database).keep, EventLog(Telemetry()))
        nursery.start_soon(mover.run)
        yield EndingCalls(database, spool, mover)
        nursery.cancel_scope.cancel(reason="no call ends any more")

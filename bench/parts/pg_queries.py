"""What a query costs through the Trio connection, against psycopg's asyncio connection and the same server.

Each side is a process of its own that runs the same loop. They take turns round by round, so that whatever else
the machine does falls on both; the server hands the turn over, by an advisory lock.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.rig.processes import Child, cores, open_child

MUST: Final = 1.2
"""The ratio that is promised."""
ROUNDS: Final = 15
QUERIES: Final = 400
LIMIT_S: Final = 120.0

_LOOP: Final = """
import sys, time, psycopg

CONNINFO, ROUNDS, QUERIES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

async def measure(connection):
    for _ in range(ROUNDS):
        await connection.execute("SELECT pg_advisory_lock(20)")
        began = time.perf_counter()
        for number in range(QUERIES):
            cursor = await connection.execute("SELECT %s::int, %s::text", (number, "Harbour Dental"))
            assert await cursor.fetchone() == (number, "Harbour Dental")
        took_s = time.perf_counter() - began
        await connection.execute("SELECT pg_advisory_unlock(20)")
        print(took_s / QUERIES * 1e6, flush=True)
"""
_TRIO: Final = (
    _LOOP
    + """
import trio
from agent.store.pg import open_connection

async def main():
    async with open_connection(CONNINFO) as connection:
        await measure(connection)

trio.run(main)
"""
)
_ASYNCIO: Final = (
    _LOOP
    + """
import asyncio

async def main():
    async with await psycopg.AsyncConnection.connect(CONNINFO, autocommit=True) as connection:
        await measure(connection)

asyncio.run(main())
"""
)


@attrs.frozen
class QueryFigures:
    """Medians over the rounds, in microseconds a query, wall time."""

    trio_us: float
    asyncio_us: float

    @property
    def ratio(self) -> float:
        """How much longer a query takes on Trio; below 1 it is faster."""
        return self.trio_us / self.asyncio_us


async def measure_queries(conninfo: str, *, rounds: int = ROUNDS, queries: int = QUERIES) -> QueryFigures:
    """Measure both sides against the server at ``conninfo``; takes about a second.

    The first round of each is a warm-up and not counted. A cancel kills both processes. Raises BenchError when
    one of them fails, and ``trio.TooSlowError`` after LIMIT_S.
    """
    found: dict[str, float] = {}
    pinned = cores()

    async def collect(child: Child) -> None:
        rounds_us = [float(await child.line()) for _ in range(rounds)]
        found[child.name] = statistics.median(rounds_us[1:] or rounds_us)
        await child.until_done()

    with tempfile.TemporaryDirectory(prefix="pg-queries-") as directory, trio.fail_after(LIMIT_S):
        folder, core = Path(directory), pinned[0] if pinned else None
        sizes = (conninfo, str(rounds), str(queries))
        async with (
            open_child("trio", ["-c", _TRIO, *sizes], core=core, folder=folder) as ours,
            open_child("asyncio", ["-c", _ASYNCIO, *sizes], core=core, folder=folder) as theirs,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(collect, ours)
            nursery.start_soon(collect, theirs)
    return QueryFigures(trio_us=found["trio"], asyncio_us=found["asyncio"])

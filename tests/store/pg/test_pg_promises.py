"""What a cancelled caller of the pool may believe: done is done, and what is in doubt does not go back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count

import attrs
import pytest
import trio

from agent.store.pg import Connection, Pool, open_connection, open_pool

pytestmark = pytest.mark.sockets

ROUNDS, AT_ONCE = 40, 20


@attrs.define(eq=False)
class Writers:
    """Callers that insert a row each, and are cancelled within five milliseconds, or not."""

    pool: Pool
    chance: random.Random = attrs.field(factory=lambda: random.Random(1))  # noqa: S311
    returned: set[int] = attrs.field(factory=set)
    in_doubt: dict[int, Connection] = attrs.field(factory=dict)
    """Those that were cancelled with a connection in hand."""
    _numbers: Iterator[int] = attrs.field(factory=count)

    async def insert(self) -> None:
        """Insert one row, in one of three ways."""
        number, chance = next(self._numbers), self.chance
        how, slow_s = chance.choice(["alone", "transaction", "many"]), chance.choice([0, 0, 0.001])
        with trio.move_on_after(chance.choice([0, 1, 2, 3, 5]) * chance.random() / 1000):
            async with self.pool.connection() as connection:
                self.in_doubt[number] = connection
                if how == "alone":
                    await connection.execute("INSERT INTO t SELECT %s FROM pg_sleep(%s)", [number, slow_s])
                    # Without a transaction the row is there from now on, whatever the pool does yet.
                    self._done(number)
                elif how == "transaction":
                    async with connection.transaction():
                        await connection.execute("INSERT INTO t VALUES (%s)", [number])
                        await connection.execute("SELECT pg_sleep(%s)", [slow_s])
                    self._done(number)
                else:
                    async with connection.transaction(), connection.cursor() as cursor:
                        rows = [[number], *([-number * 100 - more] for more in range(1, 21))]
                        await cursor.executemany("INSERT INTO t VALUES (%s)", rows)
                    self._done(number)

    def _done(self, number: int) -> None:
        self.returned.add(number)
        del self.in_doubt[number]


async def test_what_returned_is_there_and_what_is_there_in_doubt_closed_its_connection(
    empty_postgres: str,
) -> None:
    """A write that returned was made; one that was cancelled was not, or its connection is not used again."""
    async with open_connection(empty_postgres) as connection:
        await connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with trio.fail_after(60):
        async with open_pool(empty_postgres, min_size=1, max_size=6) as pool:
            writers = Writers(pool)
            for _ in range(ROUNDS):
                async with trio.open_nursery() as nursery:
                    for _ in range(AT_ONCE):
                        nursery.start_soon(writers.insert)
            in_use = len(pool._in_use)
    async with open_connection(empty_postgres) as connection:
        found = await (await connection.execute("SELECT id FROM t WHERE id >= 0")).fetchall()
    there = {number for (number,) in found}
    assert in_use == 0
    assert writers.returned
    assert writers.in_doubt
    assert writers.returned <= there
    unsure = {number for number, connection in writers.in_doubt.items() if not connection.closed}
    assert not unsure & there

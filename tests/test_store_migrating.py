"""The schema: from empty and from every earlier version, by one process or several, and never backwards."""

from __future__ import annotations

import attrs
import psycopg
import pytest
import trio
from databases import apply

from agent.errors import DatabaseError
from agent.pg import open_connection
from agent.store.migrating import Migration, migrate, migrations

pytestmark = pytest.mark.sockets
STEPS = migrations()
LATER = Migration(STEPS[-1].version + 1, "later", "CREATE TABLE later_things (id integer)")


async def run(conninfo: str, steps: tuple[Migration, ...] | None = None) -> list[int]:
    with trio.fail_after(20):
        async with open_connection(conninfo, autocommit=True) as connection:
            return await migrate(connection, steps)


def test_versions_count_from_one_without_a_gap() -> None:
    assert [step.version for step in STEPS] == list(range(1, len(STEPS) + 1))


async def test_from_empty_and_a_second_time(empty_postgres: str) -> None:
    assert await run(empty_postgres) == [step.version for step in STEPS]
    assert await run(empty_postgres) == []


@pytest.mark.parametrize("count", range(1, len(STEPS) + 1))
async def test_from_every_earlier_version_with_rows_in_it(empty_postgres: str, count: int) -> None:
    apply(empty_postgres, STEPS[:count])
    with psycopg.connect(empty_postgres, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at) "
            "VALUES ('CA1', 'default', 'inbound', '+15550001111', '+15552223333', 'active', now())"
        )
    assert await run(empty_postgres) == [step.version for step in STEPS[count:]]
    with psycopg.connect(empty_postgres) as connection:
        assert connection.execute("SELECT call_sid FROM calls").fetchall() == [("CA1",)]


async def test_several_processes_at_once(empty_postgres: str) -> None:
    applied: list[list[int]] = []

    async def one() -> None:
        applied.append(await run(empty_postgres))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one)
    assert sorted(applied, key=len) == [[], [], [], [], [step.version for step in STEPS]]


async def test_a_newer_database_is_refused(postgres: str) -> None:
    await run(postgres, (*STEPS, LATER))
    with pytest.raises(DatabaseError, match="newer than this program"):
        await run(postgres)


async def test_changed_history_is_refused(postgres: str) -> None:
    changed = attrs.evolve(STEPS[0], sql=STEPS[0].sql + "\n-- a word")
    with pytest.raises(DatabaseError, match="changed after it had been applied"):
        await run(postgres, (changed, *STEPS[1:]))


async def test_a_database_of_something_else_is_refused(empty_postgres: str) -> None:
    with psycopg.connect(empty_postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE wp_posts (id integer)")
    with pytest.raises(DatabaseError, match="wp_posts"):
        await run(empty_postgres)


async def test_one_that_fails_leaves_nothing_and_frees_the_lock(postgres: str) -> None:
    broken = attrs.evolve(LATER, sql="CREATE TABLE half (id integer); SELECT * FROM nowhere")
    with pytest.raises(DatabaseError, match="nowhere"):
        await run(postgres, (*STEPS, broken))
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regclass('half')").fetchone() == (None,)
    assert await run(postgres, (*STEPS, LATER)) == [LATER.version]

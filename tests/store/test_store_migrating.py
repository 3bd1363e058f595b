"""The schema: from empty and from every earlier version, by one process or several, and never backwards."""

from __future__ import annotations

import attrs
import psycopg
import pytest
import trio
from databases import apply

from agent.core.errors import DatabaseError
from agent.store.migrating import Migration, migrate, migrations
from agent.store.pg import open_connection

pytestmark = pytest.mark.sockets
STEPS = migrations()
LATER = Migration(STEPS[-1].version + 1, "later", "CREATE TABLE later_things (id integer)")


ROWS = """
INSERT INTO tenants (id, name) VALUES ('harbour', 'Harbour Dental');
INSERT INTO tenant_numbers VALUES ('+15552223333', 'harbour');
INSERT INTO servers (id, host) VALUES (gen_random_uuid(), 'host');
INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at, ended_at, outcome, due_at)
  VALUES ('CA1', 'harbour', 'inbound', '+15550001111', '+15552223333', 'ended', now(), now(), 'idle', now()),
    ('CA2', 'default', 'inbound', 'anonymous', '+15552223333', 'active', now(), NULL, NULL, NULL);
INSERT INTO turns SELECT id, 'k', 'caller', 'item', 'hi', 'hi', 0, 1, 1, false, true FROM calls;
INSERT INTO recordings (recording_sid, call_id, status) SELECT 'RE' || id, id, 'in-progress' FROM calls;
INSERT INTO recording_callbacks (recording_sid, call_sid, status) VALUES ('RE9', 'CA9', 'completed');
INSERT INTO leads (tenant_id, phone, last_call_id) SELECT 'harbour', '+15550001111', min(id) FROM calls;
INSERT INTO appointments (tenant_id, call_sid, tool_call_id, lead_id, starts_at, phone)
  SELECT 'harbour', 'CA1', 'call_1', id, now(), phone FROM leads;
INSERT INTO postcall_steps (call_id, step, state, error)
  SELECT min(id), 'summary', 'dead', 'reason' FROM calls;
INSERT INTO webhook_deliveries (call_id, idempotency_key, attempt, url, duration_ms)
  SELECT min(id), 'key', 1, 'https://hooks.example.com', 5 FROM calls;
"""
"""In every table of the first version: migrations meet data that the schema allowed."""
REPLAYS = "INSERT INTO replays VALUES ('\\x00', 'answer', now())"
REPLAYED_SINCE = 6


def counts(connection: psycopg.Connection) -> dict[str, int]:
    """How many rows each table has, but for the books."""
    tables = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations'"
    ).fetchall()
    found = {}
    for (table,) in tables:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        found[table] = int(row[0]) if row else 0
    return found


async def run(conninfo: str, steps: tuple[Migration, ...] | None = None) -> list[int]:
    with trio.fail_after(20):
        async with open_connection(conninfo) as connection:
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
        connection.execute(ROWS)
        if count >= REPLAYED_SINCE:
            connection.execute(REPLAYS)
        before = counts(connection)
    assert all(before.values()), f"a migration is not proved for tables without rows: {before}"
    assert await run(empty_postgres) == [step.version for step in STEPS[count:]]
    with psycopg.connect(empty_postgres, autocommit=True) as connection:
        after = counts(connection)
    assert {table: after.get(table) for table in before} == before


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

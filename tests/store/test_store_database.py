"""The database of a process: found, waited for, refused; never a password in a word of it."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
import trio
from ended_calls import change, rows

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.settings import Settings, load_settings
from agent.core.telemetry import Telemetry
from agent.store import database as database_module
from agent.store import migrate, open_database, open_listener
from agent.store.database import completed
from agent.store.embedded_postgres import Cluster
from agent.store.migrating import Migration, migrations

pytestmark = pytest.mark.sockets
SECRET = "s3cret-w0rd"  # noqa: S105 - of no server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr(database_module, "FIRST_TRIES_S", (0.05, 0.05))
    monkeypatch.setattr(database_module, "LATER_TRY_S", 0.05)
    monkeypatch.setattr(database_module, "HOPELESS_TRY_S", 0.05)


def settings(conninfo: str, **more: Any) -> Settings:
    return load_settings(database_url=conninfo, **more)


def make_events() -> tuple[EventLog, list[tuple[str, dict[str, Any]]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    return EventLog(Telemetry(), listener=lambda event, fields: told.append((event, fields))), told


async def refused(conninfo: str) -> tuple[str, str, list[tuple[str, dict[str, Any]]]]:
    """What ``open_database`` says of it, what its whole error shows, and the events before."""
    events, told = make_events()
    with trio.fail_after(20), pytest.raises(DatabaseError) as caught:
        async with open_database(settings(conninfo), events):
            pytest.fail("it was opened")
    return str(caught.value), repr(caught.value), told


async def refusal(conninfo: str) -> str:
    message, _, _ = await refused(conninfo)
    return message


@contextmanager
def running(cluster: Cluster, lock: IO[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        cluster.leave(lock)


@contextmanager
def free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield port


async def test_an_empty_database_is_made_ready(empty_postgres: str) -> None:
    events, told = make_events()
    with trio.fail_after(20):
        async with open_database(settings(empty_postgres), events) as database:
            assert database.ready.is_set()
            async with database.connection() as connection:
                cursor = await connection.execute("SHOW application_name")
                assert await cursor.fetchone() == ("call-agent",)
            async with open_listener(database, "postcall", "tenants") as listener:
                change(empty_postgres, "NOTIFY tenants, 'x'")
                assert (await listener.notification()).channel == "tenants"
    [(event, fields)] = told
    assert (event, fields["applied"]) == ("DATABASE_READY", [step.version for step in migrations()])


async def test_the_name_that_the_url_gives_is_kept(postgres: str) -> None:
    events, _ = make_events()
    url = f"{postgres} application_name=mine"
    async with open_database(settings(url), events) as database, database.connection() as connection:
        cursor = await connection.execute("SHOW application_name")
        assert await cursor.fetchone() == ("mine",)


async def test_nobody_there_is_waited_for_a_little_and_told_without_the_password() -> None:
    with free_port() as port:
        url = f"postgresql://agent:{SECRET}@127.0.0.1:{port}/calls"
        message, shown, told = await refused(url)
    assert message.startswith(f"no database at 127.0.0.1:{port}/calls: ")
    assert "\n" not in message
    assert [event for event, _ in told] == ["DATABASE_AWAY"] * 2
    assert SECRET not in f"{message}{shown}{told}{settings(url)!r}"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}%zz@127.0.0.1/x",
        f"postgresql://u:half@{SECRET}@127.0.0.1/x",
        f"postgresql://u:half/{SECRET}@127.0.0.1/x",
        f"postgresql://u:{SECRET}/half@127.0.0.1/x",
        f"password={SECRET} nonsense",
        f"password={SECRET} hots=x",
        f"password='{SECRET}",
        f"{SECRET}",
    ],
)
async def test_urls_that_are_none_are_not_repeated(url: str) -> None:
    message = await refusal(url)
    assert "DATABASE_URL" in message
    assert SECRET not in message


async def test_a_wrong_database_is_named_with_the_reason(postgres: str) -> None:
    message = await refusal(postgres.replace("dbname=test", "dbname=nowhere"))
    assert "nowhere" in message
    assert "does not exist" in message


async def test_a_role_that_may_not_make_tables(empty_postgres: str) -> None:
    role = f"reader_{empty_postgres.rpartition('_')[2]}"
    change(empty_postgres, f"CREATE ROLE {role} LOGIN")
    try:
        message = await refusal(empty_postgres.replace("user=postgres", f"user={role}"))
    finally:
        change(empty_postgres, f"DROP ROLE {role}")
    assert "cannot be used: permission denied for schema public" in message


async def test_a_role_that_makes_no_tables_is_enough_when_all_is_made(postgres: str) -> None:
    role = f"writer_{postgres.rpartition('_')[2]}"
    change(postgres, f"CREATE ROLE {role} LOGIN")
    change(postgres, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    events, _ = make_events()
    async with open_database(settings(postgres.replace("user=postgres", f"user={role}")), events) as database:
        assert database.ready.is_set()
    change(postgres, f"DROP OWNED BY {role}")
    change(postgres, f"DROP ROLE {role}")


async def test_tables_of_something_else_are_not_tried_twice(empty_postgres: str) -> None:
    """Rails and others have books of the same name."""
    change(empty_postgres, "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")
    message, _, told = await refused(empty_postgres)
    assert "tables of something else (schema_migrations" in message
    assert told == []
    assert rows(empty_postgres, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


async def test_a_newer_database(postgres: str) -> None:
    change(postgres, "INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'x')")
    assert await refusal(postgres) == (
        "the database is newer than this program: it has migration 9999 (from_the_future); update call-agent"
    )


async def test_a_server_starts_while_its_database_is_away() -> None:
    """``must_be_there=False``: it says what is wrong meanwhile, and is ready as soon as it can be."""
    events, told = make_events()
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory) / "postgres")
        with trio.fail_after(60):
            async with open_database(settings(cluster.conninfo), events, must_be_there=False) as database:
                with pytest.raises(DatabaseError, match="not reached yet"):
                    await enter(database)
                while not told:  # noqa: ASYNC110 - the log tells nobody
                    await trio.sleep(0.01)
                with pytest.raises(DatabaseError, match="no database at"):
                    await enter(database)
                lock = await trio.to_thread.run_sync(cluster.start)
                with running(cluster, lock):
                    await database.ready.wait()
                    await enter(database)
                with pytest.raises(database_module.AWAY):
                    await enter(database)
    assert [event for event, _ in told][-1] == "DATABASE_READY"


async def test_what_no_try_can_help_does_not_end_a_server(empty_postgres: str) -> None:
    change(empty_postgres, "CREATE TABLE wp_posts (id integer)")
    events, told = make_events()
    with trio.fail_after(20):
        async with open_database(settings(empty_postgres), events, must_be_there=False) as database:
            while not told:  # noqa: ASYNC110 - the log tells nobody
                await trio.sleep(0.01)
            with pytest.raises(DatabaseError, match="wp_posts"):
                await enter(database)
            change(empty_postgres, "DROP TABLE wp_posts")
            await database.ready.wait()


async def enter(database: database_module.Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT 1")


async def test_the_embedded_one_starts_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one directory share it; one that is killed comes back, and the pool finds it."""
    monkeypatch.setattr("agent.store.embedded_postgres.WATCH_S", 0.05)
    events, _ = make_events()
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory, trio.fail_after(60):
        mine = load_settings(data_dir=Path(directory))
        cluster = Cluster(Path(directory) / "postgres")
        async with (
            open_database(mine, events) as database,
            open_database(mine, events, must_be_there=False) as other,
        ):
            for one in (database, other):
                await enter(one)
            await trio.to_thread.run_sync(lambda: cluster._ctl("stop", "-m", "immediate", "-W"))
            while True:
                try:
                    await enter(other)
                    break
                except database_module.AWAY:
                    await trio.sleep(0.02)
        assert cluster.state() == "gone"


async def test_a_cancel_while_it_waits_for_another_to_migrate_leaves_no_lock(postgres: str) -> None:
    later = Migration(9000, "slow", "SELECT pg_sleep(30)")
    events, _ = make_events()
    with trio.fail_after(20):
        async with open_database(settings(postgres), events) as database:
            async with database.pool.connection() as connection:
                with trio.move_on_after(0.2) as scope:
                    await migrate(connection, (*migrations(), later))
                assert scope.cancelled_caught
            assert rows(postgres, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


async def test_a_server_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy with nobody behind it: bounded by connect_timeout, which the URL may set."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://u:{SECRET}@127.0.0.1:{server.getsockname()[1]}/x?connect_timeout=2"
        monkeypatch.setattr(database_module, "FIRST_TRIES_S", ())
        message = await refusal(url)
    assert "no database at" in message
    assert SECRET not in message


def test_what_the_url_says_is_not_overridden() -> None:
    assert "connect_timeout=3" in completed("postgresql://h/x?connect_timeout=3")
    assert "connect_timeout=10" in completed("postgresql://h/x")
    assert psycopg.conninfo.conninfo_to_dict(completed("host=a,b port=1,2"))["host"] == "a,b"

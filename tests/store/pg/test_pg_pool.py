"""The pool: fair, bounded, and whole after all that can happen to connections, callers and the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from pg_servers import Watcher, frozen, open_files, open_server, open_watcher
from psycopg.rows import dict_row

from agent.store.pg import Pool, PoolClosedError, open_pool
from agent.store.pg import pool as pool_module

pytestmark = pytest.mark.sockets


@pytest.fixture
async def watcher(empty_postgres: str) -> AsyncIterator[Watcher]:
    async with open_watcher(empty_postgres) as watching:
        yield watching


@pytest.fixture
async def single(empty_postgres: str) -> AsyncIterator[Pool]:
    """A pool of one."""
    async with open_pool(empty_postgres, min_size=0, max_size=1, name="single") as pool:
        with trio.fail_after(20):
            yield pool


async def ask(pool: Pool, sql: str = "SELECT 1") -> Any:
    async with pool.connection() as connection:
        row = await (await connection.execute(sql)).fetchone()
        assert row is not None
        return row[0]


async def pid_of(pool: Pool) -> int:
    return int(await ask(pool, "SELECT pg_backend_pid()"))


def waiting(pool: Pool) -> int:
    """Callers in the queue."""
    return pool._free.statistics().tasks_waiting


async def until(condition: Any) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the pool tells nobody
            await trio.sleep(0.005)


async def test_a_thousand_callers_are_served_in_their_order(empty_postgres: str) -> None:
    """With four connections, and every third of them going away while it waits."""
    served: list[int] = []
    scopes: dict[int, trio.CancelScope] = {}

    async def call(number: int) -> None:
        with trio.CancelScope() as scopes[number]:
            async with pool.connection() as connection:
                served.append(number)
                await connection.execute("SELECT 1")

    with trio.fail_after(30):
        async with open_pool(empty_postgres, min_size=4, max_size=4) as pool, trio.open_nursery() as nursery:
            await until(lambda: len(pool._idle) == 4)
            async with pool.connection(), pool.connection(), pool.connection(), pool.connection():
                for number in range(1000):
                    nursery.start_soon(call, number)
                    await trio.lowlevel.checkpoint()
                await until(lambda: waiting(pool) == 1000)
                for number in range(0, 1000, 3):
                    scopes[number].cancel()
                await until(lambda: waiting(pool) == 666)
            await until(lambda: len(served) == 666 and not pool._in_use)
            assert (pool._free.value, waiting(pool), len(pool._idle)) == (4, 0, 4)
    # Four are served at a time, and which of the four says so first is the scheduler's business.
    assert all(abs(place - sorted(served).index(number)) < 4 for place, number in enumerate(served))
    assert not [number for number in served if number % 3 == 0]


async def test_nobody_overtakes_the_queue(single: Pool) -> None:
    """Not even who asks in the moment a connection comes back."""
    served: list[str] = []

    async def call(name: str) -> None:
        async with single.connection():
            served.append(name)

    async with trio.open_nursery() as nursery:
        async with single.connection():
            nursery.start_soon(call, "patient")
            await until(lambda: waiting(single) == 1)
        await call("pushy")
    assert served == ["patient", "pushy"]


async def test_a_turn_that_comes_in_the_moment_of_the_cancel_is_passed_on(single: Pool) -> None:
    """The cancelled caller has not run yet when the connection is given to it."""
    async with trio.open_nursery() as nursery:

        async def wait(scope: trio.CancelScope) -> None:
            with scope:
                await ask(single)

        async with single.connection():
            nursery.start_soon(wait, scope := trio.CancelScope())
            await until(lambda: waiting(single) == 1)
            nursery.start_soon(ask, single)
            await until(lambda: waiting(single) == 2)
            scope.cancel()
    assert scope.cancelled_caught
    assert (single._free.value, len(single._idle)) == (1, 1)


async def test_connections_come_with_autocommit_and_go_back_clean(single: Pool, watcher: Watcher) -> None:
    """A transaction left open is rolled back, a failed one too, and the same connection goes on."""
    pid = await pid_of(single)
    async with single.connection() as connection:
        assert connection.autocommit
        connection.row_factory = dict_row  # type: ignore[assignment]  # what a careless caller does
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO marks VALUES (1)")
    async with single.connection() as connection:
        await connection.execute("BEGIN")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1/0")
    assert await pid_of(single) == pid
    assert await watcher.count("marks", 1) == 0
    assert await watcher.states() == ["idle"]


@pytest.mark.parametrize("how", ["closed", "copying", "other settings", "locked", "piped"])
async def test_what_is_in_doubt_does_not_go_back(single: Pool, how: str) -> None:
    pid = await pid_of(single)
    async with single.connection() as connection:
        if how == "closed":
            await connection.close()
        elif how == "copying":
            connection.pgconn.exec_(b"COPY (SELECT 1) TO STDOUT")
        elif how == "other settings":
            await connection.set_autocommit(False)
        elif how == "locked":
            await connection.lock.acquire()
        else:
            connection.pgconn.enter_pipeline_mode()
    assert await pid_of(single) != pid
    assert connection.closed


async def test_a_connection_cut_while_idle_is_replaced_unseen(single: Pool, watcher: Watcher) -> None:
    pid = await pid_of(single)
    await watcher.connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    await watcher.until_states([])
    assert await pid_of(single) != pid
    assert len(single._opened_at_s) == 1


async def test_a_connection_idle_for_long_is_asked_first(single: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer is replaced, after a bounded wait."""
    monkeypatch.setattr(pool_module, "UNSEEN_S", 0.0)
    monkeypatch.setattr(pool_module, "CHECK_S", 0.1)
    pid = await pid_of(single)
    assert await pid_of(single) == pid
    async with single.connection() as connection:
        pass
    with frozen(connection), trio.fail_after(1):
        assert await pid_of(single) != pid


async def test_the_most_recently_used_connection_is_given_first(empty_postgres: str) -> None:
    """So that the others can be closed one day."""
    async with open_pool(empty_postgres, min_size=0, max_size=2) as pool:
        async with pool.connection() as last, pool.connection():
            pass
        async with pool.connection() as given:
            assert given is last


@pytest.mark.parametrize(("least", "most"), [(-1, 3), (4, 3), (0, 0)])
async def test_sizes_that_make_no_sense_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_size"):
        async with open_pool(min_size=least, max_size=most):
            pass


async def test_old_connections_are_replaced(single: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = await pid_of(single)
    monkeypatch.setattr(pool_module, "LIFETIME_S", 0.0)
    assert await pid_of(single) != pid


async def test_the_pool_keeps_its_least_and_no_more(
    empty_postgres: str, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "KEEP_S", 0.01)
    monkeypatch.setattr(pool_module, "UNUSED_S", 0.05)
    async with open_pool(empty_postgres, min_size=2, max_size=5, name="kept") as pool:
        await watcher.until_states(["idle"] * 2)
        async with pool.connection(), pool.connection(), pool.connection(), pool.connection():
            await watcher.until_states(["idle"] * 4)
        await watcher.until_states(["idle"] * 2)
        name = await ask(pool, "SELECT current_setting('application_name')")
    assert name == "kept"
    await watcher.until_states([])


async def test_a_server_that_is_away_is_the_callers_error(tmp_path: Path) -> None:
    """One error for each who asks, and no slot is lost by it."""
    async with open_pool(f"host={tmp_path} dbname=x user=x", min_size=1, max_size=1) as pool:
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError):
                await ask(pool)
        await until(lambda: pool._free.value == 1)


async def test_closing_sends_the_waiting_away_and_waits_for_the_using(
    empty_postgres: str, watcher: Watcher
) -> None:
    outcomes: list[str] = []

    async def use(pool: Pool) -> None:
        try:
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(0.1)")
                outcomes.append("used")
        except PoolClosedError:
            outcomes.append("sent away")

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:  # callers outlive the pool: the mistake this is about
            async with open_pool(empty_postgres, min_size=0, max_size=2) as pool:
                for _ in range(4):
                    nursery.start_soon(use, pool)  # noqa: ASYNC111
                await until(lambda: waiting(pool) == 2)
                await watcher.until_states(["active", "active"])
            assert sorted(outcomes) == ["sent away", "sent away", "used", "used"]
    with pytest.raises(PoolClosedError):
        await ask(pool)
    await watcher.until_states([])


@pytest.mark.parametrize("how", ["too long", "cancelled"])
async def test_closing_is_bounded(
    empty_postgres: str, watcher: Watcher, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Who still uses a connection then, loses it."""
    if how == "too long":
        monkeypatch.setattr(pool_module, "CLOSE_S", 0.05)
    lost = trio.Event()

    async def use(pool: Pool) -> None:
        async with pool.connection() as connection:
            with pytest.raises(psycopg.OperationalError):
                await connection.execute("SELECT pg_sleep(0.5)")
            lost.set()

    with trio.fail_after(3):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with open_pool(empty_postgres, min_size=0) as pool:
                    nursery.start_soon(use, pool)  # noqa: ASYNC111 - likewise
                    await watcher.until_states(["active"])
                    if how == "cancelled":
                        scope.cancel()
            await lost.wait()
    assert not pool._in_use
    assert not pool._idle


async def test_a_server_killed_under_load_is_used_again() -> None:
    """Twice in a row: all callers go on, what was acknowledged is there, nothing is left open."""
    acknowledged: set[int] = set()
    errors = 0
    numbers = iter(range(1_000_000))
    stop = trio.Event()

    async def insert(pool: Pool) -> None:
        nonlocal errors
        while not stop.is_set():
            number = next(numbers)
            try:
                async with pool.connection() as connection, connection.transaction():
                    await connection.execute("INSERT INTO marks VALUES (%s)", [number])
                acknowledged.add(number)
            except psycopg.OperationalError:
                errors += 1
                await trio.sleep(0.01)

    with open_server() as server, trio.fail_after(60):
        server.sql("CREATE TABLE marks (n int)")
        files = open_files()
        async with open_pool(server.conninfo, max_size=4) as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(insert, pool)
                for _ in range(2):
                    before = len(acknowledged)
                    await until(lambda enough=before + 50: len(acknowledged) > enough)
                    await trio.to_thread.run_sync(server.kill)
                    seen = errors
                    await until(lambda enough=seen + 20: errors > enough)
                    await trio.to_thread.run_sync(server.start)
                before = len(acknowledged)
                await until(lambda enough=before + 50: len(acknowledged) > enough)
                stop.set()
            assert (pool._free.value, waiting(pool)) == (4, 0)
            async with pool.connection() as connection:
                cursor = await connection.execute("SELECT n FROM marks")
                there = [n for (n,) in await cursor.fetchall()]
        assert open_files() <= files + 1  # a thread of the test's may keep its own
    assert acknowledged <= set(there)
    assert len(there) == len(set(there))

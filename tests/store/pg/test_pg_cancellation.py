"""Whatever a connection does, cancelled at every checkpoint: it happened or it did not, and all know which."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import trio
from pg_servers import StrikeAt, Struck, Watcher, frozen, open_files, open_watcher, sweep
from psycopg.pq import TransactionStatus

from agent.store.pg import Connection, open_connection, open_pool, waiting

pytestmark = pytest.mark.sockets


@pytest.fixture
async def watcher(empty_postgres: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watcher]:
    # How often a query gives way before it sleeps is a matter of microseconds; here runs are to be alike.
    monkeypatch.setattr(waiting, "NEAR_S", 0.0)
    async with open_watcher(empty_postgres) as watching:
        yield watching


async def is_sound(connection: Connection[Any], watcher: Watcher, struck: Struck) -> None:
    """Nothing runs on the server, and the connection answers, in no transaction."""
    assert not connection.closed, struck
    assert not connection.lock.locked(), struck
    assert connection.info.transaction_status == TransactionStatus.IDLE, struck
    assert await watcher.states() == ["idle"], struck
    with trio.fail_after(5):
        cursor = await connection.execute("SELECT %s::int", [struck.at])
        assert await cursor.fetchall() == [(struck.at,)], struck


async def test_a_statement_cancelled_anywhere(empty_postgres: str, watcher: Watcher) -> None:
    """A statement that raised Cancelled left nothing behind; one that did not was carried out."""
    outcomes = set()
    async with open_connection(empty_postgres) as connection:

        async def operation(number: int) -> None:
            await connection.execute("SELECT 1")
            await connection.execute("INSERT INTO marks SELECT %s FROM pg_sleep(0.02)", [number])
            await connection.execute("SELECT 2")

        files = open_files()
        async for struck in sweep(operation):
            await is_sound(connection, watcher, struck)
            outcomes.add(await watcher.count("marks", struck.at))
            assert open_files() == files, struck
    assert outcomes == {0, 1}


async def test_a_cancelled_statement_has_no_effect(empty_postgres: str, watcher: Watcher) -> None:
    """Cancelled at each point of ever longer statements: the row is there exactly if Cancelled was not raised."""
    seen = set()
    async with open_connection(empty_postgres) as connection:
        for number in range(60):
            done = False
            with trio.move_on_after(0.002):
                await connection.execute(
                    "INSERT INTO marks SELECT %s FROM pg_sleep(%s)", [number, number * 0.0001]
                )
                done = True
            assert await watcher.count("marks", number) == done
            seen.add(done)
    assert seen == {True, False}


async def test_a_transaction_cancelled_anywhere(empty_postgres: str, watcher: Watcher) -> None:
    """All of it happened or nothing, and whether it did is told by how the block ended."""
    broken_off = finished = 0
    async with open_connection(empty_postgres) as connection:
        committed = False

        async def operation(number: int) -> None:
            nonlocal committed
            committed = False
            async with connection.transaction():
                await connection.execute("INSERT INTO marks VALUES (%s)", [number])
                async with connection.transaction():
                    await connection.execute("INSERT INTO marks SELECT %s FROM pg_sleep(0.005)", [number])
                await connection.execute("INSERT INTO marks VALUES (%s)", [number])
            committed = True

        files = open_files()
        async for struck in sweep(operation):
            await is_sound(connection, watcher, struck)
            assert await watcher.count("marks", struck.at) == (3 if committed else 0), struck
            assert open_files() == files, struck
            broken_off += not committed
            finished += committed
    assert broken_off >= 5
    assert finished == 1, "the commit itself is not broken off"


async def test_connecting_cancelled_anywhere(empty_postgres: str, watcher: Watcher) -> None:
    """No socket is left here, and no session there."""
    files = open_files()
    count = 0

    async def operation(_number: int) -> None:
        async with open_connection(empty_postgres) as connection:
            await connection.execute("SELECT 1")

    async for struck in sweep(operation):
        assert open_files() == files, struck
        await watcher.until_states([])
        count += 1
    assert count >= 2


async def test_connecting_by_name_cancelled_anywhere() -> None:
    """Also while the name is being looked up, and while a server that never answers is waited for."""
    files = open_files()
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        port = silent.getsockname()[1]
        seen = 0
        scope = trio.CancelScope()
        while True:
            scope = trio.CancelScope(deadline=trio.current_time() + 1)
            instrument = StrikeAt(trio.lowlevel.current_task(), scope, seen)
            trio.lowlevel.add_instrument(instrument)
            with scope:
                await Connection.connect(f"host=localhost port={port} dbname=x user=x sslmode=disable")
            trio.lowlevel.remove_instrument(instrument)
            assert scope.cancelled_caught
            if not instrument.struck:
                break
            seen += 1
    assert seen >= 2
    # Looking up a name leaves its thread behind for a moment.
    with trio.fail_after(5):
        while open_files() > files:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_notifications_cancelled_anywhere(empty_postgres: str, watcher: Watcher) -> None:
    """Not one is lost, whenever the listener is cancelled."""
    got: list[str] = []
    sent: list[str] = []
    async with open_connection(empty_postgres) as connection:
        await connection.execute("LISTEN bell")

        async def operation(number: int) -> None:
            for part in range(3):
                sent.append(f"{number}.{part}")
                with trio.CancelScope(shield=True):
                    await watcher.connection.execute("SELECT pg_notify('bell', %s)", [sent[-1]])
                got.append((await connection.notification()).payload)

        async for struck in sweep(operation):
            await is_sound(connection, watcher, struck)
        with trio.move_on_after(0.2):
            while True:
                got.append((await connection.notification()).payload)
    assert got == sent


async def test_a_pool_cancelled_anywhere(empty_postgres: str, watcher: Watcher) -> None:
    """A caller cancelled at any point, in the queue as well, leaves the pool whole."""
    broken_off = 0
    async with open_pool(empty_postgres, min_size=0, max_size=1) as pool:

        async def operation(number: int) -> None:
            async with pool.connection() as connection, connection.transaction():
                await connection.execute("INSERT INTO marks VALUES (%s)", [number])

        async def occupy(task_status: trio.TaskStatus[None]) -> None:
            async with pool.connection() as connection:
                task_status.started()
                await connection.execute("SELECT pg_sleep(0.005)")

        async def queued(number: int) -> None:
            with trio.CancelScope(shield=True) as hidden:
                async with trio.open_nursery() as nursery:
                    await nursery.start(occupy)
                    hidden.shield = False
                    await operation(number)

        for steps in (operation, queued):
            async for struck in sweep(steps):
                assert (pool._free.value, pool._free.statistics().tasks_waiting) == (1, 0), struck
                with trio.fail_after(5):
                    async with pool.connection() as connection:
                        await is_sound(connection, watcher, struck)
                broken_off += not struck.finished
        files = open_files()
        assert len(pool._idle) == 1
    assert broken_off >= 7
    assert open_files() == files - 1


async def test_a_statement_cancelled_inside_a_transaction_spoils_it(empty_postgres: str) -> None:
    """INERROR, as the server has it; a savepoint around the statement saves the rest."""
    async with open_connection(empty_postgres) as connection:

        async def go_on_regardless() -> None:
            async with connection.transaction():
                with trio.move_on_after(0.05) as scope:
                    await connection.execute("SELECT pg_sleep(10)")
                assert scope.cancelled_caught
                assert connection.info.transaction_status == TransactionStatus.INERROR

        with pytest.raises(psycopg.errors.InFailedSqlTransaction, match="rolled back, not committed"):
            await go_on_regardless()
        async with connection.transaction():
            with trio.move_on_after(0.05) as scope:
                async with connection.transaction():
                    await connection.execute("SELECT pg_sleep(10)")
            assert scope.cancelled_caught
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_the_statement_after_the_one_that_was_cancelled_is_cancelled_too(empty_postgres: str) -> None:
    """Without autocommit a statement is two, BEGIN and itself: a cancel in the first stops the second."""
    async with open_connection(empty_postgres) as connection:
        await connection.set_autocommit(False)
        for after_ms in range(0, 20, 2):
            started = trio.current_time()
            with trio.move_on_after(after_ms / 10_000) as scope:
                await connection.execute("SELECT pg_sleep(10)")
            assert scope.cancelled_caught
            assert trio.current_time() - started < 2
            await connection.rollback()


@pytest.mark.parametrize("what", ["statement", "commit", "rollback"])
async def test_a_server_that_does_not_answer_loses_the_connection(empty_postgres: str, what: str) -> None:
    """Within the bound, closed and no longer in doubt; whoever waits gets Cancelled."""

    async def misuse(connection: Connection[Any], hang: Callable[[], None]) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO marks VALUES (1)")
            hang()
            if what == "statement":
                await connection.execute("SELECT 1")
            elif what == "rollback":
                await trio.sleep_forever()

    async with open_watcher(empty_postgres), open_connection(empty_postgres) as connection:
        connection.clean_up_s = 0.2
        with ExitStack() as stack, trio.fail_after(5), trio.move_on_after(0.1) as scope:
            await misuse(connection, lambda: stack.enter_context(frozen(connection)))
        assert scope.cancelled_caught
        assert connection.closed
        assert connection.broken


async def test_a_commit_under_way_is_waited_for(empty_postgres: str, watcher: Watcher) -> None:
    """A cancel that comes while the server commits is delivered when the outcome is known."""
    await watcher.connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON marks DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    async with open_connection(empty_postgres) as connection:
        with trio.move_on_after(0.1) as scope:
            async with connection.transaction() as transaction:
                await connection.execute("INSERT INTO marks VALUES (7)")
            assert transaction.status is transaction.Status.COMMITTED
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert await watcher.count("marks", 7) == 1


async def test_a_commit_without_an_answer_is_said_to_have_failed(empty_postgres: str) -> None:
    """The outcome is the server's secret: the connection is closed, and the transaction FAILED."""
    async with open_connection(empty_postgres) as connection:
        connection.clean_up_s = 0.2
        with ExitStack() as stack, trio.move_on_after(0.1) as scope:
            async with connection.transaction() as transaction:
                await connection.execute("CREATE TABLE t ()")
                stack.enter_context(frozen(connection))
        assert scope.cancelled_caught
        assert connection.broken
        assert transaction.status is transaction.Status.FAILED


def test_ctrl_c_stops_a_statement_on_the_server_too(empty_postgres: str) -> None:
    """KeyboardInterrupt comes out of it as such; the connection can be used, and nothing goes on running."""

    @trio.lowlevel.enable_ki_protection
    async def press() -> None:
        await trio.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with open_watcher(empty_postgres) as watcher, open_connection(empty_postgres) as connection:
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(press)
                    with pytest.raises(KeyboardInterrupt):
                        await connection.execute("SELECT pg_sleep(10)")
                assert await watcher.states() == ["idle"]
                assert await (await connection.execute("SELECT 1")).fetchone() == (1,)

    trio.run(main)

"""What psycopg promises of an ``AsyncConnection``, kept on Trio, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import psycopg
import pytest
import trio
from pg_servers import Watcher, open_watcher
from psycopg.abc import PQGen
from psycopg.copy import AsyncQueuedLibpqWriter
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from agent.store.pg import Connection, Cursor, open_connection, waiting

pytestmark = pytest.mark.sockets

TEXTS = {
    "german": "Grüße aus Köln, 5 € für „Käse“",
    "hebrew": "שלום, קבעתי תור ליום שלישי בשעה 10:30",
    "arabic": "مرحبا، أريد حجز موعد",
    "mixed directions": "call \u2067דנה\u2069 at 030-123 \u200f\u202b!\u202c",
    "combining": "e\u0301a\u0308 क्षि ทั้งหมด",
    "emoji": "👩🏽‍⚕️ 🇮🇱 \U0010ffff",
    "awkward": "tab\tline\nreturn\r\\N 'quote' \"double\" \\. %s {} \u0001\u007f\ufeff\u2028",
}


@pytest.fixture
async def connection(empty_postgres: str) -> AsyncIterator[Connection[Any]]:
    async with open_connection(empty_postgres) as connected:
        with trio.fail_after(20):
            yield connected


@pytest.fixture
async def watcher(empty_postgres: str) -> AsyncIterator[Watcher]:
    async with open_watcher(empty_postgres) as watching:
        yield watching


async def ask(connection: Connection[Any], sql: str, *params: Any) -> Any:
    """The only value of the only row."""
    row = await (await connection.execute(sql, params)).fetchone()
    assert row is not None
    return row[0]


# Text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_text_of_every_direction_comes_back_as_it_went(connection: Connection[Any], text: str) -> None:
    await connection.execute("CREATE TABLE t (x text)")
    await connection.execute("INSERT INTO t VALUES (%s)", [text])
    cursor = connection.cursor()
    async with cursor.copy("COPY t FROM STDIN") as copy:
        await copy.write_row((text,))
    async with cursor.copy("COPY t (x) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(["text"])
        await copy.write_row((text,))
    assert [row[0] async for row in Cursor(connection).stream("SELECT x FROM t", binary=True)] == [text] * 3
    async with cursor.copy("COPY t TO STDOUT") as copy:
        assert [row async for row in copy.rows()] == [(text,)] * 3
    await connection.execute("LISTEN words")
    await connection.execute("SELECT pg_notify('words', %s)", [text])
    assert (await anext(connection.notifies())).payload == text


async def test_answers_and_parameters_larger_than_any_buffer(connection: Connection[Any]) -> None:
    """Writing waits for the server to read, and reads what it says meanwhile."""
    much = "é" * 8_000_000
    assert await ask(connection, "SELECT %s::text", much) == much
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::text", [much[:500_000]]) for _ in range(20)]
    assert {len((await cursor.fetchone() or ("",))[0]) for cursor in cursors} == {500_000}


# Transactions


async def in_transaction(connection: Connection[Any], *statements: str) -> None:
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)


async def test_transactions_nest(connection: Connection[Any]) -> None:
    await connection.execute("CREATE TABLE t (x int)")
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await in_transaction(connection, "INSERT INTO t VALUES (2)", "SELECT 1/0")
        async with connection.transaction() as inner:
            await connection.execute("INSERT INTO t VALUES (3)")
            raise psycopg.Rollback(inner)
        async with connection.transaction(force_rollback=True):
            await connection.execute("INSERT INTO t VALUES (4)")
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (5)")
    assert await (await connection.execute("SELECT x FROM t ORDER BY x")).fetchall() == [(1,), (5,)]


async def test_a_failed_statement_is_not_committed_over(connection: Connection[Any]) -> None:
    """A block that swallows the failure is told that nothing was committed."""
    await connection.execute("CREATE TABLE t (x int)")

    async def swallow() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1/0")

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await swallow()
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert await ask(connection, "SELECT count(*) FROM t") == 0


async def test_a_commit_that_fails_says_so(connection: Connection[Any]) -> None:
    """A deferred constraint speaks at the commit."""
    await connection.execute("CREATE TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with connection.transaction() as transaction:
            await connection.execute("INSERT INTO t VALUES (1), (1)")
    assert transaction.status is transaction.Status.FAILED
    assert await ask(connection, "SELECT count(*) FROM t") == 0


async def test_without_autocommit_a_block_commits_and_an_exception_does_not(empty_postgres: str) -> None:
    async with open_connection(empty_postgres, autocommit=False) as first:
        await first.execute("CREATE TABLE t (x int)")

    async def fail() -> None:
        async with open_connection(empty_postgres, autocommit=False) as second:
            await second.execute("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with open_connection(empty_postgres) as third:
        assert await ask(third, "SELECT count(*) FROM t") == 0


async def test_the_servers_own_time_limit_is_an_error_and_no_cancel(connection: Connection[Any]) -> None:
    await connection.execute("SET statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        await connection.execute("SELECT pg_sleep(10)")
    assert await ask(connection, "SELECT 1") == 1


async def test_another_task_can_cancel_a_statement(connection: Connection[Any]) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _cancel() -> None:
            await trio.sleep(0.05)
            await connection.cancel_safe()

        with pytest.raises(psycopg.errors.QueryCanceled):
            await connection.execute("SELECT pg_sleep(10)")
    assert await ask(connection, "SELECT 1") == 1


async def test_rows_are_made_as_asked_for_and_statements_are_prepared(empty_postgres: str) -> None:
    asked: Any = open_connection(empty_postgres, row_factory=dict_row, prepare_threshold=1)
    async with asked as connection:
        for number in range(4):
            cursor = await connection.execute("SELECT %s::int AS n", [number])
            assert await cursor.fetchall() == [{"n": number}]
        cursor = await connection.execute("SELECT count(*) AS n FROM pg_prepared_statements")
        assert await cursor.fetchone() == {"n": 1}


# Pipelines


async def test_a_pipeline_gives_each_statement_its_result(connection: Connection[Any]) -> None:
    async with connection.pipeline() as pipeline:
        cursors = [await connection.execute("SELECT %s::int", [number]) for number in range(100)]
        await pipeline.sync()
        assert await cursors[7].fetchone() == (7,)
    assert [await cursor.fetchone() for cursor in cursors[8:]] == [(number,) for number in range(8, 100)]
    cursor = connection.cursor()
    await cursor.executemany("SELECT %s::int", [(number,) for number in range(50)], returning=True)
    assert [await each.fetchone() async for each in cursor.results()] == [(number,) for number in range(50)]


async def test_an_error_in_a_pipeline_stops_what_follows_it(connection: Connection[Any]) -> None:

    async def fail() -> None:
        async with connection.pipeline():
            await connection.execute("SELECT 1/0")
            await connection.execute("CREATE TABLE never ()")

    with pytest.raises(psycopg.errors.DivisionByZero):
        await fail()
    assert await ask(connection, "SELECT to_regclass('never')") is None


async def test_a_transaction_in_a_pipeline(connection: Connection[Any]) -> None:
    await connection.execute("CREATE TABLE t (x int)")
    async with connection.pipeline():
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await in_transaction(connection, "INSERT INTO t VALUES (2)", "SELECT 1/0", "SELECT 2")
    assert await ask(connection, "SELECT sum(x) FROM t") == 1


# COPY, streams, cursors


async def test_copying_gives_way_to_other_tasks(
    connection: Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it hardly ever has to wait: the server takes and gives all at once."""
    monkeypatch.setattr(waiting, "BUSY_S", 0.0)
    await connection.execute("CREATE TABLE t (x int)")
    ticks = 0
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _tick() -> None:
            nonlocal ticks
            while True:
                await trio.lowlevel.checkpoint()
                ticks += 1

        cursor = connection.cursor()
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for number in range(50_000):
                await copy.write_row((number,))
        writing, ticks = ticks, 0
        async with cursor.copy("COPY t TO STDOUT") as copy:
            assert len([row async for row in copy]) == 50_000
        nursery.cancel_scope.cancel()
    assert cursor.rowcount == 50_000
    assert writing > 5
    assert ticks > 5


async def test_operations_that_never_wait_give_way_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As writes of a COPY do whose server takes all at once; a cancel in between leaves none half done."""
    monkeypatch.setattr(waiting, "BUSY_S", 0.0)
    begun = 0

    def at_once() -> PQGen[None]:
        nonlocal begun
        begun += 1
        yield from ()

    pace, ended = waiting.Pace(), 0
    with trio.CancelScope() as scope:
        for _ in range(100):
            await waiting.drive(at_once(), -1, pace)
            ended += 1
            if ended == 10:
                scope.cancel()
    assert (begun, ended) == (10, 10)


async def test_bad_data_ends_a_copy(connection: Connection[Any]) -> None:
    await connection.execute("CREATE TABLE t (x int)")

    async def copy_in(line: str, error: Exception | None) -> None:
        async with connection.cursor().copy("COPY t FROM STDIN") as copy:
            await copy.write(line)
            if error:
                raise error

    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        await copy_in("not a number\n", None)
    with pytest.raises(ZeroDivisionError):
        await copy_in("1\n", ZeroDivisionError())
    assert await ask(connection, "SELECT count(*) FROM t") == 0


async def test_reading_may_stop_early(connection: Connection[Any]) -> None:
    """What is not read is thrown away, and the connection goes on."""
    async with connection.cursor().copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT") as copy:
        async for _ in copy:
            break
    assert await ask(connection, "SELECT 1") == 1
    async with aclosing(Cursor(connection).stream("SELECT generate_series(1, 1000000)", size=100)) as rows:
        assert await anext(rows) == (1,)
    assert await ask(connection, "SELECT 2") == 2


async def test_a_stream_that_is_dropped_takes_the_connection_with_it(empty_postgres: str) -> None:
    async with open_connection(empty_postgres) as connection:
        rows = Cursor(connection).stream("SELECT generate_series(1, 1000000)")
        await anext(rows)
        kept = [rows]
        del rows
        with pytest.warns(ResourceWarning, match="without being closed"):
            kept.clear()
        assert connection.broken
        assert not connection.lock.locked()


async def test_a_stream_that_fails_leaves_the_connection_usable(connection: Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        assert [row async for row in Cursor(connection).stream("SELECT 1/(3-n) FROM generate_series(1, 9) n")]
    with pytest.raises(psycopg.ProgrammingError, match="didn't produce a result"):
        await anext(Cursor(connection).stream("CREATE TABLE t ()"))
    async with connection.pipeline():
        with pytest.raises(psycopg.ProgrammingError, match="pipeline"):
            await anext(Cursor(connection).stream("SELECT 1"))
    assert await ask(connection, "SELECT 1") == 1


async def test_server_side_cursors(connection: Connection[Any]) -> None:
    async with connection.transaction(), connection.cursor("reader", scrollable=True) as cursor:
        await cursor.execute("SELECT generate_series(1, 1000)")
        assert await cursor.fetchmany(2) == [(1,), (2,)]
        await cursor.scroll(500, mode="absolute")
        assert await cursor.fetchone() == (501,)
    assert await ask(connection, "SELECT count(*) FROM pg_cursors") == 0


async def test_the_writer_with_its_own_task_is_refused(connection: Connection[Any]) -> None:
    cursor = connection.cursor()
    with pytest.raises(psycopg.NotSupportedError, match="Trio"):
        async with cursor.copy("COPY (SELECT 1) TO STDOUT", writer=AsyncQueuedLibpqWriter(cursor)):
            pass


# Notifications


async def test_a_listener_may_stop_and_go_on(connection: Connection[Any], watcher: Watcher) -> None:
    """What comes while nobody listens is kept: during other statements, and between them."""
    await connection.execute("LISTEN bell")
    for word in ("one", "two"):
        await watcher.connection.execute("SELECT pg_notify('bell', %s)", [word])
    await connection.execute("SELECT 1")
    await watcher.connection.execute("NOTIFY bell, 'three'")
    got = []
    async for notify in connection.notifies():
        got.append(notify.payload)
        await ask(connection, "SELECT 1")
        if len(got) == 2:
            break
    with trio.move_on_after(0.05):
        async for notify in connection.notifies():
            got.append(notify.payload)  # noqa: PERF401 - what is got before the cancel counts
    assert got == ["one", "two", "three"]
    await watcher.connection.execute("NOTIFY bell, 'four'; NOTIFY bell, 'five'; NOTIFY bell, 'six'")
    assert [notify.payload async for notify in connection.notifies(stop_after=2)] == ["four", "five"]
    assert [notify.payload async for notify in connection.notifies(timeout=0)] == ["six"]
    assert [notify async for notify in connection.notifies(timeout=0.05)] == []


async def test_a_listener_learns_that_the_server_has_gone(connection: Connection[Any], watcher: Watcher) -> None:
    await connection.execute("LISTEN bell")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            watcher.connection.execute, "SELECT pg_terminate_backend(%s)", [connection.info.backend_pid]
        )
        with pytest.raises(psycopg.OperationalError):
            await anext(connection.notifies())
    assert connection.broken


# Sharing, closing


async def test_tasks_take_turns_on_a_connection(connection: Connection[Any]) -> None:
    got: list[int] = []

    async def use(number: int) -> None:
        got.append(await ask(connection, "SELECT %s::int FROM pg_sleep(0.001)", number))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(use, number)
            await trio.testing.wait_all_tasks_blocked(0)
    assert sorted(got) == list(range(20))


async def test_a_statement_inside_a_copy_is_an_error_and_no_deadlock(connection: Connection[Any]) -> None:
    async with connection.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
        with pytest.raises(RuntimeError, match="re-acquire"):
            await connection.execute("SELECT 1")
        assert await copy.read()


async def test_closing_wakes_who_waits(connection: Connection[Any], watcher: Watcher) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _close() -> None:
            await trio.sleep(0.05)
            await connection.close()

        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT pg_sleep(0.2)")
    assert connection.closed
    assert not connection.broken
    with pytest.raises(psycopg.OperationalError, match="closed"):
        await connection.execute("SELECT 1")
    await connection.close()
    await watcher.until_states([])


async def test_psycopgs_own_time_out_drops_the_wait(connection: Connection[Any]) -> None:
    """``wait(timeout=)`` is part of the interface; what it leaves is the caller's affair."""
    with pytest.raises(psycopg.errors._WaitTimeout):
        await connection.wait(connection._exec_command(b"SELECT pg_sleep(0.1)"), timeout=0.01)
    await connection.close()


async def test_cancelling_a_closed_connection_does_nothing(connection: Connection[Any]) -> None:
    await connection.cancel_safe()
    await connection.close()
    await connection.cancel_safe()


async def test_a_transaction_whose_connection_is_lost_has_failed(
    connection: Connection[Any], watcher: Watcher
) -> None:
    async def lose() -> None:
        async with connection.transaction() as transaction:
            seen.append(transaction)
            await watcher.connection.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
            await connection.execute("SELECT 1")

    seen: list[psycopg.AsyncTransaction] = []
    with pytest.raises(psycopg.OperationalError):
        await lose()
    assert connection.broken
    assert seen[0].status is seen[0].Status.FAILED


async def test_adapters_and_cursor_classes_can_be_given(empty_postgres: str) -> None:
    class Reader(Cursor[Any]):
        """A cursor of one's own."""

    async with (
        open_connection(empty_postgres) as model,
        open_connection(empty_postgres, context=model, cursor_factory=Reader) as connection,
    ):
        assert isinstance(await connection.execute("SELECT 1"), Reader)

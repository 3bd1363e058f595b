"""What psycopg promises of an ``AsyncConnection``, kept on Trio, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import trio
from pg_servers import Watcher, open_watcher
from psycopg.pq import TransactionStatus

from agent.store.pg import Connection, open_connection

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
    assert await ask(connection, "SELECT x FROM t") == text
    assert await (await connection.execute("SELECT x FROM t", binary=True)).fetchall() == [(text,)]
    await connection.execute("LISTEN words")
    await connection.execute("SELECT pg_notify('words', %s)", [text])
    assert (await connection.notification()).payload == text


async def test_answers_and_parameters_larger_than_any_buffer(connection: Connection[Any]) -> None:
    """Writing waits for the server to read, and reads what it says meanwhile."""
    much = "é" * 8_000_000
    assert await ask(connection, "SELECT %s::text", much) == much


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


async def test_the_servers_own_time_limit_is_an_error_and_no_cancel(connection: Connection[Any]) -> None:
    await connection.execute("SET statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        await connection.execute("SELECT pg_sleep(10)")
    assert await ask(connection, "SELECT 1") == 1


# Notifications


async def test_a_listener_may_stop_and_go_on(connection: Connection[Any], watcher: Watcher) -> None:
    """What comes while nobody listens is kept: during other statements, and between them."""
    await connection.execute("LISTEN bell")
    for word in ("one", "two"):
        await watcher.connection.execute("SELECT pg_notify('bell', %s)", [word])
    await connection.execute("SELECT 1")
    await watcher.connection.execute("NOTIFY bell, 'three'")
    got = []
    for _ in range(2):
        got.append((await connection.notification()).payload)
        await ask(connection, "SELECT 1")
    with trio.move_on_after(0.05):
        while True:
            got.append((await connection.notification()).payload)
    assert got == ["one", "two", "three"]
    await watcher.connection.execute("NOTIFY bell, 'four'; NOTIFY bell, 'five'")
    assert [(await connection.notification()).payload for _ in range(2)] == ["four", "five"]


async def test_a_listener_learns_that_the_server_has_gone(connection: Connection[Any], watcher: Watcher) -> None:
    await connection.execute("LISTEN bell")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            watcher.connection.execute, "SELECT pg_terminate_backend(%s)", [connection.info.backend_pid]
        )
        with pytest.raises(psycopg.OperationalError):
            await connection.notification()
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

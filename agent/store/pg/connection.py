"""One connection to Postgres, on Trio: psycopg's ``AsyncConnection`` with another way of waiting."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, cast

import psycopg
import trio
from psycopg import generators
from psycopg.abc import ConnParam, Params, QueryNoTemplate
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn
from psycopg.rows import AsyncRowFactory, Row, TupleRow, tuple_row
from psycopg.waiting import Ready
from typing_extensions import TypeVar

from agent.store.pg.cancelling import CancellableConnection
from agent.store.pg.connecting import connect_first
from agent.store.pg.transaction import Transaction
from agent.store.pg.waiting import is_readable

T = TypeVar("T", default=Any)
_TUPLES = cast("AsyncRowFactory[Any]", tuple_row)


class Connection(CancellableConnection[Row]):
    """A connection to Postgres for one task at a time; others wait for its ``lock``, a ``trio.Lock``.

    As psycopg documents it for ``AsyncConnection``: cursors, prepared statements, ``transaction()`` (nested too).
    Each statement commits by itself (``autocommit``) unless it is in a transaction. Time-outs are the caller's
    cancel scopes.

    **What a cancel does.** A statement that is cancelled while it runs is cancelled on the server, and its end is
    awaited, shielded for at most ``clean_up_s`` seconds. Then one of three things is true, never anything else:

    - The server broke the statement off, or it failed: ``Cancelled`` is raised, the statement has no effect, and
      the connection can be used again (in a transaction only to roll back: its status is INERROR).
    - The statement was faster: it returns what it returns, and the cancel is delivered at the next checkpoint.
    - The server did neither in time, or could not be reached: the connection is closed, ``Cancelled`` raised.

    So after ``Cancelled`` an open connection means "it did not happen". Commits: see ``Transaction``.

    Not supported, because nobody needs them here: COPY, ``cursor.stream()``, server-side cursors, pipelines,
    ``notifies()`` (use :meth:`notification`) and ``cancel_safe()`` (cancel the task). With a libpq older than 17
    a cancel always closes the connection.
    """

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[Row] = _TUPLES) -> None:
        super().__init__(pgconn, row_factory)

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: ConnParam) -> Self:  # type: ignore[override]  # likewise
        """Connect to the first server that can be reached.

        Args:
            conninfo: a libpq connection string or URI. Several hosts are tried in order, each for
                ``connect_timeout`` seconds; names are resolved in a thread. What it leaves out comes from the
                environment, as for libpq.
            kwargs: parameters overriding those of ``conninfo``.

        A cancel closes the half-made connection and its socket.

        Raises:
            psycopg.OperationalError: no server could be reached, or each refused; one line for each.
            psycopg.ProgrammingError: the connection string makes no sense.
        """
        connection = await connect_first(conninfo_to_dict(conninfo, **kwargs), cls._connect_gen)
        connection._autocommit = True  # noqa: SLF001 - of this very class; the setter would wait
        return connection

    async def fetch_all(
        self, query: QueryNoTemplate, params: Params | None = None, rows: AsyncRowFactory[T] = _TUPLES
    ) -> list[T]:
        """Execute ``query``; all it returns, each as ``rows`` makes it (``psycopg.rows``)."""
        async with self.cursor(row_factory=rows) as cursor:
            return await (await cursor.execute(query, params)).fetchall()

    async def fetch_one(
        self, query: QueryNoTemplate, params: Params | None = None, rows: AsyncRowFactory[T] = _TUPLES
    ) -> T | None:
        """Execute ``query``; the first row it returns, None if it returns none."""
        async with self.cursor(row_factory=rows) as cursor:
            return await (await cursor.execute(query, params)).fetchone()

    async def answers(self, within_s: float) -> bool:
        """Whether the server answers a question in time; if it does not, the connection is in doubt: close it."""
        with trio.move_on_after(within_s), suppress(psycopg.Error):
            async with self.lock:
                await self.drive(self._exec_command(b"SELECT 1"))
                return True
        return False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:  # type: ignore[override]  # psycopg's has options
        """A transaction, or a savepoint when inside one; see :class:`agent.store.pg.Transaction`."""
        async with Transaction(self) as transaction:
            yield transaction

    async def notification(self) -> psycopg.Notify:
        """Wait for the next notification on the channels this connection has said LISTEN to.

        A cancel loses none, and what comes while other statements run is kept. While it waits it holds the
        connection's lock: other tasks need a connection of their own. Raises ``psycopg.OperationalError`` when
        the connection is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._notifies_backlog:
            async with self.lock:
                if not self._notifies_backlog:
                    await self.wait(generators.notifies(self.pgconn))
        return self._notifies_backlog.popleft()

    def take_arrived(self) -> None:
        """Take in what the server sent unasked, without waiting: notifications, notices, a farewell.

        Raises:
            psycopg.OperationalError: it was a farewell, or the connection is lost.
        """
        if not is_readable(self.pgconn.socket):
            return
        farewells: list[str] = []

        def hear(said: psycopg.errors.Diagnostic) -> None:
            # Said before the socket is closed, perhaps some time before.
            if said.severity_nonlocalized in ("FATAL", "PANIC") or str(said.sqlstate).startswith("57P"):
                farewells.append(str(said.message_primary))

        self.add_notice_handler(hear)
        try:
            while is_readable(self.pgconn.socket):
                gen = generators.notifies(self.pgconn)
                next(gen)
                with suppress(StopIteration):
                    gen.send(Ready.R)
        finally:
            self.remove_notice_handler(hear)
        if farewells:
            raise psycopg.OperationalError(f"the server is about to close the connection: {farewells[0]}")


@asynccontextmanager
async def open_connection(conninfo: str = "", **kwargs: ConnParam) -> AsyncIterator[Connection[TupleRow]]:
    """A connection for the length of a block, closed at its end however it ends.

    Arguments and errors as for :meth:`Connection.connect`.
    """
    connection: Connection[TupleRow] = await Connection.connect(conninfo, **kwargs)
    try:
        yield connection
    finally:
        connection.close_now()

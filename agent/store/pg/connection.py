"""One connection to Postgres, on Trio: psycopg's ``AsyncConnection`` with another way of waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, cast

import psycopg
import trio
from psycopg import generators
from psycopg.abc import AdaptContext, ConnParam
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn
from psycopg.rows import AsyncRowFactory, Row, TupleRow, tuple_row
from psycopg.waiting import Ready

from agent.store.pg.cancelling import CancellableConnection
from agent.store.pg.connecting import connect_first
from agent.store.pg.cursors import Cursor, ServerCursor
from agent.store.pg.notifications import Notifications
from agent.store.pg.transaction import Pipeline, Transaction
from agent.store.pg.waiting import is_readable

_TUPLES = cast("AsyncRowFactory[Any]", tuple_row)


class Connection(CancellableConnection[Row]):
    """A connection to Postgres for one task at a time; others wait for its ``lock``, a ``trio.Lock``.

    Everything is as psycopg documents it for ``AsyncConnection``: cursors, ``transaction()`` (nested too),
    ``pipeline()``, ``cursor.copy()``, ``cursor.stream()``, server-side cursors, prepared statements,
    ``notifies()``, two-phase commit. Time-outs are the caller's cancel scopes.

    **What a cancel does.** A statement that is cancelled while it runs is cancelled on the server, and its end is
    awaited, shielded for at most ``clean_up_s`` seconds. Then one of three things is true, never anything else:

    - The server broke the statement off, or it failed: ``Cancelled`` is raised, the statement has no effect, and
      the connection can be used again (in a transaction only to roll back: its status is INERROR).
    - The statement was faster: it returns what it returns, and the cancel is delivered at the next checkpoint.
    - The server did neither in time, or could not be reached: the connection is closed, ``Cancelled`` raised.

    So after ``Cancelled`` an open connection means "it did not happen". Commits: see ``Transaction``.

    Not supported: ``AsyncQueuedLibpqWriter`` for COPY, and psycopg's own classes as ``cursor_factory``
    (derive from :class:`Cursor`). With a libpq older than 17 a cancel always closes the connection.
    """

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[Row] = _TUPLES) -> None:
        super().__init__(pgconn, row_factory)
        self.cursor_factory = Cursor
        self.server_cursor_factory = ServerCursor

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Any] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Any]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to the first server that can be reached.

        Args:
            conninfo: a libpq connection string or URI. Several hosts are tried in order, each for
                ``connect_timeout`` seconds; names are resolved in a thread. What it leaves out comes from the
                environment, as for libpq.
            autocommit: off as in psycopg, where the first statement begins a transaction. It is on in
                :func:`open_connection` and in pools.
            prepare_threshold: after so many executions a statement is prepared; None: never.
            context: whose adapters to use.
            row_factory: what rows are made into, such as ``psycopg.rows.dict_row``.
            cursor_factory: a subclass of :class:`Cursor`.
            kwargs: parameters overriding those of ``conninfo``.

        A cancel closes the half-made connection and its socket.

        Raises:
            psycopg.OperationalError: no server could be reached, or each refused; one line for each.
            psycopg.ProgrammingError: the connection string makes no sense.
        """
        connection = await connect_first(conninfo_to_dict(conninfo, **kwargs), cls._connect_gen)
        connection._autocommit = autocommit  # noqa: SLF001 - of this very class; the setter would wait
        connection.prepare_threshold = prepare_threshold
        if row_factory:
            connection.row_factory = row_factory
        if cursor_factory:
            connection.cursor_factory = cursor_factory
        if context:
            connection._adapters = AdaptersMap(context.adapters)  # noqa: SLF001 - likewise
        return connection

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Commit what is not committed if the block ended in order; close in any case."""
        try:
            if exc_val is None and not self.closed:
                await self.commit()  # noqa: ASYNC102 - an orderly end may be cancelled; a commit sees itself through
        finally:
            self.close_now()

    async def answers(self, within_s: float) -> bool:
        """Whether the server answers a question in time; if it does not, the connection is in doubt: close it."""
        with trio.move_on_after(within_s), suppress(psycopg.Error):
            async with self.lock:
                await self.drive(self._exec_command(b"SELECT 1"))
                return True
        return False

    async def commit(self) -> None:
        """Commit; a cancel that comes when it has been sent waits until the outcome is known (bounded)."""
        async with self.lock:
            await self.see_through(self._commit_gen())

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - psycopg's signature
    ) -> AsyncIterator[Transaction]:
        """A transaction, or a savepoint when inside one; see :class:`agent.store.pg.Transaction`."""
        transaction = Transaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            async with self.pipeline(), transaction, self.pipeline():
                yield transaction
        else:
            async with transaction:
                yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """A block in which statements are sent without waiting for results; see :class:`Pipeline`."""
        async with self.lock:
            self._check_connection_ok()
            pipeline = cast("Pipeline | None", self._pipeline) or Pipeline(self)
            self._pipeline = pipeline
        try:
            async with pipeline:
                yield pipeline
        finally:
            if pipeline.level == 0:
                self._pipeline = None

    @asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncIterator[Pipeline]:
        """What ``executemany`` uses, which holds the lock."""
        self._pipeline = pipeline = Pipeline(self, _no_lock=True)
        try:
            async with pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    # Notifications

    def notifies(  # type: ignore[override]  # psycopg returns a generator, which would have to be closed
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> Notifications:
        """The notifications of the channels this connection has said LISTEN to, as an async iterator.

        Args:
            timeout: end so many seconds from now; without it, iterate inside a cancel scope.
            stop_after: end after so many notifications.

        It can be cancelled, left with ``break`` and begun again: nothing that arrived is lost, and what comes
        while other statements run is kept. While it waits it holds the connection's lock: other tasks need a
        connection of their own. Raises ``psycopg.OperationalError`` when the connection is lost. With handlers
        added by ``add_notify_handler`` notifications go to these instead.
        """
        return Notifications.of(self, timeout, stop_after)

    async def notification(self) -> psycopg.Notify:
        """Wait for the next notification; a cancel loses none. Errors as for :meth:`notifies`."""
        await trio.lowlevel.checkpoint()
        while not self._notifies_backlog:
            async with self.lock:
                if not self._notifies_backlog:
                    await self.wait(generators.notifies(self.pgconn))
        return self._notifies_backlog.popleft()

    def notification_nowait(self) -> psycopg.Notify | None:
        """A notification that has arrived, or None. Errors as for :meth:`notifies`."""
        if not self._notifies_backlog and not self.lock.locked():
            self.take_arrived()
        return self._notifies_backlog.popleft() if self._notifies_backlog else None

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
async def open_connection(
    conninfo: str = "", *, autocommit: bool = True, **kwargs: Any
) -> AsyncIterator[Connection[TupleRow]]:
    """A connection for the length of a block, closed at its end however it ends.

    Unlike with ``Connection.connect``, each statement commits by itself (``autocommit``), and what belongs
    together goes into ``async with connection.transaction()``. Arguments and errors as for
    :meth:`Connection.connect`.
    """
    connection: Connection[TupleRow] = await Connection.connect(conninfo, autocommit=autocommit, **kwargs)
    async with connection:
        yield connection

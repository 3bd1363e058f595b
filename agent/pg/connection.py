"""One connection to Postgres, on Trio: psycopg's ``AsyncConnection`` with another way of waiting."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import psycopg
import trio
from psycopg import generators
from psycopg.abc import AdaptContext, ConnParam, PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import AsyncRowFactory, Row, TupleRow, tuple_row
from psycopg.waiting import Ready

from agent.pg.connecting import connect_first
from agent.pg.cursors import Cursor, ServerCursor
from agent.pg.notifications import Notifications
from agent.pg.transaction import Pipeline, Transaction
from agent.pg.waiting import Pace, drive, drive_connecting, is_readable

RV = TypeVar("RV")

CLEAN_UP_S = 5.0
"""Bound of whatever must still be said to the server after a cancel. psycopg allows the same for its own."""
CANCEL_AGAIN_S = 0.25
"""A statement that goes on after its cancel is cancelled again: the cancel may have hit the one before it."""

_log = logging.getLogger("agent.pg")


class Connection(psycopg.AsyncConnection[Row]):
    """A connection to Postgres for one task at a time; others wait for its ``lock``, a ``trio.Lock``.

    Everything is as psycopg documents it for ``AsyncConnection``: cursors, ``transaction()`` (nested too),
    ``pipeline()``, ``cursor.copy()``, ``cursor.stream()``, server-side cursors, prepared statements, ``notifies()``,
    two-phase commit. Time-outs are the caller's cancel scopes.

    **What a cancel does.** A statement that is cancelled while it runs is cancelled on the server, and its end is
    awaited, shielded for at most ``clean_up_s`` seconds. Then one of three things is true, never anything else:

    - The server broke the statement off, or it failed: ``Cancelled`` is raised, the statement has no effect, and
      the connection can be used again (in a transaction: only to roll back, ``info.transaction_status`` is INERROR).
    - The statement was faster: it returns what it returns, and the cancel is delivered at the next checkpoint.
    - The server did neither in time, or could not be reached: the connection is closed and ``Cancelled`` raised.

    So after ``Cancelled`` an open connection means "it did not happen". Commits: see ``Transaction``.
    ``AsyncQueuedLibpqWriter`` and cursor classes of psycopg's own given as ``cursor_factory`` are not supported for
    COPY and streaming. Needs libpq 17 or later to cancel statements; with an older one, a cancel closes the connection.
    """

    lock: trio.Lock  # type: ignore[assignment]  # psycopg's is another event loop's; the same three methods are used
    clean_up_s: float = CLEAN_UP_S
    """Bound of cleaning up, in seconds; may be set on a class or a connection."""

    def __init__(
        self, pgconn: PGconn, row_factory: AsyncRowFactory[Row] = cast("AsyncRowFactory[Row]", tuple_row)
    ) -> None:
        super().__init__(pgconn, row_factory)
        self.lock = trio.Lock()
        self.cursor_factory = Cursor
        self.server_cursor_factory = ServerCursor
        self.block_cleans_up = False
        """Whether a block around (COPY, streaming) ends the running command itself when it is cancelled."""
        self._pace = Pace()

    @classmethod
    async def connect(  # type: ignore[override]  # psycopg's overloads say the same
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
            conninfo: a libpq connection string or URI. Several hosts are tried in order, each with ``connect_timeout``
                seconds; names are resolved in a thread. What it leaves out comes from the environment, as for libpq.
            autocommit: off as in psycopg, where the first statement begins a transaction; :func:`open_connection`
                and pools have it on.
            prepare_threshold: after so many executions a statement is prepared; None: never.
            context: whose adapters to use.
            row_factory: what rows are made into, such as ``psycopg.rows.dict_row``.
            cursor_factory: a subclass of :class:`agent.pg.cursors.Cursor`.
            kwargs: parameters overriding those of ``conninfo``.

        A cancel closes the half-made connection and its socket.

        Raises:
            psycopg.OperationalError: no server could be reached, or each refused; one line for each.
            psycopg.ProgrammingError: the connection string makes no sense.
        """
        connection = await connect_first(conninfo_to_dict(conninfo, **kwargs), cls._connect_gen)
        connection._autocommit = autocommit  # noqa: SLF001 - it is of this class
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
                await self.commit()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close at once, without waiting; the server rolls back what is not committed.

        A task that waits for the connection gets ``psycopg.OperationalError``.
        """
        self.close_now()

    def close_now(self) -> None:
        """As :meth:`close`, for where one cannot await."""
        if not self.closed:
            self._closed = True
            self._finish()

    async def answers(self, within_s: float) -> bool:
        """Whether the server answers a question in time; if it does not, the connection is in doubt: close it."""
        with trio.move_on_after(within_s), suppress(psycopg.Error):
            async with self.lock:
                await drive(self._exec_command(b"SELECT 1"), self.pgconn.socket, self._pace)
                return True
        return False

    def abandon(self, why: str) -> None:
        """Close a connection whose state is in doubt; ``broken`` is then true."""
        if not self.closed:
            _log.warning("connection closed: %s", why)
            self._finish()

    def _finish(self) -> None:
        trio.lowlevel.notify_closing(self.pgconn.socket)
        self.pgconn.finish()

    # Waiting, the heart of it

    async def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:  # noqa: ASYNC109 - psycopg's signature
        """Run a protocol generator to its end, as the class docstring says about cancels.

        Args:
            gen: a generator of psycopg that works on this connection; the lock is held by the caller.
            interval: not used; Trio delivers interrupts by itself.
            timeout: as psycopg has it, in seconds: the generator is dropped where it is, and its state is the
                caller's affair. Not for statements.

        Raises:
            psycopg.Error: whatever the server, or the loss of it, makes of it.
        """
        if timeout is not None:
            with trio.move_on_after(timeout):
                return await drive(gen, self.pgconn.socket, self._pace)
            raise psycopg.errors._WaitTimeout("wait timeout expired")  # noqa: SLF001 - psycopg's callers look for it
        try:
            return await drive(gen, self.pgconn.socket, self._pace)
        except (trio.Cancelled, KeyboardInterrupt) as interruption:
            if self.block_cleans_up or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            with suppress(psycopg.Error):  # broken off, failed or lost: for the caller it is cancelled
                result = await self.interrupt(gen)
                if isinstance(interruption, trio.Cancelled):
                    return result  # it was faster; the cancel is delivered at the next checkpoint
            raise

    async def interrupt(self, gen: PQGen[RV]) -> RV:
        """Cancel on the server what ``gen`` runs, and run ``gen`` to its end; shielded and bounded.

        Raises:
            psycopg.errors.QueryCanceled: the server broke it off.
            psycopg.OperationalError: the connection was closed, because that could not be known.
            psycopg.Error: it failed by itself.
        """
        cancelled = False
        try:
            with trio.move_on_after(self.clean_up_s, shield=True):
                while True:
                    cancelled = False
                    await self._cancel_on_server()
                    cancelled = True
                    with trio.move_on_after(CANCEL_AGAIN_S):
                        return await drive(gen, self.pgconn.socket, self._pace)
        except psycopg.Error:
            if cancelled:
                raise
        except BaseException:
            self._abandon_in(gen, "interrupted while a statement was being cancelled")
            raise
        why = "a statement could not be cancelled on the server"
        self._abandon_in(gen, why)
        raise psycopg.OperationalError(f"the connection was closed: {why}")

    async def see_through(self, gen: PQGen[RV]) -> RV:
        """Run ``gen``, which must not be broken off (a commit): a cancel is held back until it has ended, bounded.

        Raises:
            psycopg.Error: what ``gen`` raises; a cancel takes its place if there is one.
        """
        try:
            return await drive(gen, self.pgconn.socket, self._pace)
        except (trio.Cancelled, KeyboardInterrupt) as interruption:
            with suppress(psycopg.Error):
                result = await self.clean_up(gen)
                if isinstance(interruption, trio.Cancelled):
                    return result
            raise

    async def clean_up(self, gen: PQGen[RV]) -> RV:
        """Run ``gen`` to its end, shielded for ``clean_up_s`` seconds; then the connection is closed.

        Raises:
            psycopg.OperationalError: the server did not answer in time.
        """
        with trio.move_on_after(self.clean_up_s, shield=True):
            return await drive(gen, self.pgconn.socket, self._pace)
        why = f"the server did not answer within {self.clean_up_s:g} s of a cancel"
        self._abandon_in(gen, why)
        raise psycopg.OperationalError(f"the connection was closed: {why}")

    def _abandon_in(self, gen: PQGen[Any], why: str) -> None:
        self.abandon(why)
        with suppress(psycopg.Error, RuntimeError):  # what it still wants to say, there is nobody to say it to
            gen.close()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - psycopg's signature
        """Cancel what the connection is doing, from another task; returns when the server has taken note.

        Raises:
            psycopg.errors.CancellationTimeout: the server did not within ``timeout`` seconds (0: no limit).
            psycopg.OperationalError: it could not be reached.
        """
        if not self._should_cancel():
            return
        with trio.move_on_after(timeout or math.inf):
            return await self._cancel_on_server()
        raise psycopg.errors.CancellationTimeout("cancellation timeout expired")

    async def _try_cancel(self, *, timeout: float = CLEAN_UP_S) -> None:  # noqa: ASYNC109 - psycopg's signature
        """psycopg's clean-up calls this where a cancel may be pending."""
        with trio.CancelScope(shield=True):
            try:
                await self.cancel_safe(timeout=timeout)
            except psycopg.Error as error:
                _log.warning("could not cancel on the server: %s", error)

    async def _cancel_on_server(self) -> None:
        # Returns when the server has closed the cancelling connection, which is after it has sent the signal:
        # the cancel cannot hit a later statement.
        canceller = self.pgconn.cancel_conn()
        try:
            canceller.start()
            await drive_connecting(generators.cancel(canceller))
        finally:
            canceller.finish()

    # Blocks

    async def commit(self) -> None:
        """Commit; a cancel that comes when it has been sent is held back until the outcome is known (bounded)."""
        async with self.lock:
            await self.see_through(self._commit_gen())

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,  # noqa: FBT001, FBT002 - psycopg's signature
    ) -> AsyncIterator[Transaction]:
        """A transaction, or a savepoint when inside one; see :class:`agent.pg.Transaction`."""
        transaction = Transaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            async with self.pipeline(), transaction, self.pipeline():
                yield transaction
        else:
            async with transaction:
                yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """A block in which statements are sent without waiting for results; see :class:`agent.pg.Pipeline`."""
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

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Notifications:  # type: ignore[override]
        """The notifications of the channels this connection has said LISTEN to, as an async iterator.

        Args:
            timeout: end after so many seconds from now; without it, iterate inside a cancel scope.
            stop_after: end after so many notifications.

        It can be cancelled, left with ``break`` and begun again: nothing that arrived is lost, notifications that
        come while other statements run included. While it waits it holds the connection's lock, so give it a
        connection of its own. Raises ``psycopg.OperationalError`` when the connection is lost.
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
        """A notification that has arrived, or None. Raises ``psycopg.OperationalError`` for a lost connection."""
        if not self._notifies_backlog and not self.lock.locked():
            self.take_arrived()
        return self._notifies_backlog.popleft() if self._notifies_backlog else None

    def take_arrived(self) -> None:
        """Take in what the server sent unasked, without waiting: notifications, notices, a farewell.

        Raises:
            psycopg.OperationalError: it was a farewell, or the connection is lost.
        """
        if is_readable(self.pgconn.socket):
            gen = generators.notifies(self.pgconn)
            next(gen)
            with suppress(StopIteration):
                gen.send(Ready.R)


@asynccontextmanager
async def open_connection(
    conninfo: str = "", *, autocommit: bool = True, **kwargs: Any
) -> AsyncIterator[Connection[TupleRow]]:
    """A connection for the length of a block, closed at its end however it ends.

    Unlike ``Connection.connect`` each statement commits by itself (``autocommit``), and what belongs together goes
    into ``async with connection.transaction()``. Arguments and errors as for :meth:`Connection.connect`.
    """
    connection: Connection[TupleRow] = await Connection.connect(conninfo, autocommit=autocommit, **kwargs)
    async with connection:
        yield connection

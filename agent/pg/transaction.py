"""Blocks whose end must happen whatever happens inside: transactions and pipelines."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
import trio
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from agent.pg.connection import Connection


class Transaction(psycopg.AsyncTransaction):
    """A transaction, or a savepoint inside one; what ``Connection.transaction()`` gives.

    Left in order it commits; left by an exception or a cancel it rolls back, which is shielded and bounded by
    ``agent.pg.CLEAN_UP_S``: a server that does not answer in that time loses the connection.

    A commit that has been sent is not given up. A cancel that arrives before it is sent rolls back and is raised; one
    that arrives while the server commits is held back until the outcome is known (bounded, as above): then the block
    ends normally, and the cancel is delivered at the next checkpoint. So ``Cancelled`` out of this block means "not
    committed", but for one case: the server did not answer the commit in time, the connection is closed, and the
    outcome is known to the server alone. The same is true of ``OperationalError`` when the connection breaks there.
    ``status`` is then ``FAILED``.

    Unlike psycopg's, a block that swallowed the failure of a statement does not end as though it had committed: it
    rolls back and raises ``psycopg.errors.InFailedSqlTransaction``.
    """

    _conn: Connection[Any]

    async def __aenter__(self) -> Self:
        async with self._conn.lock:
            self._check_enter()
            try:
                await self._conn.wait(self._enter_gen())
            except BaseException as error:
                await self._roll_back(error)
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        if self._conn.closed:
            self.status = self.Status.FAILED
            return False
        if exc_val is not None or self.force_rollback:
            return await self._locked_roll_back(exc_val)
        try:
            await self._conn.lock.acquire()
        except BaseException as error:
            await self._locked_roll_back(error)
            raise
        try:
            await self._commit()
        finally:
            self._conn.lock.release()
        return False

    async def _commit(self) -> None:
        if self._outer_transaction and self.pgconn.transaction_status == TransactionStatus.INERROR:
            failure = psycopg.errors.InFailedSqlTransaction(
                "a statement of this transaction failed: it was rolled back, not committed"
            )
            await self._roll_back(failure)
            raise failure
        try:
            await self._conn.see_through(self._exit_gen(None, None, None))
        except BaseException:
            self.status = self.Status.FAILED
            raise

    async def _locked_roll_back(self, error: BaseException | None) -> bool:
        with trio.move_on_after(self._conn.clean_up_s, shield=True):
            async with self._conn.lock:
                return await self._roll_back(error)
        self.status = self.Status.FAILED
        self._conn.abandon("another task kept the connection too long for it to be rolled back")
        return False

    async def _roll_back(self, error: BaseException | None) -> bool:
        """Undo the block; whether the exception was a ``Rollback`` of this block, and so ends here."""
        if self.status is self.Status.NOT_STARTED or self._conn.closed:
            self.status = self.Status.FAILED
            return False
        try:
            return await self._conn.clean_up(self._exit_gen(type(error), error, None))
        except psycopg.OperationalError:
            self.status = self.Status.FAILED
            return False


class Pipeline(psycopg.AsyncPipeline):
    """Statements sent without waiting for the results of those before; what ``Connection.pipeline()`` gives.

    Left by a cancel, what was sent is cancelled on the server and its results are read, shielded and bounded by
    ``agent.pg.CLEAN_UP_S``; a connection that cannot be brought out of pipeline mode is closed.
    """

    _conn: Connection[Any]

    async def __aenter__(self) -> Self:
        async with self._lock:
            await self._conn.see_through(self._enter_gen())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        try:
            await self._end(exc_val)
        finally:
            self._exit(exc_val)
            if self.level == 0 and not self._conn.closed and self.pgconn.pipeline_status:
                self._conn.abandon("the pipeline could not be ended")

    async def _end(self, error: BaseException | None) -> None:
        if self._conn.closed:
            return
        begun = False
        try:
            async with self._lock:
                begun = True
                await self._conn.wait(self._exit_gen())
        except psycopg.Error:
            # The exception out of the block says more than what its end says because of it.
            if error is None:
                raise
        except (trio.Cancelled, KeyboardInterrupt):
            if not begun:
                await self._cut_short()
            raise

    async def _cut_short(self) -> None:
        with trio.move_on_after(self._conn.clean_up_s, shield=True), suppress(psycopg.Error):
            async with self._lock:
                await self._conn.interrupt(self._exit_gen())

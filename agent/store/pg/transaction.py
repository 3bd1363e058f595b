"""A block whose end must happen whatever happens inside: a transaction."""

from types import TracebackType
from typing import Any, Self

import psycopg
import trio
from psycopg.pq import TransactionStatus

from agent.store.pg.cancelling import CancellableConnection


class Transaction(psycopg.AsyncTransaction):
    """A transaction, or a savepoint inside one; what ``Connection.transaction()`` gives.

    Left in order it commits; left by an exception or a cancel it rolls back, which is shielded and bounded by the
    connection's ``clean_up_s``: a server that does not answer in that time loses the connection.

    A commit that has been sent is not given up. A cancel that arrives before it is sent rolls back and is raised;
    one that arrives while the server commits waits until the outcome is known (bounded, as above): then the block
    ends in order, and the cancel is delivered at the next checkpoint. So ``Cancelled`` out of this block means
    "not committed", but for one case: the server did not answer the commit in time, the connection is closed, and
    the outcome is known to the server alone. The same is true of ``OperationalError`` when the connection breaks
    there. ``status`` is then ``FAILED``.

    Unlike psycopg's, a block that swallowed the failure of a statement does not end as though it had committed:
    it rolls back and raises ``psycopg.errors.InFailedSqlTransaction``.
    """

    _conn: CancellableConnection[Any]

    async def __aenter__(self) -> Self:
        async with self._conn.lock:
            self._check_enter()
            try:
                await self._conn.wait(self._enter_gen())
            except BaseException as error:
                await self._roll_back(error)  # noqa: ASYNC102 - shielded and bounded inside
                raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        if exc_val is not None:
            return await self._take_back(exc_val)  # noqa: ASYNC102 - shielded and bounded inside
        try:
            await self._conn.lock.acquire()  # noqa: ASYNC102 - the last moment at which a cancel is still in time
        except BaseException as error:
            await self._take_back(error)  # noqa: ASYNC102 - shielded and bounded inside
            raise
        try:
            await self._commit()  # noqa: ASYNC102 - likewise
        finally:
            self._conn.lock.release()
        return False

    async def _commit(self) -> None:
        if self._outer_transaction and self.pgconn.transaction_status == TransactionStatus.INERROR:
            failure = psycopg.errors.InFailedSqlTransaction(
                "a statement of this transaction failed or was cancelled: it was rolled back, not committed"
            )
            await self._roll_back(failure)
            raise failure
        try:
            await self._conn.see_through(self._exit_gen(None, None, None))
        except BaseException:
            self.status = self.Status.FAILED
            raise

    async def _take_back(self, error: BaseException | None) -> bool:
        """Roll back from outside the lock; whether ``error`` was a ``Rollback`` of this block, and ends here."""
        with trio.move_on_after(self._conn.clean_up_s, shield=True):
            async with self._conn.lock:
                return await self._roll_back(error)
        self.status = self.Status.FAILED
        self._conn.abandon("a transaction could not be rolled back")
        return False

    async def _roll_back(self, error: BaseException | None) -> bool:
        if self.status is self.Status.NOT_STARTED:
            return False
        if self._conn.closed:
            self.status = self.Status.FAILED
            return False
        try:
            return await self._conn.clean_up(self._exit_gen(type(error) if error else None, error, None))
        except psycopg.OperationalError:
            self.status = self.Status.FAILED
            return False

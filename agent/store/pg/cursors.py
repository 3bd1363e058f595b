"""Cursors whose long operations (COPY, streaming, server-side cursors) end well when they are cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import attrs
import psycopg
import trio
from psycopg.abc import Buffer, Params, Query
from psycopg.copy import AsyncQueuedLibpqWriter, AsyncWriter
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import Row

from agent.store.pg.cancelling import CancellableConnection
from agent.store.pg.streaming import Stream


class Copy(psycopg.AsyncCopy):
    """A COPY in progress; what ``Cursor.copy()`` gives.

    Left by an exception or a cancel it is broken off: the server keeps nothing of a COPY FROM, and the rest of a
    COPY TO is thrown away; both shielded and bounded by the connection's ``clean_up_s``, after which the
    connection is closed. A COPY TO that is left before its end is broken off as well.
    """

    connection: CancellableConnection[Any]

    # psycopg has generators here, which Trio would report as not closed when a loop is left early.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Buffer:
        if data := await self.read():
            return data
        raise StopAsyncIteration

    def rows(self) -> CopyRows:
        """The records of a COPY TO, one by one; unparsed text unless ``set_types()`` was used."""
        return CopyRows(self)

    async def finish(self, exc: BaseException | None) -> None:
        """Called at the end of the block. An orderly end is a statement like any other to a cancel."""
        if exc is not None:
            await self._break_off(exc)
            return
        self.connection.block_cleans_up = False
        await super().finish(None)
        if self._is_active():
            await self._break_off(EOFError("COPY TO was not read to its end"))

    async def _break_off(self, why: BaseException) -> None:
        with trio.move_on_after(self.connection.clean_up_s, shield=True):
            if self._direction == ExecStatus.COPY_IN and not isinstance(why, Exception):
                # Whatever holds the server up (a lock, a trigger) is cut short too.
                await self.connection.try_cancel()
            await super().finish(why)
        if self._is_active():
            self.connection.abandon("a COPY could not be broken off")

    def _is_active(self) -> bool:
        return self._pgconn.transaction_status == TransactionStatus.ACTIVE


@attrs.frozen(eq=False)
class CopyRows:
    """What ``Copy.rows()`` gives."""

    _copy: Copy

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Any, ...]:
        if (record := await self._copy.read_row()) is None:
            raise StopAsyncIteration
        return record


class Cursor(psycopg.AsyncCursor[Row]):
    """psycopg's ``AsyncCursor`` on Trio, with the same interface."""

    __slots__ = ()

    _conn: CancellableConnection[Any]

    @asynccontextmanager
    async def copy(
        self, statement: Query, params: Params | None = None, *, writer: AsyncWriter | None = None
    ) -> AsyncIterator[Copy]:
        """Begin a COPY; see :class:`Copy`. ``AsyncQueuedLibpqWriter`` needs another event loop and is refused.

        Raises:
            psycopg.NotSupportedError: such a writer was given.
            psycopg.Error: the server refuses the statement, or the data.
        """
        if isinstance(writer, AsyncQueuedLibpqWriter):
            raise psycopg.NotSupportedError("AsyncQueuedLibpqWriter does not run on Trio: leave the writer out")
        async with self._conn.lock:
            await self._conn.wait(self._start_copy_gen(statement, params))
            self._conn.block_cleans_up = True
            try:
                async with Copy(self, writer=writer) as copy:
                    yield copy
            finally:
                self._conn.block_cleans_up = False
        self._select_current_result(0)  # the COPY's own, for rowcount

    def stream(
        self, query: Query, params: Params | None = None, *, binary: bool | None = None, size: int = 1
    ) -> Stream[Row]:
        """The rows of a query while they arrive, ``size`` of them at a time; see :class:`agent.store.pg.Stream`.

        Leave a loop over them early only inside ``contextlib.aclosing``.
        """
        return Stream(self._conn, self, self._stream_send_gen(query, params, binary=binary, size=size))


class ServerCursor(psycopg.AsyncServerCursor[Row]):
    """psycopg's ``AsyncServerCursor`` on Trio, with the same interface; its closing is shielded and bounded."""

    __slots__ = ()

    _conn: CancellableConnection[Any]

    async def close(self) -> None:
        """Close the cursor here and on the server; a connection that does not answer in time is closed."""
        try:
            with trio.move_on_after(self._conn.clean_up_s, shield=True) as scope:
                await super().close()
            if scope.cancelled_caught:
                self._conn.abandon("a server-side cursor could not be closed")
        finally:
            self._close()

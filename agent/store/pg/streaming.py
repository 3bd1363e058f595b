"""Rows of a query taken while they arrive."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any, Generic, Self

import attrs
import psycopg
import trio
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

from agent.store.pg.cancelling import CancellableConnection


@attrs.define(eq=False)
class Stream(Generic[Row]):
    """What ``Cursor.stream()`` gives. The connection is in use from the first row until it is closed.

    It closes itself at the end of the rows, at an error and at a cancel; a loop that is left early needs
    ``contextlib.aclosing`` around it. Closing before the end cancels the query on the server and throws the rest
    away, shielded and bounded. A stream that is dropped instead takes the connection with it.
    """

    _connection: CancellableConnection[Any]
    _cursor: psycopg.AsyncCursor[Row]
    _sending: PQGen[None]
    _size: int = 0
    _next: int = 0
    _first: bool = True
    _in_use: bool = False
    _over: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        if self._over:
            raise StopAsyncIteration
        try:
            if not self._in_use:
                await self._begin()
            if self._next >= self._size:
                await self._fetch()
        except BaseException:
            await self.aclose()  # noqa: ASYNC102 - shielded and bounded inside
            raise
        self._next += 1
        return self._cursor._tx.load_row(self._next - 1, self._cursor._make_row)  # noqa: SLF001 - half of a cursor

    async def aclose(self) -> None:
        """End it, wherever it is."""
        self._over = True
        if not self._in_use:
            return
        if self._is_active():
            with trio.move_on_after(self._connection.clean_up_s, shield=True):
                await self._connection.try_cancel()
                while self._is_active():
                    with suppress(psycopg.Error):
                        await self._connection.drive(self._cursor._stream_fetchone_gen(first=False))  # noqa: SLF001
            if self._is_active():
                self._connection.abandon("a stream could not be broken off")
        self._release()

    async def _begin(self) -> None:
        if self._connection.pgconn.pipeline_status:
            raise psycopg.ProgrammingError("stream() cannot be used in pipeline mode")
        await self._connection.lock.acquire()
        self._in_use = self._connection.block_cleans_up = True
        await self._connection.wait(self._sending)

    async def _fetch(self) -> None:
        while self._next >= self._size:
            result = await self._connection.wait(self._cursor._stream_fetchone_gen(self._first))  # noqa: SLF001
            if result is None:
                await self.aclose()
                raise StopAsyncIteration
            self._first = False
            self._next, self._size = 0, result.ntuples

    def _is_active(self) -> bool:
        return self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE

    def _release(self) -> None:
        self._in_use = self._connection.block_cleans_up = False
        self._connection.lock.release()

    def __del__(self) -> None:
        if self._in_use:
            warnings.warn(
                "a stream of rows was left without being closed", ResourceWarning, source=self, stacklevel=1
            )
            self._connection.abandon("a stream of rows was left without being closed")
            with suppress(RuntimeError):  # the task that held it is another, or over
                self._release()

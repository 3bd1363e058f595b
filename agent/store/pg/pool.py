"""A small pool of connections: fair, bounded, and never with a connection in doubt in it."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import psycopg
import trio
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from agent.store.pg.connection import Connection

UNSEEN_S = 30.0
"""A connection idle for longer is asked whether it still works before it is given out: half-dead peers are
silent."""
CHECK_S = 2.0
"""It has so long to answer."""
UNUSED_S = 300.0
"""Connections above ``min_size`` that were not used for so long are closed."""
LIFETIME_S = 3600.0
"""Connections are not given out when they are older: servers move, memory grows."""
KEEP_S = 10.0
"""How often the pool looks after itself."""
CLOSE_S = 5.0
"""How long the closing of a pool waits for those who still use a connection."""

_log = logging.getLogger("agent.store.pg")


class PoolClosedError(psycopg.InterfaceError):
    """The pool is closed, or was closed while waiting for a connection."""


@attrs.define(eq=False)
class Pool:
    """Connections to one database, shared by many tasks; made by :func:`open_pool`.

    Callers are served in the order in which they came. A connection is checked before it is given out: without
    asking the server each time (a server that went away has closed the socket, which is seen at once), by a
    question when it was idle for long. Broken ones are replaced on the way, so after a restart of the server the
    pool serves again as soon as the server does; while it is away, each caller gets the
    ``psycopg.OperationalError`` of its own attempt to connect.
    """

    name: str
    min_size: int
    max_size: int
    _connect: Callable[[], Awaitable[Connection[TupleRow]]]
    _free: trio.Semaphore = attrs.field(init=False)
    """A slot for each connection that may be in use, being checked or being opened; it is fair, as Trio's are."""
    _idle: deque[tuple[Connection[TupleRow], float]] = attrs.field(factory=deque, init=False)
    """Connections that nobody uses, and since when. The most recently used comes last and is given out first, so
    that the others can be closed one day. Whoever has a slot finds one here, or opens one: never too many."""
    _in_use: set[Connection[TupleRow]] = attrs.field(factory=set, init=False)
    _opened_at_s: dict[Connection[TupleRow], float] = attrs.field(factory=dict, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _drained: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(
                f"a pool needs 0 <= min_size <= max_size and 1 <= max_size: {self.min_size}, {self.max_size}"
            )
        self._free = trio.Semaphore(self.max_size)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection[TupleRow]]:
        """A connection for the length of the block, with autocommit on: use ``transaction()`` for more.

        Waits its turn, however long: deadlines are the caller's. A cancel loses nothing. At the end of the block
        the connection goes back; if it is in a transaction, that is rolled back; if it is in doubt, it is closed.
        Session state (LISTEN, SET, session locks) is the caller's to undo: open a connection of its own for that.

        Raises:
            PoolClosedError: the pool is closed.
            psycopg.OperationalError: there was no idle connection, and none could be opened.
        """
        connection = await self._acquire()
        try:
            yield connection
        finally:
            await self._release(connection)  # noqa: ASYNC102 - shielded and bounded inside, by the connection

    async def _acquire(self) -> Connection[TupleRow]:
        await self._free.acquire()
        connection = None
        try:
            self._check_open()
            if self._idle:
                connection = await self._checked(*self._idle.pop())
            if connection is None:
                connection = await self._open()
            self._check_open()
        except BaseException:
            self._give_back(connection)
            raise
        self._in_use.add(connection)
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError(f"the pool {self.name!r} is closed")

    async def _checked(self, connection: Connection[TupleRow], since_s: float) -> Connection[TupleRow] | None:
        """The idle connection if it can be given out; else it is closed."""
        now_s = trio.current_time()
        good = False
        try:
            connection.take_arrived()
            young = now_s - self._opened_at_s[connection] < LIFETIME_S
            seen = now_s - since_s < UNSEEN_S
            good = young and (seen or await connection.answers(CHECK_S))
        except psycopg.Error as error:
            _log.info("pool %r: a connection broke while it was idle: %s", self.name, error)
        finally:
            if not good:
                self._discard(connection)
        return connection if good else None

    async def _open(self) -> Connection[TupleRow]:
        connection = await self._connect()
        self._opened_at_s[connection] = trio.current_time()
        return connection

    async def _release(self, connection: Connection[TupleRow]) -> None:
        """Take a connection back; whatever that waits for is shielded, and bounded by the connection itself."""
        good = False
        try:
            good = await self._made_idle(connection)
        finally:
            self._in_use.discard(connection)
            if not good:
                self._discard(connection)
            self._give_back(connection if good else None)
            if self._closed and not self._in_use:
                self._drained.set()

    async def _made_idle(self, connection: Connection[TupleRow]) -> bool:
        """Whether the connection is as the next caller expects it, rolled back if need be."""
        if connection.closed or connection.lock.locked() or connection.pgconn.pipeline_status:
            return False
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            with suppress(psycopg.Error):
                await connection.clean_up(connection._rollback_gen())  # noqa: SLF001 - rollback() is not shielded
        settings = (connection.isolation_level, connection.read_only, connection.deferrable)
        connection.row_factory = tuple_row
        return (
            connection.info.transaction_status == TransactionStatus.IDLE
            and connection.autocommit
            and settings == (None, None, None)
        )

    def _discard(self, connection: Connection[TupleRow]) -> None:
        del self._opened_at_s[connection]
        connection.close_now()

    def _give_back(self, connection: Connection[TupleRow] | None) -> None:
        """Free a slot, with its connection if that is good; whose turn it is has it."""
        if connection is not None and self._closed:
            self._discard(connection)
        elif connection is not None:
            self._idle.append((connection, trio.current_time()))
        self._free.release()

    def _size(self) -> int:
        return self.max_size - self._free.value + len(self._idle)

    async def keep(self) -> None:
        """Open what is missing to ``min_size``, close what is not used; until cancelled."""
        while True:
            unused_since_s = trio.current_time() - UNUSED_S
            while self._idle and self._idle[0][1] <= unused_since_s and self._size() > self.min_size:
                self._discard(self._idle.popleft()[0])
            while self._size() < self.min_size:
                self._free.acquire_nowait()
                made = None
                try:
                    made = await self._open()
                except psycopg.Error as error:
                    _log.info("pool %r: could not connect: %s", self.name, error)
                    break
                finally:
                    self._give_back(made)
            await trio.sleep(KEEP_S)

    async def close(self) -> None:
        """Give out no more; wait for those in use, at most :data:`CLOSE_S` and not when cancelled; close all."""
        self._closed = True
        while self._idle:
            self._discard(self._idle.pop()[0])
        for _ in range(self._free.statistics().tasks_waiting):
            self._free.release()  # more than there are: each finds that the pool is closed
        try:
            if self._in_use:
                with trio.move_on_after(CLOSE_S):
                    await self._drained.wait()
        finally:
            for connection in self._in_use:
                connection.abandon(f"the pool {self.name!r} was closed while it was in use")


@asynccontextmanager
async def open_pool(
    conninfo: str = "", *, min_size: int = 1, max_size: int = 8, name: str = "", **kwargs: Any
) -> AsyncIterator[Pool]:
    """A pool for the length of a block.

    Opening does not wait for the server: ``min_size`` connections are opened in the background, and kept. At the
    end of the block those who wait get :exc:`PoolClosedError`, and those who use a connection have
    :data:`CLOSE_S` seconds (none when the block is cancelled) before it is closed under them.

    Args:
        conninfo: as for :meth:`Connection.connect`.
        min_size: connections kept open even when nobody uses them.
        max_size: never more than these.
        name: for logs, and ``application_name`` on the server unless ``conninfo`` has one.
        kwargs: as for :meth:`Connection.connect`.

    Raises:
        ValueError: the sizes make no sense.
        psycopg.ProgrammingError: the connection string makes no sense.
    """
    settings: dict[str, Any] = {**conninfo_to_dict(conninfo), **kwargs}
    if name:
        settings.setdefault("fallback_application_name", name)

    async def connect() -> Connection[TupleRow]:
        return await Connection.connect(**settings)

    pool = Pool(name, min_size, max_size, connect)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.keep)
            yield pool
            nursery.cancel_scope.cancel(reason="the pool is closed")
    finally:
        await pool.close()  # noqa: ASYNC102 - bounded; a cancel closes at once

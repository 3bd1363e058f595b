"""What becomes of a connection when somebody stops waiting for it: the rules of cancellation, and closing."""

import logging
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
import trio
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.rows import AsyncRowFactory, Row

from agent.store.pg.lock import Lock
from agent.store.pg.waiting import drive, drive_connecting

RV = TypeVar("RV")

CLEAN_UP_S: Final = 5.0
"""Bound of whatever must still be said to the server after a cancel. psycopg allows the same for its own."""
CANCEL_AGAIN_S: Final = 0.25
"""A statement that goes on after its cancel is cancelled again: the cancel may have hit the one before it."""

_log = logging.getLogger("agent.store.pg")


class CancellableConnection(psycopg.AsyncConnection[Row]):
    """psycopg's connection, waited for by Trio: the half of ``Connection`` that others build on."""

    lock: Lock  # type: ignore[assignment]  # psycopg's is another event loop's; used only as `async with`
    clean_up_s: float = CLEAN_UP_S
    """Bound of cleaning up after a cancel, in seconds; may be set on a subclass or a connection."""

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[Row]) -> None:
        super().__init__(pgconn, row_factory)
        self.lock = Lock()

    async def wait(self, gen: PQGen[RV], *_: Any, **__: Any) -> RV:
        """Run a protocol generator to its end. What a cancel does is told in :class:`agent.store.pg.Connection`.

        Args:
            gen: a generator of psycopg that works on this connection; the lock is held by the caller.
            _: psycopg's interval and time limit, which Trio does not need.
            __: likewise.

        Raises:
            psycopg.Error: whatever the server, or the loss of it, makes of it.
        """
        try:
            return await self.drive(gen)
        except (trio.Cancelled, KeyboardInterrupt) as interruption:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            with suppress(psycopg.Error):  # broken off, failed or lost: to the caller it is cancelled
                result = await self.interrupt(gen)  # noqa: ASYNC102 - shielded and bounded inside
                if isinstance(interruption, trio.Cancelled):
                    # It was faster. The cancel is not lost: the next checkpoint delivers it.
                    return result  # noqa: ASYNC104
            raise
        finally:
            _drop(gen)

    async def drive(self, gen: PQGen[RV]) -> RV:
        """Run ``gen`` to its end; a cancel leaves it where it is, and the connection in doubt."""
        return await drive(gen, self.pgconn.socket)

    async def interrupt(self, gen: PQGen[RV]) -> RV:
        """Cancel on the server what ``gen`` runs, and run ``gen`` to its end; shielded, and bounded.

        Raises:
            psycopg.errors.QueryCanceled: the server broke it off.
            psycopg.OperationalError: the connection was closed, because that could not be known.
            psycopg.Error: it failed by itself.
        """
        told = False
        try:
            with trio.move_on_after(self.clean_up_s, shield=True):
                while True:
                    told = False
                    await self._cancel_on_server()
                    told = True
                    with trio.move_on_after(CANCEL_AGAIN_S):
                        return await self.drive(gen)
        except psycopg.Error:
            if told:
                raise
        except BaseException:
            self.abandon("interrupted while a statement was being cancelled")
            raise
        raise self._given_up("a statement could not be cancelled on the server")

    async def see_through(self, gen: PQGen[RV]) -> RV:
        """Run ``gen``, which must not be broken off (a commit): a cancel waits until it has ended, bounded.

        Raises:
            psycopg.Error: what ``gen`` raises; a cancel takes its place if there is one.
        """
        try:
            return await self.drive(gen)
        except (trio.Cancelled, KeyboardInterrupt) as interruption:
            with suppress(psycopg.Error):
                result = await self.clean_up(gen)  # noqa: ASYNC102 - shielded and bounded inside
                if isinstance(interruption, trio.Cancelled):
                    return result  # noqa: ASYNC104 - done after all; the next checkpoint delivers the cancel
            raise
        finally:
            _drop(gen)

    async def clean_up(self, gen: PQGen[RV]) -> RV:
        """Run ``gen`` to its end, shielded for ``clean_up_s`` seconds; then the connection is closed.

        Raises:
            psycopg.OperationalError: the server did not answer in time, or was lost.
            psycopg.Error: what else ``gen`` raises.
        """
        try:
            with trio.move_on_after(self.clean_up_s, shield=True):
                return await self.drive(gen)
        except KeyboardInterrupt:
            self.abandon("interrupted while cleaning up")
            raise
        finally:
            _drop(gen)
        raise self._given_up(f"the server did not answer within {self.clean_up_s:g} s of a cancel")

    def _given_up(self, why: str) -> psycopg.OperationalError:
        self.abandon(why)
        return psycopg.OperationalError(f"the connection was closed: {why}")

    async def _cancel_on_server(self) -> None:
        # Returns when the server has closed the cancelling connection, which it does after it sent the signal;
        # and a signal that finds no statement running is forgotten. So the cancel cannot hit a later statement.
        canceller = self.pgconn.cancel_conn()
        try:
            canceller.start()
            await drive_connecting(generators.cancel(canceller))
        finally:
            canceller.finish()

    # Closing

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

    def abandon(self, why: str) -> None:
        """Close a connection whose state is in doubt; ``broken`` is then true."""
        if not self.closed:
            _log.warning("connection closed: %s", why)
            self._finish()

    def _finish(self) -> None:
        trio.lowlevel.notify_closing(self.pgconn.socket)
        self.pgconn.finish()


def _drop(gen: PQGen[RV]) -> None:
    """Close a generator that may not have ended: one of a pipeline would raise in the garbage collector."""
    with suppress(psycopg.Error, RuntimeError):  # what it still wants to say, nobody hears
        gen.close()

"""LISTEN/NOTIFY as an async iterator that can be cancelled, left and begun again."""

from __future__ import annotations

import math
from typing import Protocol, Self

import attrs
import psycopg
import trio


class Notified(Protocol):
    """A connection that gets notifications."""

    async def notification(self) -> psycopg.Notify:
        """Wait for the next one."""

    def notification_nowait(self) -> psycopg.Notify | None:
        """One that has arrived, or None."""


@attrs.define(eq=False)
class Notifications:
    """What ``Connection.notifies()`` gives. Not a generator: there is nothing to close when a loop is left.

    Notifications are kept on the connection until they are taken, so a cancel loses none.
    """

    _connection: Notified
    _deadline: float
    _left: float

    @classmethod
    def of(cls, connection: Notified, timeout_s: float | None, stop_after: int | None) -> Self:
        """Begin: the time-out counts from now."""
        deadline = math.inf if timeout_s is None else trio.current_time() + timeout_s
        return cls(connection, deadline, math.inf if stop_after is None else stop_after)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> psycopg.Notify:
        if self._left <= 0:
            raise StopAsyncIteration
        self._left -= 1
        if self._deadline <= trio.current_time() and (notify := self._connection.notification_nowait()):
            return notify  # a time-out of 0 takes what is there
        with trio.CancelScope(deadline=self._deadline):
            return await self._connection.notification()
        raise StopAsyncIteration

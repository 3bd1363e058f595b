"""Connections whose requests are for another process of the server: passed on, unanswered, with what was read."""

from __future__ import annotations

from typing import Protocol

import attrs
import trio
from typing_extensions import override

from agent.web.connection import HttpConnection
from agent.web.head import RequestHead


class Neighbours(Protocol):
    """The server's other processes. Numbers are those of processes, from 1."""

    def whose(self, path: str) -> int:
        """Which of them is to serve a request for ``path``, or whatever comes next (empty); 0: this process."""

    async def pass_on(self, to: int, stream: trio.SocketStream, unread: bytes) -> bool:
        """Give ``to`` the connection, and ``unread`` to be read before it; False: it is still ours.

        Whoever calls this closes the stream afterwards. After a cancel either may have it, never both.
        """


class NoNeighbours(Neighbours):
    """Those of a process that is a server by itself."""

    @override
    def whose(self, path: str) -> int:
        return 0

    @override
    async def pass_on(self, to: int, stream: trio.SocketStream, unread: bytes) -> bool:
        await trio.lowlevel.checkpoint()
        return False


@attrs.define(eq=False)
class Handover:
    """Passes the connections of a door on, each between two of its requests."""

    neighbours: Neighbours = attrs.field(factory=NoNeighbours)
    _waiting: set[trio.CancelScope] = attrs.field(factory=set)
    """Around each wait for a request."""
    _is_letting_go: bool = False

    def let_go(self) -> None:
        """Leave connections to the neighbours from now on, as soon as no request of theirs is being served."""
        self._is_letting_go = True
        for scope in self._waiting:
            scope.cancel(reason="a neighbour gets the connection")

    async def next_head(self, connection: HttpConnection) -> RequestHead | None:
        """The next request; None also when the connection is a neighbour's now. Raises as the connection does."""
        with trio.CancelScope() as waiting:
            self._waiting.add(waiting)
            if self._is_letting_go:
                waiting.cancel()
            try:
                return await connection.next_head()
            finally:
                self._waiting.discard(waiting)
        return None if await self.pass_on(connection) else await connection.next_head()

    async def pass_on(self, connection: HttpConnection, path: str = "", head: RequestHead | None = None) -> bool:
        """Give the connection to whom its request for ``path``, or any, is meant for; False: to nobody."""
        to = self.neighbours.whose(path)
        if not to or not isinstance(connection.stream, trio.SocketStream):
            return False
        read = head.raw if head is not None else b""
        return await self.neighbours.pass_on(to, connection.stream, read + connection.reader.unread)

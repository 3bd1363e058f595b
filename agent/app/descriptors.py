"""File descriptors: as many as there may be, and some of them for ourselves, whoever connects (DO-3)."""

import errno
import os
import resource
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final

import attrs
import trio
from typing_extensions import override

from agent.carrier.front_door import LOBBY
from agent.core.event_log import EventLog

OWN: Final = 64
"""Kept for what the server opens itself: the disk, Postgres, new model sessions, the carrier's REST."""
PER_CALL: Final = 3
"""The carrier, the model, and one for what a call asks of others."""
MOST_ON_A_CORE: Final = 400
"""Calls that room is made for where no number is set."""
ALWAYS: Final = 64
"""What is open without a call: listeners, Postgres, REST."""
FEWEST_PLACES: Final = 8
"""In the lobby, however few descriptors there are."""
PAUSE_S: Final = 0.1
CALM_S: Final = 30.0
"""After so long with some left, it is another time that there are none."""
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def raise_limit() -> int:
    """Raise the limit of this process to the hard one, as far as the system lets it; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS has no limit by name, and one in fact
            return soft
    return hard if hard != resource.RLIM_INFINITY else 2**31 - 1


def needed_for(max_calls: int | None) -> int:
    """How many a process needs for so many calls at once, and a full lobby; None: for those a core may carry."""
    return OWN + ALWAYS + LOBBY + PER_CALL * (max_calls or MOST_ON_A_CORE)


def places_for(limit: int, max_calls: int | None) -> int:
    """How many places of the lobby ``limit`` allows beside the calls; then the oldest makes room."""
    return max(FEWEST_PLACES, min(LOBBY, LOBBY - needed_for(max_calls) + limit))


@attrs.define(eq=False)
class ReservingListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts while there are more descriptors left than the server's own.

    Else it pauses, says so once, and goes on when some are free again; who connects meanwhile waits.
    """

    inner: trio.SocketListener
    events: EventLog
    limit: int
    _low_s: float = -inf
    """When there was none left last."""

    @property
    def own(self) -> int:
        """How many are kept for the server."""
        return min(OWN, self.limit // 4)

    def again(self) -> "ReservingListener":
        """The same socket once more: each listener accepts one connection in a pass of the scheduler."""
        return attrs.evolve(self, inner=trio.SocketListener(self.inner.socket.dup()))

    @override
    async def accept(self) -> trio.SocketStream:
        while True:
            if self._left() > self.own:
                try:
                    return await self.inner.accept()
                except OSError as error:
                    if error.errno not in _FULL:
                        raise
            now_s = trio.current_time()
            if now_s - self._low_s > CALM_S:
                self.events.emit("DESCRIPTORS_LOW", "error", limit=self.limit, own=self.own)
            self._low_s = now_s
            await trio.sleep(PAUSE_S)

    @override
    async def aclose(self) -> None:
        await self.inner.aclose()

    def _left(self) -> int:
        """How many there are at least: the next one that is opened has the lowest number that is free."""
        try:
            lowest = os.dup(self.inner.socket.fileno())
        except OSError:
            return 0
        os.close(lowest)
        return self.limit - lowest


def reserving(
    listeners: Iterable[trio.SocketListener], events: EventLog, max_calls: int | None
) -> Sequence[ReservingListener]:
    """The listeners that keep some descriptors for us, with the limit raised."""
    limit = raise_limit()
    if limit < (needed := needed_for(max_calls)):
        events.emit("DESCRIPTORS_FEW", "warning", limit=limit, needed=needed, max_calls=max_calls)
    return [ReservingListener(listener, events, limit) for listener in listeners]

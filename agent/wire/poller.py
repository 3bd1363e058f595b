"""One epoll for all sockets of a process, nested in Trio's: one task waits, and calls who has something to do.

``trio.lowlevel.wait_readable`` for each socket costs ten microseconds a message; here a function reads a socket
that became readable. What a peer can make us do in one go is bounded by PASS_SOCKETS: what is left is called in
the next pass of the scheduler, behind the pacers whose tick came meanwhile.

A pass of the scheduler costs as much as a few messages, so a busy poller does not come for each: where more than
one socket had something, it looks again at the next mark of GATHER_S, five to a beat of the metronome.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import attrs
import trio

from agent.core.units import FRAME_S

PASS_SOCKETS: Final = 64
"""Sockets served in one pass of the scheduler: about a millisecond."""
GATHER_S: Final = FRAME_S / 5
"""How long a busy poller lets messages gather. At 100 calls it saves an eighth of all CPU, and costs each message
two milliseconds on average; a call alone is served at once."""

READ: Final = getattr(select, "EPOLLIN", 0)
WRITE: Final = getattr(select, "EPOLLOUT", 0)

_running: Final = trio.lowlevel.RunVar["Poller | None"]("poller", None)


class Polled(Protocol):
    """Whose socket is watched. All methods are synchronous; what they raise is given to ``on_error``."""

    def on_readable(self) -> None:
        """The socket can be read, or is at its end."""

    def on_writable(self) -> None:
        """The socket takes bytes again."""

    def on_error(self, error: Exception) -> None:
        """One of the others failed, or (ClosedResourceError) the poller ends: nothing is called any more."""


@attrs.define(eq=False)
class Poller:
    """Run one ``run`` in a Trio program; ``running`` is where it is found by those that open sockets."""

    _epoll: Any = attrs.field(init=False, default=None)
    _polled: dict[int, Polled] = attrs.field(factory=dict)

    @staticmethod
    def running() -> Poller | None:
        """The one that runs in this program; None: there is no epoll, or nobody runs one."""
        return _running.get()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled, then tell those who are left. Returns at once where there is no epoll.

        In a server run it by ``open_poller``.
        """
        if not hasattr(select, "epoll"):  # pragma: no cover - not on Linux
            task_status.started()
            return
        self._epoll = select.epoll()
        _running.set(self)
        task_status.started()
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                while (served := self._sweep()) > 1:
                    if served < PASS_SOCKETS:
                        await trio.sleep_until((trio.current_time() // GATHER_S + 1) * GATHER_S)
                    else:
                        await trio.lowlevel.checkpoint()
        finally:
            _running.set(None)
            for polled in tuple(self._polled.values()):
                polled.on_error(trio.ClosedResourceError("the poller has ended"))
            self._polled.clear()
            self._epoll.close()

    def add(self, fd: int, polled: Polled) -> None:
        """Watch a socket for what can be read, until ``remove``, which comes before it is closed."""
        self._epoll.register(fd, READ)
        self._polled[fd] = polled

    def watch(self, fd: int, what: int) -> None:
        """Watch a socket of ``add`` for READ, WRITE, both or (0) only for its end from now on."""
        if fd in self._polled:
            self._epoll.modify(fd, what)

    def remove(self, fd: int) -> None:
        """Watch it no more; may be repeated."""
        if self._polled.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _sweep(self) -> int:
        """Call whose socket has something, PASS_SOCKETS at the most; how many these were."""
        polled_by = self._polled
        found = self._epoll.poll(0, PASS_SOCKETS)
        for fd, events in found:
            polled = polled_by.get(fd)
            if polled is None:
                continue
            # The boundary of one socket: what goes wrong with it is its own call's error, never another's.
            try:
                if events & WRITE:
                    polled.on_writable()
                if events & ~WRITE:
                    polled.on_readable()
            except Exception as error:  # noqa: BLE001
                self.remove(fd)
                polled.on_error(error)
        return len(found)


@asynccontextmanager
async def open_poller() -> AsyncIterator[None]:
    """A poller runs until the body is left; also while a cancelled body closes its sockets in order."""
    scope = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(_run_in, scope)
        try:
            yield
        finally:
            scope.cancel(reason="the body has ended")


async def _run_in(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with scope:
        await Poller().run(task_status=task_status)

"""The processes that were started together: they take over together, and leave together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import trio

from agent.app.processes.child import Child
from agent.app.processes.link import GONE
from agent.app.processes.messages import Retire, Role

READY_S: Final = 60.0
"""How long new processes may take until they take calls; two seconds are usual."""


@attrs.define(eq=False)
class Generation:
    """So many processes, each of them replaced when it dies."""

    roles: Sequence[Role]
    children: set[Child] = attrs.field(factory=set)
    ready: int = 0
    """How many have been ready of those that take calls."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when nobody is replaced any more."""
    is_up: bool = False
    """All of those that take calls have been ready."""
    _settled: trio.Event = attrs.field(factory=trio.Event)

    def is_ready(self, child: Child) -> None:
        """A child takes calls, for the first time."""
        child.ready.set()
        self.ready += 1
        if not self.is_up and self.ready == self.roles.count("calls"):
            self.is_up = True
            self._settled.set()

    def failed(self) -> None:
        """A child has ended before all were ready."""
        self._settled.set()

    async def came_up(self) -> bool:
        """Wait until all take calls; False: one failed, or it took too long."""
        with trio.move_on_after(READY_S):
            await self._settled.wait()
        return self.is_up

    def end(self) -> None:
        """Ask those that take calls to stop, or to hurry; nobody is replaced any more."""
        self.over.set()
        self._settled.set()
        self._stop("calls")

    def end_worker(self) -> None:
        """Ask the worker to stop."""
        self._stop("worker")

    async def retire(self) -> None:
        """Have those that take calls leave when their last one has ended, whenever that is; the worker stops."""
        self.over.set()
        self.end_worker()
        for child in list(self.children):
            if child.birth.role == "calls":
                with suppress(*GONE):
                    await child.link.send(Retire())

    def _stop(self, role: Role) -> None:
        for child in self.children:
            if child.birth.role == role:
                child.ask_to_stop()

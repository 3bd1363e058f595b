"""What children ask of their parent: that a connection gets to another child, and the figures of all of them."""

from __future__ import annotations

from typing import Final

import attrs
import trio
from prometheus_client import Gauge, generate_latest

from agent.app.processes.board import LEAVING, TAKING, Board
from agent.app.processes.child import Child
from agent.app.processes.figures import add_up, without_gauges
from agent.app.processes.generation import Generation
from agent.app.processes.link import GONE, close_all
from agent.app.processes.messages import AllFigures, AskAll, Figures, PassOn, Ready, Report
from agent.app.processes.routing import least
from agent.core.event_log import EventLog

REPORT_S: Final = 2.0
"""How long a child may take to say its figures; then those that it said before count."""
PASS_ON_S: Final = 1.0
"""How long a child may take to be given a connection; then another one gets it."""


@attrs.define(eq=False)
class Switchboard:
    """Serves all children of a parent."""

    board: Board
    events: EventLog
    children: dict[int, Child] = attrs.field(factory=dict)
    """Those that run, by their numbers."""
    _processes: Gauge = attrs.field(init=False)
    _departed: str = ""
    """The sums of those that have ended."""
    _asking: trio.Lock = attrs.field(factory=trio.Lock)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    def __attrs_post_init__(self) -> None:
        text = "Processes that take calls, and those that leave when their last one has ended"
        self._processes = Gauge("agent_processes", text, ["state"], registry=self.events.telemetry.registry)

    async def serve(self, child: Child, generation: Generation) -> None:
        """Do what a child asks for, until it is gone."""
        async with trio.open_nursery() as nursery:
            while (received := await child.link.receive()) is not None:
                message, descriptors = received
                match message:
                    case Ready():
                        self.events.emit("PROCESS_READY", process=child.birth.number, pid=child.process.pid)
                        generation.is_ready(child)
                    case PassOn():
                        nursery.start_soon(self._pass_on, message, descriptors)
                        continue
                    case Figures(text=text):
                        child.figures = text
                        child.reported.set()
                    case AskAll():
                        nursery.start_soon(self._answer, child)
                close_all(descriptors)

    async def forget(self, child: Child) -> None:
        """It has ended; what it counted stays counted."""
        del self.children[child.birth.number]
        if child.figures:
            async with self._asking:
                self._departed = await self._add_up(self._departed, without_gauges(child.figures))

    async def _pass_on(self, message: PassOn, descriptors: list[int]) -> None:
        """Give the connection to whom it is for; if that one is gone or stands still, to whoever takes calls."""
        try:
            tried: set[int] = set()
            to = message.to
            while to:
                child = self.children.get(to)
                tried.add(to)
                with trio.move_on_after(PASS_ON_S):
                    if child is not None and await _sent(child, message, descriptors):
                        return
                takers = [row for row in self.board.rows() if row.state == TAKING and row.number not in tried]
                to = least(takers)
            self.events.emit("CONNECTION_NOT_PASSED_ON", "warning", process=message.to)
        finally:
            close_all(descriptors)

    async def _answer(self, child: Child) -> None:
        async with self._asking:
            text = await self._figures()
        try:
            await child.link.send(AllFigures(text))
        except GONE:
            return

    async def _figures(self) -> str:
        asked = [child for child in self.children.values() if child.ready.is_set()]
        for child in asked:
            child.reported = trio.Event()
            with trio.move_on_after(REPORT_S):
                await _sent(child, Report())
        with trio.move_on_after(REPORT_S):
            for child in asked:
                await child.reported.wait()
        states = [row.state for row in self.board.rows()]
        self._processes.labels(state="taking").set(states.count(TAKING))
        self._processes.labels(state="leaving").set(states.count(LEAVING))
        own = generate_latest(self.events.telemetry.registry).decode()
        return await self._add_up(self._departed, own, *(child.figures for child in asked))

    async def _add_up(self, *texts: str) -> str:
        return await trio.to_thread.run_sync(add_up, texts, limiter=self._threads)


async def _sent(child: Child, message: PassOn | Report, descriptors: list[int] | tuple[int, ...] = ()) -> bool:
    try:
        await child.link.send(message, descriptors)
    except GONE:
        return False
    return True

"""What the parent does for its children: connections find another one when theirs is gone, figures are all's."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import attrs
import pytest
import trio

from agent.app.processes.board import LEAVING, TAKING, Row, open_board
from agent.app.processes.child import Child
from agent.app.processes.generation import Generation
from agent.app.processes.link import Link, open_pair
from agent.app.processes.messages import AllFigures, AskAll, Birth, Figures, PassOn, Ready, Report, Retire, Role
from agent.app.processes.switchboard import Switchboard
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry

pytestmark = pytest.mark.sockets


@attrs.define(eq=False)
class FakeProcess:
    """Counts what it was asked."""

    pid: int = 1
    returncode: int | None = None
    terminated: int = 0

    def terminate(self) -> None:
        """As trio.Process."""
        self.terminated += 1


@attrs.define(eq=False)
class Family:
    """Children that are only the other ends of their links."""

    nursery: trio.Nursery
    switchboard: Switchboard
    generation: Generation
    links: dict[int, Link] = attrs.field(factory=dict)

    def add(self, number: int, state: int, lines: int = 0, role: Role = "calls") -> FakeProcess:
        """Another child."""
        ours, theirs = open_pair()
        birth = Birth(
            number=number,
            place=number,
            role=role,
            settings={},
            server_id=uuid4(),
            secret=b"",
            model_url="",
            listeners=0,
        )
        process = FakeProcess()
        child = Child(birth, cast("trio.Process", process), Link.over(ours))
        self.links[number] = Link.over(theirs)
        self.switchboard.children[number] = child
        self.generation.children.add(child)
        self.switchboard.board.write(number, Row(number, state, lines))
        self.nursery.start_soon(self.switchboard.serve, child, self.generation)
        return process

    async def received(self, number: int) -> Any:
        """What that child is told next, and what comes with it."""
        got = await self.links[number].receive()
        assert got is not None
        return got


@asynccontextmanager
async def open_family(roles: tuple[Role, ...] = ("calls", "calls")) -> AsyncIterator[Family]:
    board, file = open_board()
    with trio.fail_after(10), file:
        await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            family = Family(nursery, Switchboard(board, EventLog(Telemetry())), Generation(roles))
            yield family
            nursery.cancel_scope.cancel()
        for link in [*family.links.values(), *(child.link for child in family.generation.children)]:
            link.close()


@pytest.fixture
def connection() -> Callable[[], int]:
    """A descriptor to pass on, the other end of which is closed."""

    def make() -> int:
        near, far = socket.socketpair()
        near.close()
        return far.detach()

    return make


async def test_a_connection_is_for_whom_it_says_or_for_the_one_with_the_fewest_calls(
    connection: Callable[[], int],
) -> None:
    async with open_family() as family:
        family.add(1, TAKING)
        family.add(2, TAKING, lines=5)
        family.add(3, LEAVING)
        family.add(4, TAKING, lines=2)
        for to, gets in ((2, 2), (3, 3), (9, 1)):
            descriptor = connection()
            await family.links[1].send(PassOn(to, b"read"), [descriptor])
            os.close(descriptor)
            message, [passed] = await family.received(gets)
            assert message == PassOn(to, b"read")
            os.close(passed)


async def test_of_one_that_has_just_died_another_gets_it_and_with_nobody_left_it_is_closed(
    connection: Callable[[], int],
) -> None:
    async with open_family() as family:
        family.add(1, LEAVING)
        family.add(2, TAKING)
        family.add(3, TAKING, lines=7)
        for dead in (2, 3):
            family.links[dead].close()
            descriptor = connection()
            await family.links[1].send(PassOn(2, b"read"), [descriptor])
            os.close(descriptor)
            if dead == 2:
                message, [passed] = await family.received(3)
                assert message == PassOn(2, b"read")
                os.close(passed)
        while not family.switchboard.events.counts["CONNECTION_NOT_PASSED_ON"]:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)


async def test_who_asks_for_figures_gets_those_of_all_also_of_one_that_is_gone() -> None:
    async with open_family() as family:
        for number in (1, 2):
            family.add(number, TAKING)
            await family.links[number].send(Ready())
        assert await family.generation.came_up()
        await family.links[1].send(AskAll())
        for number in (1, 2):
            assert await family.received(number) == (Report(), [])
            text = f"# TYPE a_total counter\na_total {number}.0\n# TYPE b gauge\nb 1.0\n"
            await family.links[number].send(Figures(text))
        message, _ = await family.received(1)
        assert isinstance(message, AllFigures)
        assert {"a_total 3.0", "b 2.0", 'agent_processes{state="taking"} 2.0'} <= set(message.text.splitlines())
        await family.switchboard.forget(family.switchboard.children[2])
        await family.links[1].send(AskAll())
        assert await family.received(1) == (Report(), [])
        await family.links[1].send(Figures("# TYPE a_total counter\na_total 1.0\n# TYPE b gauge\nb 1.0\n"))
        message, _ = await family.received(1)
        assert {"a_total 3.0", "b 1.0"} <= set(message.text.splitlines())


async def test_those_who_are_replaced_stay_for_their_calls_the_worker_does_not() -> None:
    async with open_family(("calls", "worker")) as family:
        calls, worker = family.add(1, TAKING), family.add(2, TAKING, role="worker")
        await family.generation.retire()
        assert await family.received(1) == (Retire(), [])
        assert (calls.terminated, worker.terminated) == (0, 1)
        family.generation.end()
        assert (calls.terminated, worker.terminated) == (1, 1)
        assert family.generation.over.is_set()


async def test_a_generation_is_up_when_all_that_take_calls_are_and_else_fails() -> None:
    async with open_family(("calls", "calls", "worker")) as family:
        family.add(1, TAKING)
        family.add(2, TAKING)
        await family.links[1].send(Ready())
        family.nursery.start_soon(family.links[2].send, Ready())
        assert await family.generation.came_up()
        failing = Generation(("calls",))
        failing.failed()
        assert not await failing.came_up()

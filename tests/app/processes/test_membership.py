"""What a process tells the others, and what it does for them; the parent's end of the link is the test's."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import trio

from agent.app.processes.board import LEAVING, TAKING, Board, Row, open_board
from agent.app.processes.link import Link, open_pair
from agent.app.processes.membership import Alone, Member
from agent.app.processes.messages import AllFigures, AskAll, Birth, Figures, PassOn, Ready, Report, Retire
from agent.core.admission import Admission

pytestmark = pytest.mark.sockets
BIRTH = Birth(
    number=7, place=0, role="calls", settings={}, server_id=uuid4(), secret=b"s", model_url="", listeners=0
)


@asynccontextmanager
async def open_member() -> AsyncIterator[tuple[Member, Link, Board]]:
    ours, theirs = open_pair()
    board, file = open_board()
    parent = Link.over(ours)
    with trio.fail_after(10), file:
        await trio.lowlevel.checkpoint()
        member = Member(BIRTH, Link.over(theirs), board, [], [])
        try:
            yield member, parent, board
        finally:
            parent.close()
            member.link.close()


async def nobody(stream: trio.SocketStream, unread: bytes) -> None:
    raise AssertionError(unread)


async def test_others_know_of_lines_promises_load_and_whether_calls_are_taken() -> None:
    async with open_member() as (member, parent, board):
        admission = Admission(None, promised=lambda: 2, others=member.others, tell=member.tell)
        admission.take_line()
        assert board.rows() == [Row(7, 0, 1, 2)]
        await member.is_ready()
        assert await parent.receive() == (Ready(), [])
        admission.beat(0.9)
        assert board.rows() == [Row(7, TAKING, 1, 2, 1)]
        board.write(1, Row(8, TAKING, 5, 3))
        board.write(2, Row(9, LEAVING, 1, 0))
        assert member.others() == (6, 3)
        member.leaves()
        assert board.rows()[0] == Row(7, LEAVING, 1, 2, 1)


async def test_a_connection_goes_through_the_parent_with_its_descriptor_and_what_was_read() -> None:
    async with open_member() as (member, parent, _):
        near, far = socket.socketpair()
        with near:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            assert await member.pass_on(8, stream, b"read before")
            await stream.aclose()
            received = await parent.receive()
            assert received is not None
            message, descriptors = received
            assert message == PassOn(8, b"read before")
            served = trio.Event()

            async def serve(stream: trio.SocketStream, unread: bytes) -> None:
                await stream.send_all(unread + b" is answered")
                await stream.aclose()
                served.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(member.run, serve)
                await parent.send(message, descriptors)
                socket.socket(fileno=descriptors[0]).close()
                await served.wait()
                nursery.cancel_scope.cancel()
            assert near.recv(100) == b"read before is answered"
            assert near.recv(100) == b"", "no descriptor of it is left open"


async def test_without_a_parent_connections_stay_and_the_process_stops() -> None:
    async with open_member() as (member, parent, _):
        near, far = socket.socketpair()
        with near:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
            parent.close()
            assert not await member.pass_on(8, stream, b"")
            await member.is_ready()
            await member.report()
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(member.run, nobody)
                    async for number in signals:
                        assert number == signal.SIGTERM
                        break
            await stream.aclose()


async def test_it_says_its_figures_asks_for_those_of_all_and_retires() -> None:
    async with open_member() as (member, parent, _), trio.open_nursery() as nursery:
        nursery.start_soon(member.run, nobody)
        member.telemetry.active_calls.set(3)
        await parent.send(Report())
        received = await parent.receive()
        assert received is not None
        assert isinstance(received[0], Figures)
        assert "agent_active_calls 3.0" in received[0].text

        async def answer() -> None:
            assert await parent.receive() == (AskAll(), [])
            await parent.send(AllFigures("of all"))

        nursery.start_soon(answer)
        assert await member.figures() == b"of all"
        await parent.send(Retire())
        await member.retired.wait()
        nursery.cancel_scope.cancel()


async def test_a_parent_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.app.processes.membership.FIGURES_S", 0.1)
    async with open_member() as (member, _, _):
        with pytest.raises(trio.TooSlowError):
            await member.figures()


async def test_a_process_alone_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGHUP stops it in order, as nobody takes the calls over; nohup is respected."""
    assert Alone().signals == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    monkeypatch.setattr("signal.getsignal", lambda _: signal.SIG_IGN)
    assert Alone().signals == (signal.SIGTERM, signal.SIGINT)
    assert Alone().others() == (0, 0)
    assert b"agent_active_calls 0.0" in await Alone().figures()

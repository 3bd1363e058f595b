"""The line of a browser's call, beneath whole calls: what is written at once is kept until it is counted."""

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from agent.browser.line import AT_ONCE, UNACKNOWLEDGED, BrowserLine, LineObserver
from agent.core.caller_leg import Message
from agent.core.errors import SocketClosedError
from agent.wire.message_socket import MessageSocket, SendCheck


class Deaf(LineObserver):
    """Nobody is told."""

    @override
    def connection_lost(self, code: int) -> None:
        pass

    @override
    def connection_back(self, after_s: float) -> None:
        pass

    @override
    def first_word(self, after_s: float) -> None:
        pass

    @override
    def decoded(self, cpu_s: float, lag_s: float) -> None:
        pass


@attrs.define(eq=False)
class Connection(MessageSocket):
    """A connection of a test: what was written, and what it is to say."""

    written: list[Message] = attrs.field(factory=list)
    full: bool = False
    _said: tuple[trio.MemorySendChannel[Message], trio.MemoryReceiveChannel[Message]] = attrs.field(
        factory=lambda: trio.open_memory_channel[Message](100)
    )

    def say(self, message: Message) -> None:
        """The browser sends a message."""
        self._said[0].send_nowait(message)

    def breaks(self) -> None:
        """The network goes away."""
        self._said[0].close()

    @override
    async def receive(self) -> Message:
        try:
            return await self._said[1].receive()
        except trio.EndOfChannel:
            raise SocketClosedError(1006) from None

    @override
    async def send(self, message: Message, may_send: SendCheck | None = None) -> bool:
        await trio.lowlevel.checkpoint()
        return (may_send is None or may_send()) and self.send_now(message)

    @property
    @override
    def takes_now(self) -> bool:
        return not self.full

    @override
    def send_now(self, *messages: Message) -> bool:
        self.written += messages
        return True

    @override
    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    @override
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()


@pytest.fixture
async def line(autojump_clock: MockClock) -> BrowserLine:
    """A line without a connection."""
    return BrowserLine("BR1", Deaf(), silent_s=float("inf"))


async def test_what_was_written_at_once_is_sent_again_when_it_was_swallowed(line: BrowserLine) -> None:
    """WB-6: the engine's way out for frames loses no word either."""
    first, second = Connection(), Connection()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.serve, first)
        await wait_all_tasks_blocked()
        assert line.send_now(b"1", b"2", '{"type":"mark","name":"m"}')
        first.say('{"type":"ping","received":1}')
        await wait_all_tasks_blocked()
        first.breaks()
        await wait_all_tasks_blocked()
        assert not line.takes_now
        assert not line.send_now(b"3")
        nursery.start_soon(line.serve, second, 2)
        await wait_all_tasks_blocked()
        assert line.send_now(b"3")
        line.end(1000, "")
    assert first.written[1:4] == [b"1", b"2", '{"type":"mark","name":"m"}']
    assert second.written[1:] == ['{"type":"mark","name":"m"}', b"3"]


async def test_nothing_is_written_at_once_where_it_would_wait_or_come_first(line: BrowserLine) -> None:
    """A full socket, a write in hand, and a browser that does not read: the pacer's own write meets those."""
    connection = Connection()
    assert not line.send_now(b"0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.serve, connection)
        await wait_all_tasks_blocked()
        connection.full = True
        assert not line.takes_now
        connection.full = False
        async with line._writing:
            assert not line.send_now(b"0")
        while line.send_now(b"1"):
            pass
        line.end(1000, "")
    assert UNACKNOWLEDGED - AT_ONCE < connection.written.count(b"1") <= UNACKNOWLEDGED
    assert b"0" not in connection.written

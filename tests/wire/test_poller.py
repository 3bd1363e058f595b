"""The poller: fair, and nobody's error is another's; and what a peer can do to a socket of its."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from agent.core.errors import SocketClosedError
from agent.wire.frames import PING, Closed, FrameReader, FrameWriter, Pong, Received
from agent.wire.links import TcpLink
from agent.wire.message_socket import CLOSE_GRACE_S, MAX_MESSAGE_BYTES, QUEUED_BYTES, QUEUED_MESSAGES
from agent.wire.polled_socket import UNSENT_CONTROL_BYTES, PolledWebSocket
from agent.wire.poller import GATHER_S, PASS_SOCKETS, Polled, Poller, open_poller

pytestmark = pytest.mark.sockets


def close(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    for pair in pairs:
        for end in pair:
            end.close()


@asynccontextmanager
async def polling() -> AsyncIterator[Poller]:
    poller = Poller()
    with trio.fail_after(15):
        async with trio.open_nursery() as nursery:
            await nursery.start(poller.run)
            assert Poller.running() is poller
            yield poller
            nursery.cancel_scope.cancel()
        assert Poller.running() is None


@attrs.define(eq=False)
class Noted(Polled):
    """Reads what comes; can fail."""

    sock: socket.socket
    seen: list[bytes] = attrs.field(factory=list)
    fails: Exception | None = None
    errors: list[Exception] = attrs.field(factory=list)

    @override
    def on_readable(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.seen.append(self.sock.recv(10))

    @override
    def on_writable(self) -> None:
        raise AssertionError

    @override
    def on_error(self, error: Exception) -> None:
        self.errors.append(error)


async def test_an_error_is_its_own_sockets() -> None:
    """It is told, and not called again; the others are."""
    pairs = [socket.socketpair() for _ in range(3)]
    noted = [Noted(ours) for ours, _ in pairs]
    broken = noted[1].fails = ZeroDivisionError()
    async with polling() as poller:
        for each in noted:
            poller.add(each.sock.fileno(), each)
        for round_ in (b"one", b"two"):
            for _, theirs in pairs:
                theirs.send(round_)
            await trio.sleep(0.05)
        assert [each.seen for each in noted] == [[b"one", b"two"], [], [b"one", b"two"]]
        assert noted[1].errors == [broken]
        poller.remove(noted[0].sock.fileno())
        poller.remove(noted[0].sock.fileno())
    assert noted[0].errors == []
    assert [type(error) for error in noted[2].errors] == [trio.ClosedResourceError], "the poller has ended"
    close(pairs)


async def test_many_readable_sockets_do_not_hold_up_others() -> None:
    """What is readable at once is served in several passes of the scheduler, all of it."""
    pairs = [socket.socketpair() for _ in range(4 * PASS_SOCKETS)]
    noted = [Noted(ours) for ours, _ in pairs]
    served: list[int] = []
    async with polling() as poller:
        for each, (_, theirs) in zip(noted, pairs, strict=True):
            theirs.send(b"x")
            poller.add(each.sock.fileno(), each)
        while not served or served[-1] < len(noted):
            await trio.lowlevel.checkpoint()
            served.append(sum(len(each.seen) for each in noted))
        assert (
            max(later - earlier for earlier, later in zip([0, *served], served, strict=False)) <= 2 * PASS_SOCKETS
        )
        for each in noted:
            poller.remove(each.sock.fileno())
    close(pairs)


@asynccontextmanager
async def server_socket() -> AsyncIterator[tuple[PolledWebSocket, socket.socket]]:
    """A server's end that is the poller's, and the peer's bare socket."""
    async with polling() as poller:
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        made = PolledWebSocket.over(TcpLink(ours), poller, client=False)
        with theirs:
            yield made, theirs
            made.drop()
            assert not poller._polled


async def test_a_receiver_that_fails_says_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in our own code reaches the task of its call."""
    async with server_socket() as (ours, peer):
        monkeypatch.setattr(ours, "_take", lambda _data: 1 / 0)
        peer.send(b"anything")
        with pytest.raises(ZeroDivisionError):
            await ours.receive()
        with pytest.raises(ZeroDivisionError):
            await ours.send("x")


@pytest.mark.parametrize(("frame", "code"), [(b"\x83\x80abcd", 1002), (b"\x81\x81abcd\x9e", 1007)])
async def test_what_is_against_the_protocol_is_closed_with_its_code(frame: bytes, code: int) -> None:
    """The peer is told, nothing behind it is read, and the connection is dropped."""
    good = FrameWriter(client=True).message("good")
    async with server_socket() as (ours, peer):
        peer.send(good + frame + good)
        assert await ours.receive() == "good"
        for _ in range(2):
            with pytest.raises(SocketClosedError) as caught:
                await ours.receive()
            assert caught.value.code == code
        [told] = FrameReader(client=True, max_message_bytes=1000).feed(peer.recv(1000))
        assert getattr(told, "code", None) == code
        began = trio.current_time()
        await ours.aclose()
        assert trio.current_time() - began < CLOSE_GRACE_S, "there is nothing to wait for"
        assert peer.recv(10) == b""


async def test_pings_of_a_peer_that_does_not_read_cost_no_memory() -> None:
    """Nor are they answered for ever; when it reads again, all is well."""
    whole = FrameWriter(client=True).frame(PING, b"x" * 125) * 30_000
    async with server_socket() as (ours, peer):
        sent = 0
        while sent < len(whole):
            try:
                sent += peer.send(whole[sent : sent + 100_000])
            except BlockingIOError:
                await trio.sleep(0.001)
        await trio.sleep(0.05)
        assert 0 < ours._link.unsent <= UNSENT_CONTROL_BYTES + 200
        reader, pongs = FrameReader(client=True, max_message_bytes=1000), 0
        while ours._link.unsent:
            pongs += sum(isinstance(event, Pong) for event in reader.feed(peer.recv(100_000)))
            await trio.sleep(0.001)
        assert pongs
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.ping)
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_a_cancelled_writer_leaves_no_half_frame() -> None:
    """What it began goes out whole, and what comes next stands behind it."""
    async with server_socket() as (ours, peer):
        long = "x" * 1_500_000
        with trio.move_on_after(0.05) as scope:
            await ours.send(long)
        assert scope.cancelled_caught
        reader, got = FrameReader(client=True, max_message_bytes=2_000_000), list[Received]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, "next")
            while len(got) < 2:
                try:
                    got += reader.feed(peer.recv(100_000))
                except BlockingIOError:
                    await trio.sleep(0.001)
        assert got == [long, "next"]


async def test_a_writer_that_waits_is_told_of_the_end() -> None:
    """Nobody reads, then the peer is gone."""
    async with server_socket() as (ours, peer):

        async def send() -> None:
            with pytest.raises(SocketClosedError):
                await ours.send("x" * 1_500_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(0.05)
            peer.close()


async def test_a_reset_while_nobody_receives_is_seen() -> None:
    """Reading has stopped because the queue is full: the end does not wait for it to go on."""
    async with server_socket() as (ours, peer):
        flood = FrameWriter(client=True).message("x" * 1000) * (QUEUED_MESSAGES + 200)
        sent = 0
        while ours._reading:
            sent += peer.send(flood[sent : sent + 20_000])
            await trio.sleep(0.001)
        peer.close()
        with trio.fail_after(5):
            while ours._end is None:  # noqa: ASYNC110 - nobody waits for it, that is the point
                await trio.sleep(0.001)
        with pytest.raises(SocketClosedError):
            await ours.send("too late")
        assert len(ours._queue) >= QUEUED_MESSAGES, "what was read is still there"


async def test_few_large_messages_fill_the_queue_as_many_small_ones_do() -> None:
    """A peer that sends 2 MB a message while nobody receives could have us hold a gigabyte. DO-1."""
    async with server_socket() as (ours, peer), trio.open_nursery() as nursery:
        large, total = "x" * (MAX_MESSAGE_BYTES - 10), 6
        flood = FrameWriter(client=True).message(large) * total
        client = trio.SocketStream(trio.socket.from_stdlib_socket(peer))
        nursery.start_soon(client.send_all, flood)
        with trio.fail_after(20):
            while ours._reading:  # noqa: ASYNC110 - nobody waits for it
                await trio.sleep(0.001)
            assert sum(map(len, ours._queue)) == ours._queued <= QUEUED_BYTES + MAX_MESSAGE_BYTES
            assert [await ours.receive() for _ in range(total)] == [large] * total
        assert ours._reading
        assert ours._queued == 0


async def test_a_sink_takes_messages_in_the_tasks_stead() -> None:
    """Only while the task waits, all in order; its error is the task's, and a cancelled task's wait is over."""
    taken, got = list[str](), list[str]()
    waiting = trio.CancelScope()

    def sink(message: str | bytes) -> None:
        if message == "broken":
            raise ZeroDivisionError
        taken.append(str(message))
        if message == "last":
            waiting.cancel()

    async with server_socket() as (ours, peer):
        say = FrameWriter(client=True).message
        ours.serve_by(sink)
        peer.send(say("early"))
        await trio.sleep(0.02)
        assert await ours.receive() == "early", "nobody waited"

        async def receive() -> None:
            with waiting:
                while True:
                    got.append(str(await ours.receive()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.sleep(0.02)
            peer.send(say("1") + say("2"))
            await trio.sleep(0.02)
            peer.send(say("last") + say("3"))
            await trio.sleep(0.02)
            assert waiting.cancelled_caught
        assert (taken, got) == (["1", "2", "last"], [])
        peer.send(say("4"))
        await trio.sleep(0.02)
        assert [await ours.receive() for _ in range(2)] == ["3", "4"], "a cancelled task does not wait"
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(ZeroDivisionError):
                    await ours.receive()

            nursery.start_soon(fail)
            await trio.sleep(0.02)
            peer.send(say("broken"))


async def test_what_is_sent_now_is_whole_and_in_order() -> None:
    """False where it would have to wait, behind a close, and at the end; then nothing was done."""
    async with server_socket() as (ours, peer):
        long = "x" * 300_000
        assert ours.takes_now
        assert ours.send_now(long)
        assert not ours.takes_now, "it has not all gone"
        assert not ours.send_now("never")
        reader, got = FrameReader(client=True, max_message_bytes=2_000_000), list[Received]()
        while not got:
            try:
                got += reader.feed(peer.recv(100_000))
            except BlockingIOError:
                await trio.sleep(0.001)
        assert ours.send_now("next", b"and next")
        await trio.sleep(0.01)
        assert [*got, *reader.feed(peer.recv(100))] == [long, "next", b"and next"]
        peer.close()
        await trio.sleep(0.02)
        assert not ours.send_now("too late")
        with pytest.raises(SocketClosedError):
            await ours.send("too late")


async def test_a_server_that_is_cancelled_still_closes_in_order() -> None:
    """All at once, from outside: the poller is there until the last socket has said that it goes."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reader, told = FrameReader(client=True, max_message_bytes=1_000_000), list[Received]()

    async def read() -> None:
        while data := await stream.receive_some(100_000):
            told.extend(reader.feed(bytes(data)))

    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream, trio.open_nursery() as peer:
        with trio.fail_after(5), trio.CancelScope() as everything:
            async with open_poller():
                poller = Poller.running()
                assert poller is not None
                made = PolledWebSocket.over(TcpLink(ours), poller, client=False)
                made.send_now("x" * 500_000)
                peer.start_soon(read)
                everything.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    await made.aclose(1001, "the server stops")  # noqa: ASYNC102 - bounded by itself
        assert everything.cancelled_caught
        assert Poller.running() is None
    assert told == ["x" * 500_000, Closed(1001, "the server stops")]


async def test_two_receivers_are_one_too_many() -> None:
    async with server_socket() as (ours, _peer), trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive)
        await trio.sleep(0.01)
        with pytest.raises(trio.BusyResourceError):
            await ours.receive()
        nursery.cancel_scope.cancel()


async def test_the_poller_ends_before_its_sockets() -> None:
    """Out of order: whoever waits is told, and the socket can still be dropped."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        async with polling() as poller:
            made = PolledWebSocket.over(TcpLink(ours), poller, client=False)
        with pytest.raises(trio.ClosedResourceError):
            await made.receive()
        await made.aclose()
        assert ours.fileno() == -1


async def test_what_comes_one_by_one_is_taken_at_once_and_a_crowd_is_let_gather(mock_clock: MockClock) -> None:
    """The clock stands still: a lone message waits for nothing, those behind a crowd for the next mark."""
    pairs = [socket.socketpair() for _ in range(2)]
    noted = [Noted(ours) for ours, _ in pairs]
    async with polling() as poller:
        for each in noted:
            poller.add(each.sock.fileno(), each)
        for byte in (b"1", b"2"):
            pairs[0][1].send(byte)
            await wait_all_tasks_blocked()
        assert noted[0].seen == [b"1", b"2"]
        for round_ in (b"a", b"b"):
            for _, theirs in pairs:
                theirs.send(round_)
            await wait_all_tasks_blocked()
        assert [each.seen[-1] for each in noted] == [b"a", b"a"]
        mock_clock.jump(GATHER_S)
        await wait_all_tasks_blocked()
        assert [each.seen[-1] for each in noted] == [b"b", b"b"]
        mock_clock.jump(GATHER_S)
        await wait_all_tasks_blocked()
        pairs[0][1].send(b"alone")
        await wait_all_tasks_blocked()
        assert noted[0].seen[-1] == b"alone"
    close(pairs)

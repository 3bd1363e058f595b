"""What waits for the model: order, what survives a lost session, and how much caller audio is kept."""

from __future__ import annotations

from collections import Counter
from typing import cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from agent.core.errors import SocketClosedError
from agent.core.graceful import run_until_stopped
from agent.model.outbox import GIVE_WAY_EVERY, KEEP_AUDIO_MESSAGES, ModelOutbox
from agent.wire.websocket import MessageSocket


@attrs.define(eq=False)
class Socket:
    """Keeps what is sent; each message takes a while."""

    sent: list[str] = attrs.field(factory=list)
    took_s: float = 0.0
    closed_after: int | None = None
    full: bool = True
    """Whether it makes a sender wait."""
    sent_now: list[str] = attrs.field(factory=list)

    def send_now(self, message: str | bytes) -> bool:
        """See MessageSocket."""
        if not self.full:
            self.sent.append(str(message))
            self.sent_now.append(str(message))
        return not self.full

    async def send(self, message: str | bytes, may_send: object = None) -> bool:
        """See MessageSocket."""
        if self.closed_after is not None and len(self.sent) >= self.closed_after:
            raise SocketClosedError(1006)
        await trio.sleep(self.took_s)
        self.sent.append(str(message))
        return True


def as_socket(socket: Socket) -> MessageSocket:
    """Only the two ways to send are used."""
    return cast("MessageSocket", socket)


@attrs.define(eq=False)
class Box:
    """An outbox that counts what it drops."""

    tally: Counter[str] = attrs.field(factory=Counter)
    outbox: ModelOutbox = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.outbox = ModelOutbox(lambda: self.tally.update(["dropped"]))


async def drain(outbox: ModelOutbox) -> list[str]:
    """All that waits, in order."""
    socket = Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, as_socket(socket))
        await wait_all_tasks_blocked()
        outbox.stop()
    return socket.sent


async def test_messages_leave_in_order_as_they_come(autojump_clock: MockClock) -> None:
    outbox, socket = Box().outbox, Socket(took_s=0.01)
    outbox.open_session("session")
    outbox.begin([])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, as_socket(socket))
        for number in range(20):
            (outbox.put_audio if number % 2 else outbox.put)(str(number))
            await trio.sleep(0.007)
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        outbox.stop()
    assert socket.sent == ["session", *map(str, range(20))]


async def test_what_nothing_waits_before_is_written_at_once(autojump_clock: MockClock) -> None:
    """By whoever puts it, while the writer has nothing to do; in order, whatever the socket takes when."""
    outbox, socket, full = (
        Box().outbox,
        Socket(took_s=0.01),
        [False, True, False, False, True, True, False, False],
    )
    outbox.open_session("session")
    outbox.put("before")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, as_socket(socket))
        await wait_all_tasks_blocked()
        socket.full = False
        outbox.put_audio("not confirmed yet")
        outbox.begin([])
        outbox.put("behind those")
        await trio.sleep(1)
        assert not socket.sent_now
        for number in range(40):
            socket.full = full[number % 8]
            outbox.put_audio(str(number))
            await trio.sleep(0.006)
        await trio.sleep(1)
        outbox.stop()
        outbox.put("to nobody")
    assert socket.sent == ["session", "before", "not confirmed yet", "behind those", *map(str, range(40))]
    assert 0 < len(socket.sent_now) < 40


async def test_a_long_queue_gives_way_to_others(autojump_clock: MockClock) -> None:
    """A socket that takes all at once does not hold the event loop."""

    class Quick(Socket):
        """Its ``send`` never waits."""

        @override
        async def send(self, message: str | bytes, may_send: object = None) -> bool:
            self.sent.append(str(message))
            return True

    outbox, socket, seen = Box().outbox, Quick(), list[int]()
    outbox.begin([str(number) for number in range(5 * GIVE_WAY_EVERY)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, as_socket(socket))
        while not seen or seen[-1] < 5 * GIVE_WAY_EVERY:
            await trio.lowlevel.checkpoint()
            seen.append(len(socket.sent))
        outbox.stop()
    assert len(set(seen)) >= 3


async def test_what_opens_a_session_goes_before_all_that_waits(autojump_clock: MockClock) -> None:
    outbox = Box().outbox
    outbox.put_audio("audio")
    outbox.open_session("session.update")
    outbox.begin(["history", "greeting"])
    assert await drain(outbox) == ["session.update", "history", "greeting", "audio"]


async def test_mo_1_nothing_but_its_settings_is_said_to_a_session_that_has_not_confirmed_them(
    autojump_clock: MockClock,
) -> None:
    outbox = Box().outbox
    outbox.put_audio("audio")
    outbox.open_session("session.update")
    assert await drain(outbox) == ["session.update"]
    outbox.open_session("session.update, one field less")
    assert await drain(outbox) == ["session.update, one field less"]


async def test_a_lost_session_keeps_only_the_callers_audio(autojump_clock: MockClock) -> None:
    """A cancel or truncate of the old session means nothing in the next one; the caller's words do."""
    outbox = Box().outbox
    outbox.begin([])
    outbox.put("response.cancel")
    outbox.put_audio("a1")
    outbox.put("truncate")
    outbox.put_audio("a2")
    outbox.lose_session()
    outbox.put_audio("a3")
    outbox.open_session("session.update")
    outbox.begin([])
    assert await drain(outbox) == ["session.update", "a1", "a2", "a3"]


async def test_without_a_session_the_newest_15_seconds_are_kept(autojump_clock: MockClock) -> None:
    box = Box()
    for number in range(KEEP_AUDIO_MESSAGES + 50):
        box.outbox.put_audio(str(number))
    assert box.tally["dropped"] == 50
    box.outbox.begin([])
    assert await drain(box.outbox) == [str(number) for number in range(50, KEEP_AUDIO_MESSAGES + 50)]
    box.outbox.lose_session()
    box.outbox.put_audio("again")
    assert box.tally["dropped"] == 50, "what was sent does not count any more"


async def test_with_a_session_nothing_is_dropped(autojump_clock: MockClock) -> None:
    """A slow socket is not a lost one."""
    box = Box()
    box.outbox.begin([])
    for number in range(2 * KEEP_AUDIO_MESSAGES):
        box.outbox.put_audio(str(number))
    assert not box.tally
    assert len(await drain(box.outbox)) == 2 * KEEP_AUDIO_MESSAGES


async def test_other_events_are_never_dropped_for_audio(autojump_clock: MockClock) -> None:
    box = Box()
    box.outbox.put("event")
    for number in range(KEEP_AUDIO_MESSAGES + 1):
        box.outbox.put_audio(str(number))
    box.outbox.begin([])
    assert (await drain(box.outbox))[:2] == ["event", "1"]


async def test_a_closed_socket_ends_it_with_the_sockets_error(autojump_clock: MockClock) -> None:
    outbox, socket = Box().outbox, Socket(closed_after=2)
    outbox.begin(["1", "2", "3"])
    with pytest.raises(SocketClosedError):
        await outbox.run(as_socket(socket))
    assert socket.sent == ["1", "2"]


async def test_a_cancel_ends_it_behind_a_whole_message(autojump_clock: MockClock) -> None:
    """Under ``run_until_stopped``, as the sessions run it: the message under way is finished, no other begun."""
    outbox, socket = Box().outbox, Socket(took_s=1)
    outbox.begin(["1", "2", "3"])
    with trio.move_on_after(1.5) as scope:
        await run_until_stopped(lambda: outbox.run(as_socket(socket)), outbox.stop, grace_s=5)
    assert scope.cancelled_caught
    assert socket.sent == ["1", "2"]


async def test_an_idle_outbox_stops_at_once(autojump_clock: MockClock) -> None:
    outbox = Box().outbox
    began = trio.current_time()
    with trio.move_on_after(1):
        await run_until_stopped(lambda: outbox.run(as_socket(Socket())), outbox.stop, grace_s=5)
    assert trio.current_time() - began == 1

"""A writer that is cancelled ends between two messages, or after its grace."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import MockClock

from agent.core.graceful import run_until_stopped


@attrs.define(eq=False)
class Writer:
    """Writes messages in two halves, a second each."""

    written: list[str] = attrs.field(factory=list)
    asked: bool = False
    deaf: bool = False
    messages: int = 1000
    asked_times: int = 0

    def stop(self) -> None:
        """Return at the next boundary."""
        self.asked_times += 1
        self.asked = not self.deaf

    async def run(self) -> None:
        """Write until asked to stop."""
        await trio.lowlevel.checkpoint()
        while not self.asked and len(self.written) < 2 * self.messages:
            self.written.append("first half")
            await trio.sleep(1)
            self.written.append("second half")


async def test_a_cancel_asks_and_the_message_is_finished(autojump_clock: MockClock) -> None:
    """Wherever in a message the cancel lands, only whole messages are written."""
    for at_s in (0.0, 0.1, 0.9, 1.0, 2.5):
        writer = Writer()
        began = trio.current_time()
        with trio.move_on_after(at_s) as scope:
            await run_until_stopped(writer.run, writer.stop, grace_s=5)
        assert scope.cancelled_caught, "the cancel itself is not swallowed"
        assert len(writer.written) % 2 == 0
        assert writer.asked_times == 1
        assert trio.current_time() - began <= at_s + 1


async def test_after_the_grace_it_is_cut_off(autojump_clock: MockClock) -> None:
    """A write that does not come to an end costs the grace, not the call."""
    writer = Writer(deaf=True)
    began = trio.current_time()
    with trio.move_on_after(2.5) as scope:
        await run_until_stopped(writer.run, writer.stop, grace_s=2.2)
    assert scope.cancelled_caught
    assert trio.current_time() - began == pytest.approx(4.7)
    assert writer.written[-1] == "first half"


async def test_a_writer_that_ends_by_itself_just_returns(autojump_clock: MockClock) -> None:
    writer = Writer(messages=3)
    began = trio.current_time()
    with trio.fail_after(60):
        await run_until_stopped(writer.run, writer.stop, grace_s=5)
    assert trio.current_time() - began == 3
    assert writer.written == ["first half", "second half"] * 3


async def test_errors_come_bare(autojump_clock: MockClock) -> None:
    """Not wrapped into a group: callers catch the socket's error by its class."""

    async def fail() -> None:
        await trio.sleep(1)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await run_until_stopped(fail, lambda: None, grace_s=5)


async def test_an_error_while_finishing_is_not_lost(autojump_clock: MockClock) -> None:
    """The cancel came first, but what went wrong afterwards is what the caller has to know."""

    async def fail() -> None:
        await trio.sleep(2)
        raise OSError("gone")

    with trio.move_on_after(1), pytest.raises(OSError, match="gone"):
        await run_until_stopped(fail, lambda: None, grace_s=5)

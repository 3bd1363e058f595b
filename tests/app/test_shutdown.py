"""Stopping in virtual time: calls may end by themselves, then they are ended, and nothing waits for ever."""

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
from trio.testing import MockClock

from agent.app.shutdown import ENDING_S, GUESTS_S, StopSignals, drain, open_guests
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid


@attrs.define(eq=False)
class FakeServices:
    """Calls as drain sees them: each talks for a while, and takes a while to end when it is cancelled."""

    calls: dict[CallSid, trio.CancelScope] = attrs.field(factory=dict)
    emptied: trio.Event = attrs.field(factory=trio.Event)
    cancelled: list[str] = attrs.field(factory=list)
    events: EventLog = attrs.field(factory=lambda: EventLog(Telemetry()))

    async def call(self, name: CallSid, talk_s: float, ending_s: float = 0.0) -> None:
        """One call, registered before it runs."""
        with self.calls[name]:
            await trio.sleep(talk_s)
        if self.calls[name].cancelled_caught:
            self.cancelled.append(name)
            await trio.sleep(ending_s)
        del self.calls[name]
        if not self.calls:
            self.emptied.set()

    async def wait_empty(self) -> None:
        """As StreamAdmission.wait_empty."""
        if self.calls:
            await self.emptied.wait()

    async def drained_after(
        self, *calls: tuple[float, float], drain_s: float, hurry_s: float | None = None
    ) -> float:
        """How long ``drain`` took with calls of these talk and ending times."""
        hurry = trio.Event()

        async def hurry_up(after_s: float) -> None:
            await trio.sleep(after_s)
            hurry.set()

        async with trio.open_nursery() as nursery:
            for number, (talk_s, ending_s) in enumerate(calls):
                self.calls[CallSid(str(number))] = trio.CancelScope()
                nursery.start_soon(self.call, CallSid(str(number)), talk_s, ending_s)
            if hurry_s is not None:
                nursery.start_soon(hurry_up, hurry_s)
            began = trio.current_time()
            await drain(self.calls, self.wait_empty, hurry, drain_s=drain_s, events=self.events)
            took_s = trio.current_time() - began
            nursery.cancel_scope.cancel()
        return took_s


async def test_with_no_call_it_stops_at_once(autojump_clock: MockClock) -> None:
    assert await FakeServices().drained_after(drain_s=20) == 0


async def test_calls_that_end_in_time_are_left_alone(autojump_clock: MockClock) -> None:
    services = FakeServices()
    assert await services.drained_after((3, 0), (7, 0), drain_s=20) == 7
    assert services.cancelled == []


async def test_a_call_that_goes_on_is_ended_and_its_ending_awaited(autojump_clock: MockClock) -> None:
    services = FakeServices()
    assert await services.drained_after((3, 0), (1000, 2), drain_s=20) == 22
    assert services.cancelled == ["1"]


async def test_a_second_signal_shortens_the_wait(autojump_clock: MockClock) -> None:
    services = FakeServices()
    assert await services.drained_after((1000, 2), drain_s=20, hurry_s=5) == 7
    assert services.cancelled == ["0"]


async def test_an_ending_that_hangs_is_abandoned_and_counted(autojump_clock: MockClock) -> None:
    services = FakeServices()
    assert await services.drained_after((1000, 1000), drain_s=20) == 20 + ENDING_S
    assert services.events.counts["CALLS_ABANDONED"] == 1


async def test_no_patience_at_all(autojump_clock: MockClock) -> None:
    assert await FakeServices().drained_after((1000, 1), drain_s=0) == 1


async def test_one_signal_stops_two_hurry_three_cancel() -> None:
    async def signals() -> AsyncIterator[int]:
        yield signal.SIGTERM
        assert stop.stop.is_set()
        assert not stop.hurry.is_set()
        yield signal.SIGINT
        assert stop.hurry.is_set()
        assert not everything.cancel_called
        yield signal.SIGTERM
        await trio.lowlevel.checkpoint()

    stop, everything = StopSignals(EventLog(Telemetry())), trio.CancelScope()
    await stop.watch(signals(), everything)
    assert everything.cancel_called


LEFT_BEHIND = """
import sys, threading, trio
from agent.app.shutdown import open_guests

async def main():
    async with open_guests() as guests:
        guests.start_soon(trio.to_thread.run_sync, threading.Event().wait)
        await trio.sleep(0.05)
        print("all else has ended")
        if len(sys.argv) > 1:
            raise ValueError(sys.argv[1])

trio.run(main)
"""


@pytest.mark.sockets
@pytest.mark.parametrize("error", ["", "the port is taken"])
def test_a_guest_that_no_cancel_stops_does_not_hold_the_process(error: str) -> None:
    """Its thread hangs for ever: the process ends within the bound, and says how it would have ended."""
    began_s = time.monotonic()
    command = [sys.executable, "-c", LEFT_BEHIND, *filter(None, [error])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GUESTS_S + 20)
    assert done.stdout == "all else has ended\n"
    assert done.returncode == bool(error)
    assert (f"ValueError: {error}" in done.stderr) == bool(error)
    assert time.monotonic() - began_s >= GUESTS_S


async def test_guests_that_end_in_time_are_waited_for(autojump_clock: MockClock) -> None:
    """Also if everything is cancelled from outside: what was begun for a caller comes to its end."""
    ended: list[float] = []

    async def write() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(GUESTS_S - 1)
        ended.append(trio.current_time())

    began_s = trio.current_time()
    with trio.CancelScope() as everything:
        async with open_guests() as guests:
            guests.start_soon(write)
            everything.cancel()
            await trio.sleep_forever()
    assert ended == [began_s + GUESTS_S - 1]

"""Code of others: whoever waits for it can leave, and what it does then is bounded, or told."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent.call.guests import CLEAN_UP_S, Guests
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry

GRACE_S = 2.0


def make_guests(nursery: trio.Nursery) -> Guests:
    return Guests(nursery, EventLog(Telemetry()))


async def shielded(seconds: float) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def fail(after_s: float = 0.0) -> None:
    await trio.sleep(after_s)
    raise ValueError("no")


async def fail_in_clean_up() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("no")


async def leave_after(guests: Guests, seconds: float, run: object, grace_s: float = 0.0) -> None:
    """Wait for a guest, and be cancelled."""
    began_s = trio.current_time()
    with trio.move_on_after(seconds) as waiting:
        await guests.run("guest", run, grace_s=grace_s)  # type: ignore[arg-type]
    assert waiting.cancelled_caught
    assert trio.current_time() == began_s + seconds, "a cancel ends the wait at once"


async def test_its_error_is_raised_where_it_is_waited_for(autojump_clock: MockClock) -> None:
    """Bare, alone or not; nothing of it stays."""
    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        with pytest.raises(ValueError, match="no"):
            await guests.run("guest", fail)
        assert await guests.until_ended() == []
    assert guests.events.counts == {}


@pytest.mark.parametrize("seconds", [0.5, 1.9])
async def test_what_is_begun_has_its_grace(autojump_clock: MockClock, seconds: float) -> None:
    """It comes to its end within it, and whoever asks waits no longer than that."""
    done: list[float] = []

    async def write() -> None:
        await trio.sleep(1.0 + seconds)
        done.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        began_s = trio.current_time()
        await leave_after(guests, 1.0, write, GRACE_S)
        assert await guests.until_ended() == []
        assert done == [trio.current_time()] == [began_s + 1.0 + seconds]


async def test_after_its_grace_it_is_cancelled(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        left_s = trio.current_time() + 1.0
        await leave_after(guests, 1.0, trio.sleep_forever, GRACE_S)
        assert await guests.until_ended() == []
        assert trio.current_time() == left_s + GRACE_S


async def test_what_does_not_obey_is_named_and_left(autojump_clock: MockClock) -> None:
    """Who asks waits for its clean-up alone; who still waits for another guest is nobody's business."""
    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        nursery.start_soon(guests.run, "waited for", lambda: shielded(30.0))
        await leave_after(guests, 1.0, lambda: shielded(60.0))
        asked_s = trio.current_time()
        assert await guests.until_ended("another") == []
        assert trio.current_time() == asked_s
        assert await guests.until_ended() == ["guest"]
        assert trio.current_time() == pytest.approx(asked_s + CLEAN_UP_S)


@pytest.mark.parametrize("run", [lambda: fail(1.5), fail_in_clean_up], ids=["in its grace", "in its clean-up"])
async def test_an_error_that_nobody_waits_for_is_logged(autojump_clock: MockClock, run: object) -> None:
    """As what its host calls it; it reaches neither the call nor the nursery."""
    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        with trio.move_on_after(1.0):
            await guests.run("guest", run, grace_s=1.0, failed="TOOL_FAILED")  # type: ignore[arg-type]
        assert await guests.until_ended() == []
    assert guests.events.counts == {"TOOL_FAILED": 1}


async def test_an_error_in_the_instant_of_the_cancel_is_logged_or_raised() -> None:
    """Whichever the scheduler runs first, it is not lost."""
    for _ in range(50):
        fails = trio.Event()

        async def fail_when_told(told: trio.Event = fails) -> None:
            await told.wait()
            raise ValueError("no")

        async with trio.open_nursery() as nursery:
            guests = make_guests(nursery)
            with trio.CancelScope() as waiting:

                async def strike(told: trio.Event = fails, scope: trio.CancelScope = waiting) -> None:
                    await wait_all_tasks_blocked()
                    told.set()
                    scope.cancel()

                nursery.start_soon(strike)
                with suppress(ValueError):
                    await guests.run("guest", fail_when_told, grace_s=GRACE_S)
            await guests.until_ended()
        assert waiting.cancelled_caught == bool(guests.events.counts["GUEST_FAILED"])


async def test_nothing_is_begun_for_a_call_that_is_over(autojump_clock: MockClock) -> None:
    begun: list[str] = []

    async def begin() -> None:
        begun.append("begun")

    async with trio.open_nursery() as nursery:
        guests = make_guests(nursery)
        with trio.CancelScope() as scope:
            scope.cancel()
            await guests.run("guest", begin, grace_s=GRACE_S)
    assert begun == []


async def test_a_cancel_of_everything_leaves_a_guest_its_grace(autojump_clock: MockClock) -> None:
    """The house is torn down: what was begun for a caller comes to its end, and whoever asks is cancelled."""
    done: list[str] = []

    async def write() -> None:
        await trio.sleep(1.5)
        done.append("done")

    with trio.CancelScope() as everything:
        async with trio.open_nursery() as nursery:
            guests = make_guests(nursery)
            nursery.start_soon(lambda: guests.run("guest", write, grace_s=GRACE_S))
            await trio.sleep(1.0)
            everything.cancel()
            await guests.until_ended()
    assert done == ["done"]


async def test_a_crash_of_the_process_is_none_of_its_business(autojump_clock: MockClock) -> None:
    """What is no Exception ends the process as ever."""

    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt):
        async with trio.open_nursery() as nursery:
            await make_guests(nursery).run("guest", interrupt)

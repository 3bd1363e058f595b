"""The metronome: one grid for good, phases, stalls, sleeping, cancelled seats."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from agent.audio.metronome import Metronome, PacerSlot


async def ticks(slot: PacerSlot, count: int, into: list[float]) -> None:
    for _ in range(count):
        deadline = await slot.tick()
        assert deadline is not None
        into.append(trio.current_time())


async def test_tx_1_ticks_come_on_absolute_deadlines(autojump_clock: MockClock) -> None:
    """However long the work between two ticks takes, short of a period: no drift in ten minutes."""
    metronome, at = Metronome(), list[float]()
    slot = metronome.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        for count in range(3000):
            await slot.tick()
            at.append(trio.current_time())
            await trio.sleep((count % 18) / 1000)
        nursery.cancel_scope.cancel()
    assert at[-1] - at[0] == pytest.approx(2999 * 0.02, abs=1e-6)


async def test_seats_are_spread_over_the_phases(autojump_clock: MockClock) -> None:
    """Twenty pacers tick in ten groups, 2 ms apart."""
    metronome = Metronome()
    when: dict[int, list[float]] = {number: [] for number in range(20)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        async with trio.open_nursery() as pacers:
            for number in range(20):
                pacers.start_soon(ticks, metronome.attach(), 5, when[number])
        nursery.cancel_scope.cancel()
    assert len({round(times[0] * 1000) for times in when.values()}) == 10
    for times in when.values():
        assert times[-1] - times[0] == pytest.approx(0.08)


async def test_tx_1_a_late_tick_is_not_made_up_for(autojump_clock: MockClock) -> None:
    """A pacer that is busy for 100 ms gets its next tick on the grid, and the missed ones never."""
    metronome, at = Metronome(), list[float]()
    slot = metronome.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        await ticks(slot, 3, at)
        await trio.sleep(0.1)
        await ticks(slot, 3, at)
        nursery.cancel_scope.cancel()
    gaps = [round((later - earlier) * 1000) for earlier, later in pairwise(at)]
    assert gaps[:2] == [20, 20]
    assert 100 <= gaps[2] <= 120
    assert gaps[3:] == [20, 20]


async def test_a_poke_ends_any_wait(autojump_clock: MockClock) -> None:
    """One for a tick as well as an idle one; a poke while nobody waits is not kept for a later wait."""
    metronome = Metronome()
    slot = metronome.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        nursery.start_soon(call_later, 5.005, slot.wake)
        await slot.idle()
        assert trio.current_time() == pytest.approx(5.005)
        nursery.start_soon(call_later, 0.001, slot.wake)
        assert await slot.tick() is None
        slot.wake()
        assert await slot.tick() is not None
        nursery.cancel_scope.cancel()


async def test_a_nudge_ends_an_idle_wait_only(autojump_clock: MockClock) -> None:
    """Whoever waits for a tick gets it, in the instant of a nudge too, whichever of the two comes first."""
    metronome, at = Metronome(), list[float]()
    slot = metronome.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        nursery.start_soon(call_later, 5, slot.wake_if_idle)
        await slot.idle()
        assert trio.current_time() == pytest.approx(5)
        for count in range(1, 61):
            nursery.start_soon(call_later, count * 0.02, slot.wake_if_idle)
        await ticks(slot, 50, at)
        nursery.cancel_scope.cancel()
    assert {round((later - earlier) * 1000) for earlier, later in pairwise(at)} == {20}


async def call_later(after_s: float, what: Callable[[], None]) -> None:
    await trio.sleep(after_s)
    what()


async def test_a_cancelled_wait_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """The seat can wait again, and the metronome goes back to sleep."""
    metronome = Metronome()
    slot = metronome.attach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        with trio.move_on_after(0.003):
            await slot.tick()
        assert not slot.expects_tick
        await trio.sleep(3600)
        assert await slot.tick() is not None
        slot.leave()
        slot.leave()
        nursery.cancel_scope.cancel()

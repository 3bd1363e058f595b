"""The metronome: one grid for good, stalls, sleeping, cancelled slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import ceil
from typing import Final

import attrs
import pytest
import trio
from trio.testing import MockClock

from agent.audio.metronome import Metronome, PacerSlot

PASS_S: Final = 0.003
"""What a pass of the scheduler takes on a busy core."""


@attrs.define(eq=False)
class SlowPasses(trio.abc.Instrument):
    """Each pass of the scheduler takes time, as on a core that is busy; counts them."""

    clock: MockClock
    pass_s: float = PASS_S
    passes: int = 0

    def before_io_wait(self, timeout: float) -> None:
        """A pass ends here."""
        self.passes += 1
        self.clock.jump(self.pass_s)


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


async def test_a_beat_is_one_pass_of_the_scheduler(autojump_clock: MockClock) -> None:
    """However many pacers wait, all are rung together: the clock jumps, the metronome runs, the pacers run."""
    passes: dict[int, int] = {}
    for pacers in (1, 40):
        metronome, slow = Metronome(), SlowPasses(autojump_clock, pass_s=0.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(metronome.run)
            for _ in range(pacers):
                nursery.start_soon(ticks, metronome.attach(), 1000, [])
            await trio.sleep_until(ceil(trio.current_time()) + 0.005)
            trio.lowlevel.add_instrument(slow)
            await trio.sleep(2)
            trio.lowlevel.remove_instrument(slow)
            nursery.cancel_scope.cancel()
        passes[pacers] = slow.passes
    assert passes[40] == passes[1] < 4 * 100


async def test_nobody_is_rung_last_at_each_beat(autojump_clock: MockClock) -> None:
    """The order in which pacers run goes round, so that a long beat is late for each in its turn."""
    metronome, order = Metronome(), list[int]()

    async def pace(number: int) -> None:
        slot = metronome.attach()
        for _ in range(50):
            await slot.tick()
            order.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        async with trio.open_nursery() as pacers:
            for number in range(5):
                pacers.start_soon(pace, number)
        nursery.cancel_scope.cancel()
    last = Counter(order[4::5])
    assert len(order) == 250
    assert set(last) == set(range(5)), last


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


@pytest.mark.parametrize("stall_s", [0.0033, 0.0199, 0.021, 0.0567, 0.1, 3.0])
async def test_tx_1_after_a_stall_the_grid_is_kept_and_whole_missed_beats_are_skipped(
    autojump_clock: MockClock, stall_s: float
) -> None:
    """The process stands still: each slot rings at once for the latest beat, then on the old grid."""
    metronome = Metronome()
    slots = [metronome.attach() for _ in range(10)]
    deadlines: dict[int, list[float]] = {number: [] for number in range(10)}
    rung_s: dict[int, list[float]] = {number: [] for number in range(10)}

    async def pace(number: int) -> None:
        while True:
            deadline = await slots[number].tick()
            assert deadline is not None
            deadlines[number].append(deadline)
            rung_s[number].append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        for number in range(10):
            nursery.start_soon(pace, number)
        await trio.sleep_until(1.0061)
        autojump_clock.jump(stall_s)
        stalled_until_s = trio.current_time()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    for number in range(10):
        after = [at for at in rung_s[number] if at >= stalled_until_s]
        first = deadlines[number][-len(after)]
        assert all(deadline == pytest.approx(round(deadline / 0.02) * 0.02) for deadline in deadlines[number]), (
            "the grid of before"
        )
        assert stalled_until_s - first < 0.02, "never a beat that is a whole period old"
        assert [
            round((later - earlier) * 1000) for earlier, later in pairwise(deadlines[number][-len(after) :])
        ] == [20] * (len(after) - 1), "each beat once from then on"
        assert after[0] == pytest.approx(max(first, stalled_until_s)), "what is overdue rings at once"


async def test_tx_1_a_busy_scheduler_loses_no_ticks(autojump_clock: MockClock) -> None:
    """Passes of 3 ms: all twenty are rung in one; a pass for each of ten phases would lose a third."""
    metronome, slow = Metronome(), SlowPasses(autojump_clock)
    when: dict[int, list[float]] = {number: [] for number in range(20)}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        for number in range(20):
            nursery.start_soon(ticks, metronome.attach(), 1000, when[number])
        await trio.sleep(0.1)
        trio.lowlevel.add_instrument(slow)
        begin_s = trio.current_time()
        await trio.sleep_until(begin_s + 2)
        trio.lowlevel.remove_instrument(slow)
        nursery.cancel_scope.cancel()
    counts = [sum(begin_s <= at < begin_s + 2 for at in times) for times in when.values()]
    assert min(counts) >= 98, counts


async def test_an_overdue_metronome_gives_way_each_time_round(autojump_clock: MockClock) -> None:
    """However late it is, others run between two of its rounds."""
    metronome, seat_ticks, others = Metronome(), list[float](), 0
    slow = SlowPasses(autojump_clock)

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        nursery.start_soon(ticks, metronome.attach(), 1000, seat_ticks)
        nursery.start_soon(other)
        trio.lowlevel.add_instrument(slow)
        await trio.sleep(1)
        trio.lowlevel.remove_instrument(slow)
        nursery.cancel_scope.cancel()
    assert others == pytest.approx(slow.passes, abs=2)
    assert len(seat_ticks) >= 48


async def test_seats_are_given_back_while_the_metronome_rings(autojump_clock: MockClock) -> None:
    """All leave in the middle of a round, others come later: the metronome sleeps, and rings for those."""
    metronome, at = Metronome(), list[float]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        slots = [metronome.attach() for _ in range(3)]
        await ticks(slots[1], 2, at)
        for slot in slots:
            slot.leave()
        await trio.sleep(60)
        await ticks(metronome.attach(), 2, at)
        nursery.cancel_scope.cancel()
    assert at[3] - at[2] == pytest.approx(0.02)


async def test_a_tick_may_be_served_in_the_tasks_stead(autojump_clock: MockClock) -> None:
    """The task is woken for what was not served; an error there is the task's, and the others' ticks go on."""
    metronome, served, at = Metronome(), list[float](), list[float]()
    slot, broken = metronome.attach(), metronome.attach()

    def serve(deadline: float) -> bool:
        served.append(deadline)
        return len(served) % 5 != 0

    def fail(_deadline: float) -> bool:
        raise ZeroDivisionError

    slot.serve, broken.serve = serve, fail
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        nursery.start_soon(ticks, slot, 10, at)
        with pytest.raises(ZeroDivisionError):
            await broken.tick()
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert len(served) == 50, "nobody waits any more"
    assert at == pytest.approx(served[4::5])


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

"""Garbage is collected by hand: little of it beside calls, all of it in time, and memory stays flat."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import MockClock
from virtual_call import open_call, open_services

from agent.app import garbage
from agent.app.garbage import GROWTH, IDLE_GROWTH, YOUNG, GarbageCollector
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime


@attrs.define(eq=False)
class FakeGc:
    """Python's collector, as far as it is used: ``young`` objects wait, and a young collection frees a tenth."""

    young: int = 0
    collected: list[int] = attrs.field(factory=list)

    def get_count(self) -> tuple[int, int, int]:
        """See gc."""
        return self.young, 0, 0

    def collect(self, generation: int = 2) -> int:
        """See gc."""
        self.collected.append(generation)
        freed, self.young = self.young // 10, 0
        return freed


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGc:
    """In the place of Python's."""
    fake = FakeGc()
    monkeypatch.setattr(garbage, "gc", fake)
    return fake


@pytest.fixture(autouse=True)
def left_as_it_was() -> Iterator[None]:
    """Whatever a test does, the next one has Python's own collector."""
    yield
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_beside_calls_young_objects_are_collected_and_old_ones_when_they_grew(fake: FakeGc) -> None:
    """A look with nothing to do does nothing; the old ones' turn comes with the bound, however busy it is."""
    collector = GarbageCollector(lambda: True)
    fake.young = YOUNG - 1
    collector.look()
    assert fake.collected == []
    looks = 0
    while 2 not in fake.collected:
        fake.young = YOUNG
        collector.look()
        looks += 1
    assert set(fake.collected[:-1]) == {0}
    assert looks == pytest.approx(GROWTH / (YOUNG * 0.9), rel=0.01)
    fake.young = YOUNG
    collector.look()
    assert fake.collected[-1] == 0


def test_all_is_collected_when_no_call_runs(fake: FakeGc) -> None:
    """What calls left goes as soon as the last has ended; what an idle server makes is not looked for at once."""
    calls = SimpleNamespace(running=True)
    collector = GarbageCollector(lambda: calls.running)
    for _ in range(4):
        fake.young = YOUNG
        collector.look()
    calls.running = False
    fake.young = 0
    collector.look()
    assert fake.collected == [0, 0, 0, 0, 2]
    fake.young = IDLE_GROWTH // 10
    collector.look()
    assert len(fake.collected) == 5


async def test_memory_is_flat_over_many_calls_of_a_server_that_is_never_idle(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty calls, one after another, leave 350 objects each; the collector believes that one always runs."""
    monkeypatch.setattr(garbage, "GROWTH", 3_000)
    monkeypatch.setattr(garbage, "YOUNG", 200)
    objects: list[int] = []
    answers = [Answer("Hello.", 400)]
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime(answers, record=False))) as services,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(GarbageCollector(lambda: True).run)
        assert not gc.isenabled()
        for number in range(60):
            async with open_call(services, call_sid=f"CA{number:032d}", record=False) as stream:
                await trio.sleep(1)
                await stream.hang_up()
            services.records.saved.clear()
            services.handed_over()
            objects.append(len(gc.get_objects()))
        nursery.cancel_scope.cancel()
    assert max(objects) < 5_000, objects


async def test_a_cancel_gives_the_collector_back(autojump_clock: MockClock) -> None:
    """Left, Python collects as before, what was set aside too."""
    async with trio.open_nursery() as nursery:
        await nursery.start(GarbageCollector(lambda: False).run)
        assert gc.get_freeze_count() > 0
        nursery.cancel_scope.cancel()

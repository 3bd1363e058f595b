"""The TX pacer on the autojump clock: ticks, lead, stalls, last look, marks, stopping."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import attrs
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from typing_extensions import override

from agent.audio.generation import Generation, Purpose
from agent.audio.metronome import Metronome
from agent.audio.pacer_metrics import PacerMetrics
from agent.carrier.media_stream import OutboundEncoder
from agent.core.errors import SocketClosedError
from agent.core.graceful import run_until_stopped
from agent.core.units import FRAME_BYTES, FRAME_MS, GenerationId, ResponseId, StreamSid
from agent.playout import PlayoutClock
from agent.tx_scheduler import TxScheduler, frames_due
from agent.wire.message_socket import MessageSocket, SendCheck

DIRECT = False
"""Whether sockets may take messages at once; every test is run both ways."""


@pytest.fixture(params=[False, True], ids=["by the task", "in its stead"], autouse=True)
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Who writes the frames of plain ticks: the pacer's task, or the metronome in its stead."""
    monkeypatch.setattr(f"{__name__}.DIRECT", request.param)
    return bool(request.param)


@attrs.define(eq=False)
class Wire(MessageSocket):
    """A carrier's socket: notes what is written and when; can be slow, dead, or strike just before a write."""

    written: list[tuple[float, str, str]] = attrs.field(factory=list)
    takes_s: Callable[[int], float] = lambda _count: 0.0
    before_write: Callable[[int], None] = lambda _count: None
    dies_at: int | None = None
    direct: bool = attrs.field(factory=lambda: DIRECT)
    """Whether it may take a message at once."""
    in_stead: int = 0
    """How many were written so."""

    @property
    @override
    def takes_now(self) -> bool:
        count = len(self.written)
        return self.direct and not self.takes_s(count) and self.dies_at != count

    @override
    def send_now(self, *messages: str | bytes) -> bool:
        assert self.takes_now
        for message in messages:
            self.in_stead += 1
            self._note(message)
        return True

    async def receive(self) -> str:
        """Nothing ever comes."""
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        """Give way to others, as the engine does, then look, then write."""
        await trio.lowlevel.checkpoint()
        count = len(self.written)
        self.before_write(count)
        if self.dies_at == count:
            raise SocketClosedError(1006)
        if may_send is not None and not may_send():
            return False
        self._note(message)
        await trio.sleep(self.takes_s(count))
        return True

    def _note(self, message: str | bytes) -> None:
        decoded = msgspec.json.decode(message)
        detail = decoded.get("mark", {}).get("name", "") or decoded.get("media", {}).get("payload", "")[:4]
        self.written.append((round(trio.current_time(), 6), decoded["event"], detail))

    async def ping(self) -> None:
        """No pings here."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Nothing to close."""

    def at(self, kind: str) -> list[float]:
        """When messages of a kind were written."""
        return [at for at, event, _ in self.written if event == kind]

    @property
    def kinds(self) -> list[str]:
        """The kinds in order."""
        return [event for _, event, _ in self.written]


@attrs.define(eq=False)
class Booth:
    """A pacer with all it needs, and what it told."""

    pacer: TxScheduler
    wire: Wire
    playout: PlayoutClock
    reports: list[tuple[str, float]]
    firsts: list[GenerationId] = attrs.field(factory=list)
    sent: list[GenerationId] = attrs.field(factory=list)
    clears: list[float] = attrs.field(factory=list)
    violations: int = 0

    def first_frame(self, generation: Generation, now: float) -> None:
        """See TxObserver."""
        self.firsts.append(generation.id)

    def all_sent(self, generation: Generation) -> None:
        """See TxObserver."""
        self.sent.append(generation.id)

    def cleared(self, now: float) -> None:
        """See TxObserver."""
        self.clears.append(now)

    def violation(self, generation: Generation) -> None:
        """See TxObserver."""
        self.violations += 1

    def say(self, number: int, frames: float, *, finish: bool = True) -> Generation:
        """Queue an answer of so many frames; its audio carries its number."""
        generation = Generation(
            GenerationId(number), ResponseId(f"r{number}"), Purpose.ANSWER, trio.current_time()
        )
        self.pacer.queue(generation)
        self.feed(generation, frames)
        if finish:
            generation.slicer.finish()
            self.pacer.audio_waits(generation)
        return generation

    def feed(self, generation: Generation, frames: float) -> None:
        """More audio for an answer."""
        generation.slicer.push(bytes([generation.id]) * int(frames * FRAME_BYTES))
        self.pacer.audio_waits(generation)


@asynccontextmanager
async def open_booth(
    *, lead_ms: int = 100, comfort_silence: bool = False, wire: Wire | None = None
) -> AsyncIterator[Booth]:
    """A running pacer on a running metronome; left, it is asked to stop."""
    metronome, wire = Metronome(), wire or Wire()
    playout, reports = PlayoutClock(), list[tuple[str, float]]()
    pacer = TxScheduler(
        socket=wire,
        encoder=OutboundEncoder(StreamSid("MZ1")),
        playout=playout,
        slot=metronome.attach(),
        observer=None,  # type: ignore[arg-type]  # the booth itself, below
        meter=PacerMetrics(lambda event, seconds: reports.append((event, round(seconds, 3))), lambda _late: None),
        lead_ms=lead_ms,
        comfort_silence=comfort_silence,
    )
    booth = Booth(pacer, wire, playout, reports)
    pacer.observer = booth
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metronome.run)
        pace = partial(run_until_stopped, pacer.run, pacer.stop, grace_s=1)
        nursery.start_soon(pace, name="TX pacer")
        yield booth
        nursery.cancel_scope.cancel()


def gaps_ms(times: list[float]) -> list[int]:
    return [round((later - earlier) * 1000) for earlier, later in pairwise(times)]


async def test_tx_1_lead_zero_is_exactly_one_frame_per_tick(autojump_clock: MockClock, direct: bool) -> None:  # noqa: FBT001
    """100 frames, 99 gaps of 20 ms, on absolute deadlines."""
    async with open_booth(lead_ms=0) as booth:
        booth.say(1, 100)
        await trio.sleep(3)
    assert gaps_ms(booth.wire.at("media")) == [20] * 99
    assert (booth.wire.in_stead > 80) is direct


async def test_tx_1_the_lead_goes_out_at_once_then_one_frame_per_tick(autojump_clock: MockClock) -> None:
    """Lead 100 ms: the carrier is never without audio, and never holds more than the lead."""
    async with open_booth() as booth:
        await trio.sleep(0.0071)
        booth.say(1, 100)
        held = []
        for _ in range(90):
            await trio.sleep(0.02)
            held.append(booth.playout.held_ms(trio.current_time()))
    times = booth.wire.at("media")
    assert times[:4] == [pytest.approx(0.0071)] * 4, "all but the frame that the next tick brings"
    assert all(gap <= 20 for gap in gaps_ms(times))
    assert set(gaps_ms(times[5:])) == {20}
    assert max(held) <= 100
    assert min(held) > 40


@pytest.mark.parametrize("stall_s", [0.03, 0.05, 0.09])
async def test_tx_1_a_short_stall_is_made_up_for_by_one_extra_frame_per_tick(
    autojump_clock: MockClock, stall_s: float
) -> None:
    """A write takes longer than a tick: nothing is heard of it, and no burst follows."""
    wire = Wire(takes_s=lambda count: stall_s if count == 20 else 0.0)
    async with open_booth(wire=wire) as booth:
        booth.say(1, 100)
        await trio.sleep(3)
    times = wire.at("media")
    most_at_once = max(Counter(times[21:]).values())
    assert most_at_once <= 2, "one extra frame per tick, no burst"
    assert most_at_once == 2 or stall_s < 0.05, "and it is sent where a whole frame of the lead is missing"
    assert booth.playout.heard_ms(GenerationId(1), 99.0) == 2000
    assert (times[-1] - times[0]) * 1000 == pytest.approx(99 * 20 - 100 + 20, abs=25), "the lead is back"


async def test_tx_1_a_carrier_that_holds_nothing_gets_the_lead_at_once(autojump_clock: MockClock) -> None:
    """Half a second is lost: the lead goes out with the next tick, then one frame per tick on the old grid."""
    wire = Wire(takes_s=lambda count: 0.5 if count == 20 else 0.0)
    async with open_booth(wire=wire) as booth:
        booth.say(1, 100)
        await trio.sleep(4)
    times = wire.at("media")
    after = [at for at in times if at > 0.5]
    assert Counter(after)[after[0]] == 5
    assert set(gaps_ms(after[4:])) == {20}
    assert all((at - times[10]) / 0.02 == pytest.approx(round((at - times[10]) / 0.02)) for at in after)
    assert len(times) == 100


@pytest.mark.parametrize("late_s", [0.001, 0.007, 0.019, 0.023, 0.119])
async def test_tx_1_a_lead_that_goes_out_late_leaves_the_next_tick_its_frame(
    autojump_clock: MockClock, late_s: float
) -> None:
    """The process stands still until playback is dry: no gap behind the burst, and never more than the lead."""
    held = list[float]()
    async with open_booth() as booth:
        booth.say(1, 100)
        await trio.sleep_until(0.4 + late_s)
        autojump_clock.jump(0.3)
        stalled_until_s = trio.current_time()
        while booth.pacer.owed_frames:
            await trio.sleep(0.001)
            held.append(booth.playout.held_ms(trio.current_time()))
    after = [at for at in booth.wire.at("media") if at >= stalled_until_s - 1e-6]
    assert Counter(after)[after[0]] >= 4
    assert max(gaps_ms(after)) <= 20
    assert max(held) <= 100


async def test_tx_5_a_stall_is_reported_once_and_nothing_else_is_done(autojump_clock: MockClock) -> None:
    """TX_STALL and TX_SEND_SLOW, once each; no clear, no frame lost."""
    wire = Wire(takes_s=lambda count: 0.4 if count == 20 else 0.0)
    async with open_booth(wire=wire) as booth:
        booth.say(1, 60)
        await trio.sleep(3)
    assert booth.reports == [("TX_SEND_SLOW", 0.4), ("TX_STALL", 0.4)]
    assert len(wire.at("media")) == 60
    assert wire.at("clear") == []


async def test_tx_5_a_write_over_50_ms_is_slow_and_one_under_is_not(autojump_clock: MockClock) -> None:
    wire = Wire(takes_s=lambda count: {10: 0.049, 20: 0.051}.get(count, 0.0))
    async with open_booth(wire=wire) as booth:
        booth.say(1, 60)
        await trio.sleep(3)
    assert booth.reports == [("TX_SEND_SLOW", 0.051)]


async def test_tx_6_with_nothing_to_say_the_timing_holds(autojump_clock: MockClock) -> None:
    """Two answers, a pause between them: both on the same 20 ms grid."""
    async with open_booth(lead_ms=0) as booth:
        booth.say(1, 10)
        await trio.sleep(1.2345)
        booth.say(2, 10)
        await trio.sleep(1)
    phases = {round(at * 1000) % 20 for at in booth.wire.at("media")}
    assert len(phases) == 1


async def test_tx_6_comfort_silence_fills_the_pauses(autojump_clock: MockClock) -> None:
    """One frame each 20 ms, spoken or silent, and silence is nothing to interrupt."""
    async with open_booth(lead_ms=0, comfort_silence=True) as booth:
        await trio.sleep(0.5)
        assert not booth.playout.audible(trio.current_time())
        booth.say(1, 10)
        await trio.sleep(0.5)
    assert set(gaps_ms(booth.wire.at("media"))) == {20}
    assert 47 <= len(booth.wire.at("media")) <= 51


async def test_tx_6_audio_that_comes_with_the_tick_costs_none(autojump_clock: MockClock) -> None:
    """Twenty answers that come in the very instant of a tick, before it or after it: the next is not left out."""
    async with open_booth(lead_ms=0, comfort_silence=True) as booth:
        for number in range(1, 21):
            await trio.sleep_until(number * 0.4)
            booth.say(number, 5)
        await trio.sleep(0.4)
    assert set(gaps_ms(booth.wire.at("media"))) == {20}


async def test_generations_speak_in_order_without_a_gap(autojump_clock: MockClock) -> None:
    """The second follows the first within the grid; each is told as begun and as sent."""
    async with open_booth() as booth:
        booth.say(1, 20.5)
        booth.say(2, 20)
        await trio.sleep(2)
    assert booth.firsts == [1, 2]
    assert booth.sent == [1, 2]
    assert all(gap <= 20 for gap in gaps_ms(booth.wire.at("media")))
    assert len(booth.wire.at("media")) == 41


async def test_d6_marks_each_200_ms_and_at_the_end(autojump_clock: MockClock) -> None:
    async with open_booth() as booth:
        booth.say(1, 25)
        await trio.sleep(2)
    assert [name for _, kind, name in booth.wire.written if kind == "mark"] == ["1:200", "1:400", "1:500"]


async def test_d6_an_answer_that_ends_after_its_last_frame_gets_its_end_mark(autojump_clock: MockClock) -> None:
    """The end is known only when the last frame is long out: the mark follows alone."""
    async with open_booth() as booth:
        generation = booth.say(1, 13, finish=False)
        await trio.sleep(1)
        assert booth.sent == []
        generation.slicer.finish()
        booth.pacer.audio_waits(generation)
        await trio.sleep(0.1)
    assert [name for _, kind, name in booth.wire.written if kind == "mark"] == ["1:200", "1:260"]
    assert booth.sent == [1]


async def test_an_answer_without_audio_ends_without_a_word(autojump_clock: MockClock) -> None:
    async with open_booth() as booth:
        booth.say(1, 0)
        await trio.sleep(1)
    assert booth.wire.written == []
    assert booth.sent == [1]


async def test_st_2_a_cancelled_generation_leaves_with_all_it_owns(autojump_clock: MockClock) -> None:
    """Cancelled, withdrawn, cleared: the clear is the next message, and nothing of it follows."""
    async with open_booth() as booth:
        generation = booth.say(1, 100)
        await trio.sleep(0.5)
        assert generation.cancel(trio.current_time()) > 60
        booth.pacer.withdraw(generation)
        booth.pacer.clear()
        cancelled_s = trio.current_time()
        booth.say(2, 5)
        await trio.sleep(1)
    kinds = booth.wire.kinds
    after = kinds[kinds.index("clear") :]
    assert after == ["clear", *["media"] * 5, "mark"]
    assert booth.clears == [pytest.approx(cancelled_s, abs=1e-6)], "at once, not at the next tick"
    assert booth.violations == 0


@pytest.mark.parametrize("strike", range(3, 25))
async def test_pl_5_a_cancel_between_the_check_and_the_write_still_stops_the_frame(
    autojump_clock: MockClock, strike: int
) -> None:
    """D4: while the engine gives way, the generation dies; the last look sees it, and not one frame leaves."""
    generations: list[Generation] = []

    def strike_once(count: int) -> None:
        if count == strike and generations[0].live:
            generations[0].cancel(trio.current_time())
            booth.pacer.clear()

    wire = Wire(direct=False, before_write=strike_once)
    async with open_booth(wire=wire) as booth:
        generations.append(booth.say(1, 30))
        await trio.sleep(1)
    assert wire.kinds[strike:] == ["clear"]
    assert booth.violations == 0


async def test_model_starvation_is_told_from_a_stall(autojump_clock: MockClock) -> None:
    """The model delivers too late: MODEL_STARVED with how long the caller heard nothing, and no TX_STALL."""
    async with open_booth() as booth:
        generation = booth.say(1, 10, finish=False)
        await trio.sleep(1.0)
        booth.feed(generation, 10)
        await trio.sleep(1.0)
    assert booth.reports == [("MODEL_STARVED", 0.8)]


async def test_tx_3_fps_and_gap_of_a_smooth_answer(autojump_clock: MockClock) -> None:
    async with open_booth() as booth:
        booth.say(1, 500)
        await trio.sleep(11)
    assert booth.pacer.meter.fps == pytest.approx(50, abs=0.5)
    assert booth.pacer.meter.max_gap_s < 0.060


async def test_a_dead_carrier_is_raised_bare(autojump_clock: MockClock) -> None:
    """SocketClosedError comes out of ``run`` through its shield."""
    with pytest.RaisesGroup(SocketClosedError, flatten_subgroups=True):
        async with open_booth(wire=Wire(dies_at=7)) as booth:
            booth.say(1, 50)
            await trio.sleep_forever()


async def test_the_end_of_a_call_waits_for_the_message_being_written(autojump_clock: MockClock) -> None:
    """A cancel in the middle of a write: the message is finished, and it is the last."""
    wire = Wire(takes_s=lambda count: 0.3 if count == 12 else 0.0)
    async with open_booth(wire=wire) as booth:
        booth.say(1, 50)
        while len(wire.written) < 13:  # noqa: ASYNC110 - to be in the middle of that write
            await trio.sleep(0.001)
        cancelled_s = trio.current_time()
    assert len(wire.written) == 13
    assert trio.current_time() - cancelled_s == pytest.approx(0.3, abs=0.01)


async def test_the_end_of_a_call_does_not_wait_for_a_stuck_carrier(autojump_clock: MockClock) -> None:
    """The write never ends: after the grace the pacer is cut off."""
    wire = Wire(takes_s=lambda count: 1e6 if count == 12 else 0.0)
    async with open_booth(wire=wire) as booth:
        booth.say(1, 50)
        await trio.sleep(1)
        assert booth.pacer.sending_since is not None
        cancelled_s = trio.current_time()
    assert trio.current_time() - cancelled_s == pytest.approx(1.0, abs=0.01)


@attrs.define(eq=False)
class HalfWritten(Wire):
    """A socket whose writes can be seen half done."""

    begun: int = 0
    finished: int = 0

    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        """Begin, give way in the middle, finish."""
        await trio.lowlevel.checkpoint()
        if may_send is not None and not may_send():
            return False
        self.begun += 1
        await trio.sleep(0.001)
        self.finished += 1
        return True


@attrs.define(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the task ``TX pacer`` has come so far."""

    step: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See Instrument."""
        if task.name == "TX pacer":
            self.steps += 1
            if self.steps == self.step:
                self.scope.cancel()


async def test_st_1_a_cancel_at_any_checkpoint_leaves_whole_messages(autojump_clock: MockClock) -> None:
    """Speech, marks, a clear, silence: wherever the cancel strikes, the message under way is finished."""

    async def speak(strike: CancelAtStep) -> None:
        wire = HalfWritten()
        trio.lowlevel.add_instrument(strike)
        with strike.scope:
            async with open_booth(wire=wire, comfort_silence=True) as booth:
                generation = booth.say(1, 15)
                await trio.sleep(0.25)
                generation.cancel(trio.current_time())
                booth.pacer.clear()
                booth.say(2, 3)
                await trio.sleep(0.2)
        trio.lowlevel.remove_instrument(strike)
        assert wire.begun == wire.finished

    whole = CancelAtStep(0)
    await speak(whole)
    assert whole.steps > 50
    for step in range(1, whole.steps + 1):
        began = trio.current_time()
        await speak(CancelAtStep(step))
        assert trio.current_time() - began < 0.5


@pytest.mark.parametrize(
    ("held_ms", "lead_ms", "begins", "due"),
    [
        (0, 0, True, 1),
        (100, 20, False, 1),
        (0, 100, True, 5),
        (20, 100, True, 4),
        (80, 100, False, 1),
        (95, 100, False, 0),
        (60, 100, False, 2),
        (0.1, 100, False, 2),
        (0, 100, False, 5),
        (-30, 100, False, 5),
        (0, 40, True, 2),
        (0, 40, False, 2),
    ],
)
def test_tx_1_frames_due(held_ms: float, lead_ms: int, begins: bool, due: int) -> None:  # noqa: FBT001 - a table
    """The rule by itself."""
    assert frames_due(held_ms, lead_ms, spurt_begins=begins) == due


@given(
    held_ms=st.floats(-1000, 1000),
    lead_ms=st.integers(0, 1000),
    late_ms=st.floats(0, 1000),
    begins=st.booleans(),
)
def test_tx_1_never_more_than_the_lead_and_never_dry_for_want_of_a_frame(
    held_ms: float,
    lead_ms: int,
    late_ms: float,
    begins: bool,  # noqa: FBT001 - drawn
) -> None:
    """What holds whatever is held, and however late the tick is."""
    due = frames_due(held_ms, lead_ms, spurt_begins=begins, late_ms=late_ms)
    if lead_ms <= FRAME_MS:
        assert due == 1
        return
    if due > 1:
        assert max(held_ms, 0) + due * FRAME_MS <= lead_ms + 0.5
    if held_ms <= 0:
        assert due >= max(lead_ms // FRAME_MS - 1, 1)
    if held_ms > 0 and not begins:
        assert due <= 2
    if held_ms + 2 * FRAME_MS <= lead_ms:
        assert due >= 1

"""What goes wrong at the end of a call, around it and inside it: recorded, hung up, and nothing is left."""

from __future__ import annotations

import gc
from typing import Any

import attrs
import pytest
import structlog
import trio
from fault_calls import (
    GREETING,
    LONG,
    SHORT,
    a_neighbour,
    assert_over,
    open_faulty_call,
    open_leg,
    open_one_call,
    record_of,
)
from structlog.testing import LogCapture
from trio.testing import MockClock
from virtual_call import CALL_SID, FakeServices, counts, open_call, open_services

from agent.call.conversation import Conversation
from agent.call.generations import Generations
from agent.call.ingress import Ingress
from agent.call.watchdog import CallWatchdog
from agent.call.wiring import CallParts
from agent.core.records import CallRecord, Outcome
from agent.core.units import CallSid
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.tx_scheduler import TxScheduler

SID = CallSid(CALL_SID)
GOODBYE = Answer("Goodbye.", 600, tool_call=ScriptedToolCall("end_call", {}))


@pytest.fixture
def logged() -> Any:
    """The log entries of a test, as they were given to the log."""
    configured = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.configure(**configured)


@pytest.mark.parametrize("delay_s", [0.1, 5.0, 60.0], ids=["refused", "refused late", "never answered"])
async def test_a_hang_up_that_fails_costs_no_record(autojump_clock: MockClock, delay_s: float) -> None:
    """REST refuses or hangs at the hang-up: logged and counted, bounded; the record is kept and handed over."""
    model = ScriptedRealtime([GOODBYE])
    async with (
        open_services(memory_realtime(lambda: model), record_calls=False) as services,
        a_neighbour(services),
    ):
        services.rest.delay_s = delay_s
        services.rest.failures.append("HTTP 500: out of order")
        async with open_faulty_call(services, at_most_s=20) as (_, leg):
            await leg.over.wait()
        record = record_of(services)
        assert record.outcome is Outcome.AGENT_HUNG_UP
        assert services.rest.hung_up == []
        assert [request.what for request in services.rest.requests] == ["hang_up"]
        services.rest.delay_s = 0.1
    assert_over(services)


async def test_a_failing_hang_up_is_logged_with_its_reason(autojump_clock: MockClock, logged: Any) -> None:
    async with open_one_call(ScriptedRealtime([GOODBYE]), settings={"record_calls": False}) as (services, _, leg):
        services.rest.failures.append("HTTP 500: out of order")
        await leg.over.wait()
    [failed] = [entry for entry in logged if entry["event"] == "GUEST_FAILED"]
    assert (failed["guest"], failed["call"], failed["log_level"]) == ("hang up", CALL_SID, "error")
    assert "out of order" in str(failed["exc_info"][1])


@pytest.mark.parametrize("error", [OSError("the disk is full"), TypeError("cannot be encoded"), None])
async def test_a_record_that_cannot_be_kept_is_not_handed_over_nor_logged(
    autojump_clock: MockClock, logged: Any, error: Exception | None
) -> None:
    """DO-3: its store tries again; nobody is told that it is safe; the call ends as it would have."""

    @attrs.define
    class BrokenRecords:
        async def save(self, record: CallRecord) -> None:
            """See RecordStore."""
            await trio.sleep_forever() if error is None else await trio.lowlevel.checkpoint()
            assert error is not None
            raise error

    model = ScriptedRealtime([GREETING])
    async with open_one_call(model) as (services, stream, leg):
        services.calls.records = BrokenRecords()
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        await stream.hang_up()
        await leg.over.wait()
    [lost] = [entry for entry in logged if entry["event"] == "RECORD_NOT_KEPT"]
    assert GREETING.text not in str(lost)
    assert services.handed_over() == []
    [ended] = [entry for entry in logged if entry["event"] == "CALL_ENDED"]
    assert ended["outcome"] == Outcome.CALLER_HUNG_UP.value
    assert services.calls.active == {}


@pytest.mark.parametrize("full", [True, False], ids=["full", "closed"])
async def test_a_hand_over_that_fails_is_said_and_the_record_is_durable(
    autojump_clock: MockClock, logged: Any, *, full: bool
) -> None:
    """Nobody takes the record: RECORD_NOT_HANDED_OVER names the call; the record itself is on disk."""
    send, receive = trio.open_memory_channel[CallSid](0)
    async with open_one_call(ScriptedRealtime([SHORT])) as (services, stream, leg):
        services.calls.hand_over = send
        if not full:
            receive.close()
        await stream.until_heard_ms(800)
        await stream.hang_up()
        await leg.over.wait()
    [said] = [entry for entry in logged if entry["event"] == "RECORD_NOT_HANDED_OVER"]
    assert said["call"] == CALL_SID
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP
    assert services.calls.active == {}
    send.close()
    receive.close()


async def test_a_call_whose_record_is_durable_is_logged_as_ended(autojump_clock: MockClock, logged: Any) -> None:
    """CALL_ENDED, once: how, why, how long, and what was said."""
    async with open_one_call(ScriptedRealtime([SHORT])) as (services, stream, leg):
        await stream.until_heard_ms(800)
        await stream.hang_up()
        await leg.over.wait()
    [ended] = [entry for entry in logged if entry["event"] == "CALL_ENDED"]
    record = record_of(services)
    assert ended == {
        "event": "CALL_ENDED",
        "log_level": "info",
        "call": CALL_SID,
        "outcome": "caller_hung_up",
        "reason": record.reason,
        "duration_ms": record.metrics.duration_ms,
        "turns": 1,
        "barge_in_events": 0,
    }


async def test_a_server_that_stops_ends_its_calls_in_order(autojump_clock: MockClock) -> None:
    """The call's scope is cancelled: SERVER_STOPPED, hung up by REST, a close frame, a record."""
    model = ScriptedRealtime([GREETING])
    async with open_services(memory_realtime(lambda: model)) as services, a_neighbour(services):
        async with open_faulty_call(services) as (stream, leg):
            await stream.until_heard_ms(1000)
            services.calls.active[SID].cancel(reason="the server stops")
            await leg.over.wait()
            assert await stream.until_closed() == 1000
        record = record_of(services)
        assert record.outcome is Outcome.SERVER_STOPPED
        assert 1000 <= record.turns[0].heard_ms <= 1120, "what the carrier held was still heard"
        assert record.turns[0].interrupted
        assert services.rest.hung_up == [CALL_SID]
        assert stream.protocol_errors == []
    assert_over(services)


async def test_a_server_that_stops_reaches_streams_that_have_not_begun(autojump_clock: MockClock) -> None:
    """Cancelled before ``start``: closed at once; there was no call, so there is no record."""
    async with open_services(memory_realtime(ScriptedRealtime)) as services, open_leg(services) as leg:
        await trio.sleep(1)
        leg.scope.cancel(reason="the server stops")
        with trio.fail_after(1.5):
            await leg.over.wait()
    assert services.records.saved == []
    assert_over(services)


ESSENTIAL = {
    "the reader of the carrier": (Ingress, "_media"),
    "the reader of the model": (Conversation, "model_event"),
    "the pacer": (TxScheduler, "_speakable"),
    "the monitor": (Conversation, "due"),
    "the watch": (CallWatchdog, "_watch_clock"),
    "a generation's task": (Generations, "_until_heard"),
    "the clearing of a barge-in": (CallParts, "cleared"),
}


@pytest.mark.parametrize("name", ESSENTIAL)
async def test_an_error_inside_a_call_ends_that_call_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, logged: Any, name: str
) -> None:
    """A bug in any essential child: Outcome.ERROR, logged whole; hung up, recorded, handed over."""
    owner, method = ESSENTIAL[name]
    right = getattr(owner, method)
    broken: list[object] = []

    def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not broken and services.calls.active.get(SID) is not None and of_the_call(self):
            broken.append(self)
            raise RuntimeError("a bug")
        return right(self, *args, **kwargs)

    def of_the_call(thing: Any) -> bool:
        state = getattr(thing, "state", None)
        if state is not None:
            return bool(state.ticket.call_sid == CALL_SID)
        if isinstance(thing, TxScheduler):
            return CALL_SID[2:] in str(thing.encoder.clear)
        return bool(thing.events.fields.get("call") == CALL_SID)

    model = ScriptedRealtime([GREETING, SHORT])
    async with open_services(memory_realtime(lambda: model)) as services, a_neighbour(services):
        async with open_faulty_call(services, at_most_s=20) as (stream, leg):
            await stream.until_heard_ms(1000)
            monkeypatch.setattr(owner, method, wrong)
            stream.say(tone(400))
            await leg.over.wait()
        monkeypatch.setattr(owner, method, right)
        record = record_of(services)
        assert record.outcome is Outcome.ERROR
        assert "a bug" in record.reason
        assert counts(record)["CALL_ERROR"] == 1
        assert [entry["call"] for entry in logged if entry["event"] == "CALL_ERROR"] == [CALL_SID]
        assert services.rest.hung_up == [CALL_SID]
        assert record.turns[0].heard_ms >= 900
    assert_over(services)


async def test_an_error_in_the_ending_itself_leaves_the_house_clean(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a bug in the making of the record hangs up, is logged, and lets the same call come again."""
    async with open_services(memory_realtime(lambda: ScriptedRealtime([SHORT]))) as services:
        with monkeypatch.context() as patch:
            patch.setattr(Conversation, "end", raise_a_bug)
            async with open_leg(services) as leg:
                await leg.send(leg.writer.start({}))
                await trio.sleep(2)
                await leg.socket.aclose(1000)
        assert services.calls.active == {}
        assert services.rest.hung_up == [CALL_SID]
        assert record_of(services).outcome is Outcome.CARRIER_LOST
        assert counts(record_of(services))["CALL_ERROR"] == 1
    assert_over(services)


def raise_a_bug(*_: object) -> None:
    """A bug."""
    raise RuntimeError("a bug")


async def test_five_calls_lost_at_once_leave_nothing(autojump_clock: MockClock) -> None:
    """ST-1: five carriers drop in the same instant: five records, five hang-ups, no object of a call survives."""
    async with open_services(memory_realtime(lambda: ScriptedRealtime([LONG]))) as services:
        async with trio.open_nursery() as nursery:

            async def one(number: int) -> None:
                async with open_call(services, call_sid=f"CA{number:032d}") as stream:
                    await stream.until_heard_ms(1000)
                    await stream.vanish()

            for number in range(5):
                nursery.start_soon(one, number)
        assert [record.outcome for record in services.records.saved] == [Outcome.CARRIER_LOST] * 5
        assert len(services.rest.hung_up) == 5
        assert_over(services)
        gc.collect()
        left = [thing for thing in gc.get_objects() if isinstance(thing, CallParts)]
        assert [call for call in left if call.state.services is services.calls] == []


@attrs.define(eq=False)
class CancelConnectionAt(trio.abc.Instrument):
    """Cancels the whole connection of a call, as a server's nursery would, before its step ``at``."""

    at: int | None
    scope: trio.CancelScope | None = None
    services: FakeServices | None = None
    steps: int = 0
    struck_s: float | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of the call in progress; strike once."""
        if self.services is None or self.scope is None or SID not in self.services.calls.active:
            return
        current: trio.lowlevel.Task | None = task
        while current is not None and "answer_leg" not in current.name:
            nursery = current.parent_nursery
            current = nursery.parent_task if nursery is not None else None
        if current is None:
            return
        if self.steps == self.at:
            self.struck_s = trio.current_time()
            self.scope.cancel(reason="the server is torn down")
        self.steps += 1


async def run_and_cancel(instrument: CancelConnectionAt) -> tuple[FakeServices, Any, float]:
    """A call with a greeting, a barge-in and a goodbye whose connection is cancelled somewhere in it."""
    answers = [Answer("Hello, how can I help?", 1200, first_delta_ms=40), GOODBYE]
    model = ScriptedRealtime(answers, transcription_delay_ms=20)
    async with open_services(
        memory_realtime(lambda: model), greeting_protect_ms=100, vad_silence_ms=100
    ) as services:
        instrument.services = services
        async with open_faulty_call(services, at_most_s=60) as (stream, leg):
            instrument.scope = leg.scope
            services.rest.streams[CALL_SID] = stream
            await stream.until_heard_ms(300)
            stream.say(tone(120))
            await leg.over.wait()
            over_s = trio.current_time()
        return services, stream, over_s


def run_virtually(instrument: CancelConnectionAt) -> tuple[FakeServices, Any, float]:
    # As in the sweep: the same steps in each run.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(0)
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(run_and_cancel, instrument, clock=clock, instruments=[instrument])


def test_st_1_a_connection_cancelled_from_outside_ends_whole() -> None:
    """The whole connection is cancelled, not the call's scope alone: one record, handed over; no half frame."""
    total = CancelConnectionAt(None)
    run_virtually(total)
    assert total.steps > 300
    for at in range(0, total.steps, 37):
        instrument = CancelConnectionAt(at)
        services, stream, over_s = run_virtually(instrument)
        where = f"cancelled before step {at} of {total.steps}"
        assert instrument.struck_s is not None, where
        assert over_s - instrument.struck_s <= 8.0, where
        record = record_of(services)
        assert record.outcome in (Outcome.SERVER_STOPPED, Outcome.AGENT_HUNG_UP, Outcome.CARRIER_LOST), where
        assert services.handed_over() == [CALL_SID], where
        assert services.rest.hung_up == [CALL_SID], where
        assert stream.protocol_errors == [], where
        assert stream.close_code in (1000, 1006), where
        assert "CALL_ERROR" not in record.metrics.events, where
        assert services.calls.active == {}, where

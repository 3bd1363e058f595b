"""Barge-ins at the worst moments, in whole calls: no turn is lost, nothing is cancelled twice (BI-3, BI-6)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from fault_calls import GREETING, LONG, SHORT, assert_over, open_one_call, record_of
from heard_audio import agent_words, assert_no_stale_frame, heard_numbers
from trio.testing import MockClock
from virtual_call import counts, received

from agent.core.records import Outcome
from agent.sim.model.response import SimulatedResponse
from agent.sim.model.script import Answer, Faults, ScriptedToolCall
from agent.sim.model.sending import ResponseSender
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone


def assert_cancelled_once_each(model: ScriptedRealtime) -> None:
    """BI-3: at most one cancel per response, and none that the provider refused."""
    cancels = [event["response_id"] for event in received(model, "response.cancel")]
    assert len(cancels) == len(set(cancels))
    assert [error["code"] for error in model.errors_sent if "cancel" in error["code"]] == []


async def test_bi_3_a_barge_in_before_the_answer_is_created(
    autojump_clock: MockClock,
) -> None:
    """D7: between our ``response.create`` and its ``created``: one cancel at birth, none of it is heard."""
    unborn = Answer("Nobody hears this.", 2000, created_ms=300)
    model = ScriptedRealtime([SHORT, unborn, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.press("#")
        stream.say(tone(400))
        await trio.sleep(7)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["CANCELLED_AT_BIRTH"] == 1
    assert agent_words(record) == [SHORT.text, LONG.text]
    assert [event["response_id"] for event in received(model, "response.cancel")] == [
        model.session.responses[1].id
    ]
    assert model.errors_sent == []
    assert_over(services)


async def test_bi_3_a_barge_in_just_before_the_answer_is_done(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """speech_started and done in one breath: no error ends anything, and the turn is answered."""
    send_done = ResponseSender._send_done

    def speech_then_done(self: ResponseSender, response: SimulatedResponse, status: Any) -> None:
        if response.number == 0:
            self.outbox.send("input_audio_buffer.speech_started", item_id="item_x", audio_start_ms=0)
        send_done(self, response, status)

    monkeypatch.setattr(ResponseSender, "_send_done", speech_then_done)
    model = ScriptedRealtime([Answer(LONG.text, 4000, speed=2), SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        await trio.sleep(1)
        model.inject({"type": "input_audio_buffer.speech_stopped", "item_id": "item_x", "audio_end_ms": 2000})
        model.inject({"type": "input_audio_buffer.committed", "item_id": "item_x"})
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    assert record.metrics.barge_in_events == 1
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.turns[0].interrupted
    assert record.turns[-1].heard_text == SHORT.text
    assert counts(record)["TURN_RECOVERED"] == 1
    assert len(received(model, "response.cancel")) == 1
    assert_no_stale_frame(stream)


async def test_speech_started_twice_in_a_row_is_one_barge_in(autojump_clock: MockClock) -> None:
    """The same start again, and a second start without a stop between: one barge-in, one cancel, one truncate."""
    model = ScriptedRealtime([Answer(LONG.text, 4000, speed=1.2), SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        for item in ("item_x", "item_x", "item_y"):
            model.inject({"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": 1500})
        await trio.sleep(0.5)
        stream.say(tone(300))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    assert record.metrics.barge_in_events == 1
    assert len(received(model, "response.cancel")) == len(received(model, "conversation.item.truncate")) == 1
    assert record.turns[-1].heard_text == SHORT.text
    assert model.errors_sent == []
    assert_no_stale_frame(stream)


async def test_a_caller_who_speaks_into_the_apology_is_hung_up_on_all_the_same(autojump_clock: MockClock) -> None:
    """The model is of no use any more: the call ends, and soon, whatever the caller says."""
    model = ScriptedRealtime([SHORT])
    async with open_one_call(model, at_most_s=25) as (services, stream, leg):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        model.inject({"type": "error", "error": {"code": "insufficient_quota", "message": "no more"}})
        await trio.sleep(1)
        stream.say(tone(600))
        await leg.over.wait()
    record = record_of(services)
    assert record.outcome is Outcome.MODEL_LOST
    assert record.metrics.duration_ms < 15_000
    assert counts(record)["MODEL_GIVEN_UP"] == 1
    assert_over(services)


@pytest.mark.parametrize(
    ("created_ms", "first_delta_ms"), [(0, 1500), (900, 200)], ids=["created, no audio yet", "not created yet"]
)
async def test_a_caller_who_speaks_before_the_greeting_is_answered(
    autojump_clock: MockClock, created_ms: int, first_delta_ms: int
) -> None:
    """BI-6: words said before the greeting begins get their answer, with or without the greeting before it."""
    greeting = Answer(GREETING.text, 2000, created_ms=created_ms, first_delta_ms=first_delta_ms)
    model = ScriptedRealtime([greeting, SHORT, LONG], transcripts=["How much is it?"])
    async with open_one_call(model) as (services, stream, _):
        await trio.sleep(0.2)
        stream.say(tone(300))
        await trio.sleep(9)
        await stream.hang_up()
    record = record_of(services)
    assert agent_words(record)[-1] == SHORT.text
    assert len(model.session.responses) == 2
    assert_cancelled_once_each(model)
    assert_no_stale_frame(stream)


async def test_a_barge_in_while_a_tools_answer_is_pending(autojump_clock: MockClock) -> None:
    """The tool was called, its answer is not created yet: withdrawn, and the caller's new turn is answered."""
    looking = Answer("Let me look that up.", 800, tool_call=ScriptedToolCall("lookup", {"what": "hours"}))
    pending = Answer("Nobody hears this.", 2000, created_ms=600)
    model = ScriptedRealtime([SHORT, looking, pending, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(300))
        await stream.until_heard_ms(1400)
        stream.say(tone(400))
        await trio.sleep(7)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["UNKNOWN_TOOL"] == 1
    assert "Nobody" not in " ".join(agent_words(record))
    assert record.turns[-1].heard_text == LONG.text
    assert_cancelled_once_each(model)
    assert model.errors_sent == []
    assert_no_stale_frame(stream)


async def test_a_tool_called_before_its_answer_is_done_is_answered_afterwards(autojump_clock: MockClock) -> None:
    """The tool is quicker than ``response.done``: the request waits for it, or the provider would refuse it."""
    model = ScriptedRealtime([Answer(LONG.text, 4000, speed=1.2), SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1000)
        call = {"response_id": model.session.responses[0].id, "item_id": "item_t", "call_id": "call_t"}
        done = {"type": "response.function_call_arguments.done", **call, "name": "lookup", "arguments": "{}"}
        model.inject(done)
        await trio.sleep(6)
        await stream.hang_up()
    assert "call_t" in model.session.conversation.tool_outputs
    assert agent_words(record_of(services)) == [LONG.text, SHORT.text]
    assert model.errors_sent == []


async def test_bi_8_five_barge_ins_within_one_second(autojump_clock: MockClock) -> None:
    """A caller in pieces: five starts in a second; each answer is cut as heard, the last turn gets its answer."""
    answers = [Answer(f"Answer {number}.", 4000, first_delta_ms=10, speed=3) for number in range(6)]
    model = ScriptedRealtime(answers, default=SHORT)
    async with open_one_call(model, settings={"vad_silence_ms": 100}) as (services, stream, _):
        await stream.until_heard_ms(1000)
        for _ in range(5):
            stream.say(tone(60))
            await trio.sleep(0.2)
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    starts = [event for event in record.timeline if event.kind == "SPEECH_STARTED"]
    assert len(starts) == 5
    assert starts[-1].t_ms - starts[0].t_ms <= 1000
    assert record.metrics.barge_in_events == 5
    told = [event["audio_end_ms"] for event in received(model, "conversation.item.truncate")]
    assert told == pytest.approx([length / 8 for length in heard_numbers(stream)[:5]], abs=10)
    assert record.turns[-1].heard_text == "Answer 5."
    assert_cancelled_once_each(model)
    assert model.errors_sent == []
    assert_no_stale_frame(stream)


async def test_a_request_refused_under_a_barge_in_cancels_no_later_answer(autojump_clock: MockClock) -> None:
    """D7: a barge-in waits for an answer that never comes to be: the caller's next answer is not its victim."""
    model = ScriptedRealtime([SHORT, LONG], faults=Faults())
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        model.session.active = model.session.responses[0]  # refuses what we ask for now
        model.session.active.cut_s = float("inf")
        model.session.active._index = 0
        model.session.active.created_s = trio.current_time() + 50
        stream.press("#")
        await trio.sleep(0.01)
        model.session.active = None
        stream.say(tone(300))
        await trio.sleep(7)
        await stream.hang_up()
    record = record_of(services)
    assert [error["code"] for error in model.errors_sent] == ["conversation_already_has_active_response"]
    assert counts(record)["CANCELLED_AT_BIRTH"] == 0
    assert record.turns[-1].heard_text == LONG.text

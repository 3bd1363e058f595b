"""A model that is deaf, silent, late, out of order or at its session's limit, in whole calls."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
import trio
from fault_calls import (
    GREETING,
    LONG,
    SHORT,
    assert_over,
    open_one_call,
    record_of,
)
from heard_audio import assert_no_stale_frame, heard_numbers
from trio.testing import MockClock
from virtual_call import counts, received

from agent.core.records import Outcome
from agent.model.session import RENEW_AFTER_S, RENEW_AT_LATEST_S
from agent.sim.carrier.network import Network
from agent.sim.model.script import Answer, Faults, Milestone
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.wire.websocket import MAX_MESSAGE_BYTES


def audio_delta(response_id: str, audio: str = b64encode(bytes(800)).decode()) -> dict[str, object]:
    return {"type": "response.output_audio.delta", "response_id": response_id, "item_id": "i", "delta": audio}


BAD_EVENTS: dict[str, tuple[object, str]] = {
    "no JSON": ("{", "MODEL_JSON"),
    "a list": ([1], "MODEL_FIELD"),
    "no type": ({"event_id": "e"}, "MODEL_FIELD"),
    "a delta of words": ({"type": "response.output_audio.delta", "delta": 7}, "MODEL_FIELD"),
    "wrong base64": (audio_delta("r", "not base64!"), "MODEL_BASE64"),
    "an injection": (audio_delta("r", 'AAAA","event":"clear'), "MODEL_BASE64"),
    "a delta of nobody": (audio_delta("resp_nobody"), "STALE_DELTA"),
    "a delta without a response": (audio_delta(""), "MODEL_FIELD"),
    "a response without an id": ({"type": "response.created", "response": {}}, "MODEL_FIELD"),
    "a done without an id": ({"type": "response.done"}, "MODEL_FIELD"),
    "a list for a response": ({"type": "response.created", "response": [1]}, "MODEL_FIELD"),
    "speech without an item": ({"type": "input_audio_buffer.speech_started"}, "MODEL_FIELD"),
    "a tool of nobody": (
        {"type": "response.function_call_arguments.done", "response_id": "r", "item_id": "i", "name": "end_call"},
        "STALE_TOOL_CALL",
    ),
    "half a surrogate pair": ('{"type":"error","error":{"message":"\\ud800"}}', "MODEL_JSON"),
    "an error without anything": ({"type": "error"}, "MODEL_ERROR"),
    "an error of an unknown kind": ({"type": "error", "error": {"code": "moon_phase"}}, "MODEL_ERROR"),
}


async def test_every_bad_event_is_counted_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    """Each kind of nonsense from the model, twice, into the greeting: counted, and no frame is disturbed."""
    model = ScriptedRealtime([GREETING, SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(500)
        for event, _ in BAD_EVENTS.values():
            for _ in range(2):
                model.inject(event if isinstance(event, str) else json.dumps(event))
        for unknown in ("response.future.delta", "conversation.item.retrieved"):
            model.inject({"type": unknown})
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(400))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    expected: dict[str, int] = {}
    for _, kind in BAD_EVENTS.values():
        expected[kind] = expected.get(kind, 0) + 2
    assert {kind: counts(record)[kind] for kind in expected} == expected
    assert [turn.heard_text for turn in record.turns if turn.role == "agent"] == [GREETING.text, SHORT.text]
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert len(model.sessions) == 1
    assert stream.playback.underruns == []


async def test_an_oversize_event_costs_the_session_not_the_call(autojump_clock: MockClock) -> None:
    """More than 2 MB in one event: that socket is closed with 1009, another session goes on."""
    model = ScriptedRealtime([SHORT, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        model.inject(json.dumps(audio_delta("r", "A" * MAX_MESSAGE_BYTES)))
        await trio.sleep(1)
        stream.say(tone(400))
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    assert len(model.sessions) == 2
    [lost] = [event for event in record.timeline if event.kind == "MODEL_SESSION_LOST"]
    assert "1009" in lost.detail["reason"]
    assert record.turns[-1].heard_text == LONG.text


async def test_a_done_before_its_created_leaves_nobody_waiting(autojump_clock: MockClock) -> None:
    """Out of order and repeated: a response that is done is not born again; the next turn is answered."""
    model = ScriptedRealtime([SHORT, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        model.inject({"type": "response.done", "response": {"id": "resp_early", "status": "completed"}})
        model.inject({"type": "response.created", "response": {"id": "resp_early"}})
        model.inject({"type": "response.created", "response": {"id": model.session.responses[0].id}})
        await trio.sleep(1)
        stream.say(tone(400))
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["DUPLICATE_RESPONSE"] == 2
    assert record.turns[-1].heard_text == LONG.text
    assert record.metrics.barge_in_events == 0
    assert received(model, "response.cancel") == []


async def test_an_early_done_ends_the_answer_there(autojump_clock: MockClock) -> None:
    """``response.done`` before the last delta: what came before it is heard, what came after is counted."""
    model = ScriptedRealtime([GREETING, SHORT], faults=Faults(early_done=True))
    async with open_one_call(model) as (services, stream, _):
        await trio.sleep(4)
        stream.say(tone(400))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["STALE_DELTA"] == 2
    heard = heard_numbers(stream)
    assert 2700 * 8 <= heard[0] < 3000 * 8
    assert heard[1] >= 500 * 8
    assert model.errors_sent == []


async def test_deltas_that_follow_a_cancel_never_leave(autojump_clock: MockClock) -> None:
    """PL-5: a model that goes on for 300 ms after the cancel: counted, and not one frame reaches the carrier."""
    model = ScriptedRealtime([Answer(LONG.text, 6000, speed=1.5), SHORT], cancel_lag_ms=300)
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        stream.say(tone(500))
        await trio.sleep(4)
        await stream.hang_up()
    assert counts(record_of(services))["STALE_DELTA"] >= 2
    assert_no_stale_frame(stream)
    assert model.errors_sent == []


@pytest.mark.parametrize("stage", [Milestone.UPDATED, Milestone.ANSWERING, Milestone.APPENDED])
async def test_a_deaf_model_is_found_out_and_replaced(autojump_clock: MockClock, stage: Milestone) -> None:
    """It reads no more, not even pings: within half a minute there is another session, and the call goes on."""
    faults = Faults(sessions=1, deaf_at=stage)
    model = ScriptedRealtime([GREETING, LONG, SHORT], faults=faults)
    async with open_one_call(model) as (services, stream, _):
        await trio.sleep(40)
        stream.say(tone(400))
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    [lost] = [event for event in record.timeline if event.kind == "MODEL_SESSION_LOST"]
    assert lost.t_ms <= 23_000
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.turns[-1].role == "agent"
    assert record.turns[-1].complete
    assert_over(services)


async def test_a_model_that_falls_silent_in_an_answer_is_replaced(autojump_clock: MockClock) -> None:
    """Half an answer and then nothing, the socket alive: after ten seconds the turn is asked of a new session."""
    stuck = Answer(LONG.text, 4000, speed=0.001)
    model = ScriptedRealtime([SHORT, stuck, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(400))
        await trio.sleep(20)
        await stream.hang_up()
    record = record_of(services)
    assert len(model.sessions) == 2
    assert counts(record)["MODEL_SESSION_LOST"] == 1
    assert record.turns[-1].heard_text == LONG.text


async def test_a_model_that_is_silent_while_nothing_is_due_is_left_alone(autojump_clock: MockClock) -> None:
    """Ten minutes in which nobody says anything: one session."""
    model = ScriptedRealtime([SHORT, SHORT])
    async with open_one_call(model, network=Network(silence=False), at_most_s=700) as (services, stream, _):
        await trio.sleep(600)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    assert len(model.sessions) == 1
    assert record_of(services).turns[-1].heard_text == SHORT.text


async def test_a_model_that_never_answers_a_close_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    """The provider answers no close frame: the call is over 1.5 s after the caller hung up, at most."""
    model = ScriptedRealtime([GREETING], faults=Faults(never_answer_close=True))
    async with open_one_call(model) as (services, stream, leg):
        await stream.until_heard_ms(1000)
        began = trio.current_time()
        await stream.hang_up()
        await leg.over.wait()
        assert trio.current_time() - began <= 1.5
    assert_over(services)


async def test_an_answer_of_which_nothing_was_heard_is_deleted(autojump_clock: MockClock) -> None:
    """D6: a queued answer goes as a whole; no truncate at 0 is asked, which the provider refuses."""
    queued = Answer("Nobody hears this.", 2000, speed=None)
    model = ScriptedRealtime([Answer(GREETING.text, 3000, speed=None), queued, SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(300)
        stream.press("#")
        await stream.until_heard_ms(1500)
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    record = record_of(services)
    told = [event["audio_end_ms"] for event in received(model, "conversation.item.truncate")]
    assert told == [pytest.approx(heard_numbers(stream)[0] / 8, abs=10)]
    assert model.session.conversation.deleted == [model.session.responses[1].item_id]
    assert model.errors_sent == []
    assert record.turns[-1].heard_text == SHORT.text
    assert_no_stale_frame(stream)


async def test_a_late_speech_started_truncates_at_what_was_heard_then(autojump_clock: MockClock) -> None:
    """The model is half a second late in hearing the caller: the truth is what was heard until it did (PL-8)."""
    model = ScriptedRealtime([GREETING, SHORT], faults=Faults(speech_started_delay_ms=500))
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1000)
        stream.say(tone(900))
        await trio.sleep(5)
        await stream.hang_up()
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(heard_numbers(stream)[0] / 8, abs=10)
    assert truncate["audio_end_ms"] > 1500
    assert record_of(services).turns[-1].heard_text == SHORT.text
    assert_no_stale_frame(stream)


async def test_bi_6_a_provider_that_says_it_is_busy_is_asked_afterwards(autojump_clock: MockClock) -> None:
    """BI-6: the refusal of an automatic answer is an error event: the turn is answered when the model is free."""
    slow = Answer(GREETING.text, 3000, speed=1.1)
    model = ScriptedRealtime([slow, SHORT], faults=Faults(busy_error=True), transcripts=["How much is it?"])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(60)
        stream.say(tone(200))
        await trio.sleep(8)
        await stream.hang_up()
    record = record_of(services)
    assert [error["code"] for error in model.errors_sent] == ["conversation_already_has_active_response"]
    assert counts(record)["TURN_RECOVERED"] == 1
    assert [turn.heard_text for turn in record.turns if turn.role == "agent"] == [slow.text, SHORT.text]


async def test_keys_pressed_into_an_answer_are_answered_after_it(autojump_clock: MockClock) -> None:
    """DTMF while an answer is generated: nothing is asked that would be refused; the keys get their answer."""
    slow = Answer(GREETING.text, 3000, speed=1.1)
    model = ScriptedRealtime([slow, SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1000)
        stream.press("7")
        stream.press("#")
        await trio.sleep(8)
        await stream.hang_up()
    assert model.errors_sent == []
    assert [turn.heard_text for turn in record_of(services).turns] == [slow.text, SHORT.text]


async def test_the_time_limit_in_the_middle_of_an_answer_still_says_goodbye(autojump_clock: MockClock) -> None:
    """The goodbye is asked for when the answer under way is generated, and heard after it."""
    slow = Answer(LONG.text, 6000, speed=1.1)
    model = ScriptedRealtime([slow, Answer("Time is up, goodbye.", 1500)])
    async with open_one_call(model, settings={"max_call_s": 3.0}) as (services, stream, leg):
        await leg.over.wait()
    assert record_of(services).outcome is Outcome.TIME_LIMIT
    assert heard_numbers(stream) == [6000 * 8, 1500 * 8]
    assert model.errors_sent == []


async def test_a_session_is_renewed_in_a_quiet_moment_before_its_limit(autojump_clock: MockClock) -> None:
    """D11: at 55 minutes an answer is being heard: it is heard to its end, then a new session knows of it."""
    model = ScriptedRealtime([SHORT, LONG, SHORT], transcripts=["What hours?"])
    call = open_one_call(model, settings={"max_call_s": 7200.0}, network=Network(silence=False), at_most_s=3700)
    async with call as (services, stream, _):
        await trio.sleep(RENEW_AFTER_S - 2)
        stream.say(tone(400))
        await trio.sleep(4)
        assert len(model.sessions) == 1
        assert stream.playback.audible(trio.current_time())
        await stream.until_quiet(0.1)
        await trio.sleep(2.5)
        assert len(model.sessions) == 2
        stream.say(tone(400))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    assert [turn.heard_text for turn in record.turns] == [
        SHORT.text,
        "What hours?",
        LONG.text,
        "Hello.",
        SHORT.text,
    ]
    told = [event["item"]["content"][0]["text"] for event in received(model, "conversation.item.create")]
    assert told == [SHORT.text, "What hours?", LONG.text]
    assert record.metrics.reconnects == 1
    assert counts(record)["MODEL_SESSION_RENEWED"] == 1
    assert counts(record)["MODEL_SESSION_LOST"] == 0
    assert stream.playback.underruns == []


async def test_a_session_is_renewed_at_the_latest_a_minute_before_its_limit(autojump_clock: MockClock) -> None:
    """An answer is heard for five minutes around the limit: renewed under it, no frame is missing."""
    endless = Answer("On and on.", 295_000, speed=20)
    model = ScriptedRealtime([SHORT, endless, SHORT])
    call = open_one_call(model, settings={"max_call_s": 7200.0}, network=Network(silence=False), at_most_s=3800)
    async with call as (services, stream, _):
        await trio.sleep(RENEW_AT_LATEST_S - 280)
        stream.say(tone(400))
        await trio.sleep(300)
        assert len(model.sessions) == 2
        stream.say(tone(400))
        await trio.sleep(3)
        await stream.hang_up()
    assert heard_numbers(stream) == [800 * 8, 295_000 * 8, 800 * 8]
    assert stream.playback.underruns == []
    assert counts(record_of(services))["TURN_RECOVERED"] == 0

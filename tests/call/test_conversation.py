"""What each event of the model means, in every order it can come; model, pacer and clock are the test's own."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from conversation_driver import LOUD, Talk

from agent.audio.generation import Purpose
from agent.call.answers.response_requests import ANSWER_ATTEMPTS
from agent.call.answers.responses import ANSWER_GRACE_S, FREED_GRACE_S
from agent.call.turns.leaving import Presence
from agent.core.records import Outcome
from agent.core.units import ItemId, ResponseId
from agent.model import events as model

# D7: a barge-in against the three moments of a response


def test_bi_3_a_barge_in_before_created_cancels_at_birth() -> None:
    """There is nothing to name yet: the cancel follows the ``created``, and no generation ever speaks."""
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose.TURN)
    talk.starts()
    assert talk.cancelled == []
    talk.created("r1", "turn")
    assert talk.cancelled == ["r1"]
    assert talk.did.started == []
    assert talk.count("CANCELLED_AT_BIRTH") == 1


def test_bi_3_a_barge_in_between_created_and_done_cancels_once() -> None:
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 3000)
    talk.play(1000)
    talk.starts()
    assert talk.cancelled == ["r1"]
    talk.clears()
    talk.starts("caller 1 once more")
    talk.starts("and again")
    talk.done("r1", "cancelled")
    talk.starts("and after its end")
    assert talk.cancelled == ["r1"]


def test_bi_2_a_barge_in_after_done_interrupts_and_cancels_nothing() -> None:
    """The model has finished generating; the caller still hears: interrupted, truncated, but no cancel."""
    talk = Talk()
    talk.answer("r1", 3000)
    talk.play(1000)
    talk.starts()
    talk.clears()
    assert [len(generations) for generations in talk.did.interrupted] == [1]
    assert talk.cancelled == []
    assert talk.truncated == {"item of r1": 1000}
    assert talk.conversation.barge_in_events == 1


def test_a_speech_start_with_nothing_to_say_interrupts_nothing() -> None:
    talk = Talk()
    talk.answer("r1", 200)
    talk.play(400)
    talk.pause(1.0)
    talk.starts()
    assert talk.did.interrupted == []
    assert talk.cancelled == []
    assert talk.conversation.barge_in_events == 0


def test_st_2_a_barge_in_takes_every_answer_that_is_not_heard_to_its_end() -> None:
    """The audible one is truncated where it was heard, the queued one deleted (D6)."""
    talk = Talk()
    talk.answer("r1", 2000)
    talk.created("r2")
    talk.audio("r2", 500)
    talk.play(600)
    talk.starts()
    assert [generation.live for generation in talk.did.started] == [False, False]
    assert talk.conversation.frames_dropped == 70 + 25
    assert talk.cancelled == ["r2"]
    talk.clears()
    assert talk.truncated == {"item of r1": 600, "item of r2": 0}


def test_bi_7_a_barge_in_is_counted_and_logged_with_its_fields() -> None:
    talk, fields = Talk(), list[dict[str, Any]]()
    talk.conversation.events.listener = lambda event, more: fields.append({"event": event, **more})
    talk.answer("r1", 2000)
    talk.play(600)
    for _ in range(5):
        talk.conversation.ear.meter.feed(LOUD)
    talk.starts()
    candidate, barge_in = fields
    assert candidate["event"] == "SPEECH_STARTED"
    assert candidate["decision"] == "interrupt"
    assert {"vad_frames": 5, "rms_dbfs": -0.1}.items() <= candidate.items()
    assert "playout_remaining_ms" in candidate, "PL-7"
    assert barge_in["event"] == "BARGE_IN"
    assert barge_in["frames_dropped"] == 70
    assert barge_in["generations"] == [1]


# BI-6: a turn is never lost


def test_bi_6_a_turn_committed_while_an_answer_is_active_is_answered_after_it() -> None:
    """The provider began no answer of its own: one is requested as soon as the active one is done."""
    talk = Talk(protect_ms=10_000)
    talk.conversation.response_requests.ask(Purpose.GREETING)
    talk.created("greeting", "greeting")
    talk.audio("greeting", 3000)
    talk.play(200)
    talk.starts()
    talk.commits(text="How much is it?")
    talk.pause(5.0)
    assert talk.asked == ["greeting"], "not while the greeting is active"
    talk.done("greeting")
    talk.pause(FREED_GRACE_S)
    assert talk.asked == ["greeting", "turn"]
    talk.pause(60.0)
    assert talk.asked == ["greeting", "turn"], "once"


def test_bi_6_a_turn_the_provider_answers_is_not_asked_for_again() -> None:
    talk = Talk()
    talk.starts()
    talk.commits()
    talk.pause(ANSWER_GRACE_S / 2)
    talk.answer("r1", 1000)
    talk.pause(60.0)
    assert talk.asked == []


def test_bi_6_a_turn_the_provider_forgets_is_asked_for() -> None:
    talk = Talk()
    talk.starts()
    talk.commits()
    talk.pause(ANSWER_GRACE_S)
    assert talk.asked == ["turn"]
    assert talk.count("TURN_RECOVERED") == 1


def test_bi_6_an_answer_that_begins_while_the_caller_speaks_on_is_not_given() -> None:
    """It answers half a turn; the whole one is answered instead."""
    talk = Talk()
    talk.starts("half")
    talk.commits("half")
    talk.starts("rest")
    talk.created("r1")
    assert talk.cancelled == ["r1"]
    talk.commits("rest")
    talk.done("r1", "cancelled")
    talk.pause(FREED_GRACE_S)
    assert talk.asked == ["turn"]


def test_bi_6_a_request_that_lost_the_race_costs_no_answer() -> None:
    """We asked, the caller spoke, and the provider's own answer to the committed turn came before our request.

    That answer is the one that is wanted: it is spoken, not cancelled in the place of ours.
    """
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose.TURN)
    event_id = talk.told("response.create")[0]["event_id"]
    talk.starts()
    talk.commits()
    talk.created("r1")
    assert talk.cancelled == []
    talk.event(
        model.ErrorEvent(
            "invalid_request_error", "conversation_already_has_active_response", "busy", event_id, ""
        )
    )
    talk.audio("r1", 1000)
    talk.done("r1")
    talk.pause(60.0)
    assert [generation.response_id for generation in talk.did.started] == ["r1"]
    assert talk.asked == ["turn"]


def test_a_failed_answer_is_asked_for_again_and_then_given_up() -> None:
    talk = Talk()
    talk.starts()
    talk.commits()
    for attempt in range(ANSWER_ATTEMPTS):
        talk.created(f"r{attempt}", "turn" if attempt else "")
        talk.done(f"r{attempt}", "failed", "server_error")
        talk.pause(ANSWER_GRACE_S)
    assert talk.asked == ["turn"] * (ANSWER_ATTEMPTS - 1)
    assert len(talk.did.gave_up) == 1
    talk.pause(60.0)
    assert len(talk.asked) == ANSWER_ATTEMPTS - 1, "nothing is asked of a model that was given up"


def test_failures_in_a_row_are_counted_not_those_of_the_whole_call() -> None:
    talk = Talk()
    for number in range(10):
        talk.created(f"bad {number}")
        talk.done(f"bad {number}", "failed", "server_error")
        talk.answer(f"good {number}", 100)
        talk.play(200)
    assert talk.did.gave_up == []


def test_a_failure_that_cannot_be_repaired_gives_up_at_once() -> None:
    talk = Talk()
    talk.created("r1")
    talk.done("r1", "failed", "insufficient_quota")
    assert len(talk.did.gave_up) == 1


@pytest.mark.parametrize("purpose", ["idle", "farewell"])
def test_an_answer_nobody_waits_for_is_not_asked_for_again(purpose: str) -> None:
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose(purpose))
    talk.created("r1", purpose)
    talk.done("r1", "failed", "server_error")
    talk.pause(60.0)
    assert talk.asked == [purpose]


# Events that should not be


def test_a_duplicate_created_starts_nothing() -> None:
    talk = Talk()
    talk.created("r1")
    talk.created("r1")
    talk.done("r1")
    talk.created("r1")
    assert len(talk.did.started) == 1
    assert talk.count("DUPLICATE_RESPONSE") == 2
    assert not talk.conversation.turns.busy


def test_a_done_before_its_created_leaves_nobody_waiting() -> None:
    talk = Talk()
    talk.done("r1")
    talk.created("r1")
    assert talk.did.started == []
    assert not talk.conversation.turns.busy


def test_pl_5_audio_of_unknown_and_finished_answers_is_counted_and_dropped() -> None:
    talk = Talk()
    talk.audio("never created", 100)
    talk.answer("r1", 100)
    talk.audio("r1", 100)
    assert talk.count("STALE_DELTA") == 2
    assert talk.did.started[0].received_ms == 100
    assert talk.truncated == {}


def test_pl_5_audio_of_a_cancelled_answer_is_counted_and_dropped() -> None:
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 500)
    talk.play(200)
    talk.starts()
    talk.audio("r1", 500)
    talk.clears()
    talk.audio("r1", 500)
    assert talk.count("STALE_DELTA") == 2
    assert talk.did.started[0].received_ms == 500
    assert talk.truncated == {"item of r1": 200}


def test_pl_8_an_item_that_begins_after_the_cancel_is_deleted() -> None:
    """The model will have said it, by its own account; the caller never heard a word of it."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 500, "first")
    talk.play(200)
    talk.starts()
    talk.clears()
    talk.audio("r1", 100, "second")
    talk.audio("r1", 100, "second")
    assert talk.truncated == {"first": 200, "second": 0}
    assert len(talk.told("conversation.item.truncate")) == len(talk.told("conversation.item.delete")) == 1


def test_text_of_an_unknown_answer_is_nobodys() -> None:
    talk = Talk()
    talk.text("never created", "hello")
    assert talk.conversation.transcript.turns() == ()


def test_events_that_mean_nothing_here_change_nothing() -> None:
    talk = Talk()
    before = attrs.asdict(talk.did, recurse=False)
    for event in (model.OtherEvent("rate_limits.updated"), model.SessionUpdated(), model.SessionCreated()):
        talk.event(event)
    assert attrs.asdict(talk.did, recurse=False) == before, "nothing was done about them"
    assert talk.conversation.idle


# BI-5: greeting protection


def greeted() -> Talk:
    """A greeting of three seconds, 200 ms of it heard, and the caller's voice in the line."""
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose.GREETING)
    talk.answer("greeting", 3000, purpose="greeting")
    talk.play(200)
    talk.conversation.ear.meter.feed(LOUD)
    return talk


def hear_out(talk: Talk, ms: int) -> None:
    """The greeting plays on, looked at each 20 ms as the call's monitor does."""
    for _ in range(ms // 20):
        talk.play(20)
        talk.conversation.ear.fed_s = talk.now
        talk.conversation.due(talk.now)


def test_bi_5_the_first_half_second_of_the_greeting_is_not_interrupted() -> None:
    talk = greeted()
    talk.starts()
    hear_out(talk, 280)
    assert talk.did.interrupted == []
    assert talk.conversation.due(talk.now) == pytest.approx(talk.now + 0.020)


def test_bi_5_who_still_speaks_when_it_is_over_interrupts_then() -> None:
    talk = greeted()
    talk.starts()
    hear_out(talk, 300)
    assert len(talk.did.interrupted) == 1
    talk.clears()
    assert talk.truncated == {"item of greeting": 500}
    assert talk.conversation.barge_in_events == 1


def test_bi_5_a_noise_that_ended_is_ignored() -> None:
    talk = greeted()
    talk.starts()
    hear_out(talk, 100)
    talk.event(model.SpeechStopped(ItemId("caller 1"), 0))
    hear_out(talk, 2000)
    assert talk.did.interrupted == []


def test_bi_5_a_cough_is_ignored_before_the_model_calls_it_over() -> None:
    """The model waits for its end-point silence; our own ear knows better."""
    talk = greeted()
    talk.starts()
    for _ in range(10):
        talk.conversation.ear.meter.feed(b"\xff" * 160)
    hear_out(talk, 2000)
    assert talk.did.interrupted == []


def test_bi_5_after_half_a_second_a_speech_start_interrupts_at_once() -> None:
    talk = greeted()
    talk.play(300)
    talk.starts()
    assert len(talk.did.interrupted) == 1


def test_bi_5_protects_nothing_but_the_greeting() -> None:
    talk = Talk()
    talk.answer("r1", 3000)
    talk.play(200)
    talk.starts()
    assert len(talk.did.interrupted) == 1


# Tools, and what the caller does without words


def tool_call(response: str) -> model.FunctionCallDone:
    return model.FunctionCallDone(ResponseId(response), ItemId("call item"), "call_1", "end_call", "{}")


def answer_tool(talk: Talk, call_id: str, *, answer: bool) -> None:
    call = model.FunctionCallDone(ResponseId("r"), ItemId("call item"), call_id, "look", "{}")
    talk.conversation.answer_tool(call, "{}", talk.now, answer=answer)


def test_a_tool_called_by_a_live_answer_runs() -> None:
    """Once the answer is over: one that is cut short may not have meant it."""
    talk = Talk()
    talk.created("r1")
    talk.event(tool_call("r1"))
    assert talk.did.tools == []
    talk.done("r1")
    assert [call.name for call in talk.did.tools] == ["end_call"]


def test_a_tool_called_by_a_cancelled_or_unknown_answer_does_not() -> None:
    """A caller who interrupts the goodbye is not hung up on."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1000)
    talk.play(200)
    talk.starts()
    talk.event(tool_call("r1"))
    talk.event(tool_call("never created"))
    assert talk.did.tools == []
    assert talk.count("STALE_TOOL_CALL") == 2


def test_a_tools_output_is_told_and_answered_when_the_model_is_free() -> None:
    talk = Talk()
    talk.created("r1")
    answer_tool(talk, "call_1", answer=True)
    assert [event["item"]["type"] for event in talk.told("conversation.item.create")] == ["function_call_output"]
    assert talk.asked == []
    talk.done("r1")
    talk.pause(FREED_GRACE_S)
    assert talk.asked == ["turn"]
    talk.answer("r2", 100, purpose="turn")
    answer_tool(talk, "call_2", answer=True)
    assert talk.asked == ["turn", "tool"]
    talk.answer("r3", 100, purpose="tool")
    answer_tool(talk, "call_3", answer=False)
    assert talk.asked == ["turn", "tool"]


def test_a_model_that_was_given_up_is_asked_for_nothing() -> None:
    """Or the apology would wait for an answer that cannot come."""
    talk = Talk()
    talk.event(model.ErrorEvent("invalid_request_error", "invalid_api_key", "no", "", ""))
    answer_tool(talk, "call_1", answer=True)
    talk.conversation.tell("The caller pressed 42#", talk.now)
    assert talk.asked == []
    assert not talk.conversation.turns.busy


def test_keys_are_told_as_the_callers_and_answered() -> None:
    talk = Talk()
    talk.conversation.tell("The caller pressed 42#", talk.now)
    [item] = talk.told("conversation.item.create")
    assert item["item"]["role"] == "user"
    assert talk.asked == ["keys"]


@pytest.mark.parametrize("news", ["keys", "tool"])
def test_news_that_lost_a_race_are_answered_after_the_answer_that_won(news: str) -> None:
    """The provider began an answer of its own before it knew of them: that answer does not meet them."""
    talk = Talk()
    if news == "keys":
        talk.conversation.tell("The caller pressed 42#", talk.now)
    else:
        answer_tool(talk, "call_1", answer=True)
    [request] = talk.told("response.create")
    talk.created("r1")
    refusal = "conversation_already_has_active_response"
    talk.event(model.ErrorEvent("invalid_request_error", refusal, "busy", request["event_id"], ""))
    talk.done("r1")
    talk.pause(FREED_GRACE_S)
    assert talk.asked == [news, "turn"]


# Errors


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "model_not_found"])
def test_a_fatal_error_gives_up_once(code: str) -> None:
    talk = Talk()
    talk.event(model.ErrorEvent("invalid_request_error", code, "no", "", ""))
    talk.event(model.ErrorEvent("invalid_request_error", code, "no", "", ""))
    assert talk.did.gave_up == ["no"]


def test_an_expired_session_is_renewed() -> None:
    talk = Talk()
    talk.event(model.ErrorEvent("invalid_request_error", "session_expired", "60 minutes", "", ""))
    assert talk.did.renewed == ["session_expired"]


def test_a_refused_request_is_made_again() -> None:
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose.TURN)
    event_id = talk.told("response.create")[0]["event_id"]
    talk.event(model.ErrorEvent("server_error", "", "try again", event_id, ""))
    talk.pause(ANSWER_GRACE_S)
    assert talk.asked == ["turn", "turn"]


def test_a_cancel_that_came_too_late_is_no_trouble() -> None:
    talk = Talk()
    talk.event(model.ErrorEvent("invalid_request_error", "response_cancel_not_active", "", "agent-1", ""))
    assert talk.did.gave_up == []
    assert talk.conversation.idle


# Latency


def test_the_latency_of_a_turn_counts_from_the_real_end_of_speech() -> None:
    """The model reports the end of speech 300 ms late and waits 500 ms to be sure: both are the caller's wait."""
    talk = Talk()
    talk.conversation.endpoint_ms = 500
    talk.conversation.turns.session.appended_ms = 10_300
    talk.now = 11.0
    talk.starts()
    talk.event(model.SpeechStopped(ItemId("caller 1"), 10_000))
    talk.event(model.InputCommitted(ItemId("caller 1")))
    assert talk.conversation.caller_quiet_since == pytest.approx(10.2)
    talk.now += 0.1
    talk.created("r1")
    talk.audio("r1", 100)
    talk.play(20)
    assert talk.conversation.turn_latencies_ms == [900]


def test_a_greeting_is_no_answer_to_a_turn() -> None:
    talk = Talk()
    talk.conversation.response_requests.ask(Purpose.GREETING)
    talk.answer("greeting", 100, purpose="greeting")
    talk.play(200)
    assert talk.conversation.turn_latencies_ms == []


def test_an_incomplete_answer_that_runs_a_tool_is_asked_for_once() -> None:
    """The tool's answer asks the model to go on; to make up for the silent one besides would ask it twice."""
    talk = Talk()
    talk.created("r1")
    talk.event(model.FunctionCallDone(ResponseId("r1"), ItemId("use"), "call_1", "book", "{}"))
    talk.done("r1", "incomplete", "max_output_tokens")
    [call] = talk.did.tools
    talk.pause(1.0)
    assert talk.asked == []
    talk.conversation.answer_tool(call, "booked", talk.now, answer=True)
    talk.pause(3.0)
    assert talk.asked == ["tool"]


def test_mo_7_a_key_takes_a_leaving_back_and_so_does_speech_with_all_that_came_before() -> None:
    """Two tools may both want to leave, for the first reason; who speaks is answered by neither."""
    talk = Talk()
    departure = talk.conversation.departure
    first = talk.conversation.leave(Outcome.AGENT_HUNG_UP, "the agent ended the call")
    second = talk.conversation.leave(Outcome.TRANSFERRED, "transferred")
    assert departure.why is first is second
    talk.starts()
    assert departure.staying
    third = talk.conversation.leave(Outcome.AGENT_HUNG_UP, "the agent ended the call")
    assert departure.why is third is not first
    talk.conversation.key_pressed("1", talk.now)
    assert departure.staying


def test_mo_7_a_model_that_is_gone_for_good_is_not_waited_for() -> None:
    """Whoever was leaving before leaves it to the apology, and no speech start takes that back."""
    talk = Talk()
    leaving = talk.conversation.leave(Outcome.IDLE, "the agent said goodbye")
    talk.event(model.ErrorEvent("invalid_request_error", "invalid_api_key", "no", "", ""))
    assert talk.conversation.departure.presence is Presence.GIVEN_UP
    assert talk.conversation.departure.why is not leaving
    talk.starts()
    assert talk.conversation.departure.final


def test_mo_4_a_limit_of_the_provider_s_is_told_to_whoever_takes_calls() -> None:
    """By the failed answer, and by what the provider tells of its limits after each answer."""
    talk = Talk()
    talk.created("r1")
    talk.done("r1", "failed", "rate_limit_exceeded")
    [wait_s] = talk.did.limited_s
    assert wait_s >= 1.0
    talk.event(model.RateLimits((model.RateLimit(0, 12.0), model.RateLimit(900, 1.0))))
    talk.event(model.RateLimits((model.RateLimit(0, 3600.0),)))
    talk.event(model.RateLimits((model.RateLimit(None, None),)))
    assert talk.did.limited_s == [wait_s, 12.0, 60.0]

"""Leaving: nobody is hung up on while speaking, and what is said into a goodbye takes it back."""

from __future__ import annotations

import pytest
import trio
from fault_calls import GREETING, LONG, SHORT, open_one_call, record_of
from trio.testing import MockClock
from unkind_models import run_in_order

from agent.core.records import Outcome
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

GOODBYE = Answer("Goodbye then.", 600, tool_call=ScriptedToolCall("end_call"))


@pytest.mark.parametrize("pause_ms", [0, 150, 350])
async def test_who_speaks_right_after_the_goodbye_is_not_hung_up_on(
    autojump_clock: object, pause_ms: int
) -> None:
    """The caller speaks for three seconds, from shortly after the goodbye on: the line stays open."""
    model = ScriptedRealtime([GREETING, GOODBYE, SHORT])
    async with open_one_call(model) as (_, stream, leg):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(300))
        await stream.until_heard_ms(3600)
        await trio.sleep(pause_ms / 1000)
        stream.say(tone(3000))
        with trio.move_on_after(3.0):
            await leg.over.wait()
        hung_up = leg.over.is_set()
        await stream.hang_up()
    assert not hung_up


async def speak_as_the_model_leaves() -> bool:
    """``end_call`` and the caller's speech arrive together; whether the caller was hung up on."""
    model = ScriptedRealtime([Answer(LONG.text, 4000, speed=8), SHORT])
    async with open_one_call(model, settings={"greeting_protect_ms": 0}) as (_, stream, leg):
        await stream.until_heard_ms(300)
        model.inject(
            {
                "type": "response.function_call_arguments.done",
                "response_id": model.session.responses[0].id,
                "item_id": "item_t",
                "call_id": "call_t",
                "name": "end_call",
                "arguments": "{}",
            }
        )
        model.inject({"type": "input_audio_buffer.speech_started", "item_id": "item_s", "audio_start_ms": 300})
        with trio.move_on_after(6.0):
            await leg.over.wait()
        hung_up = leg.over.is_set()
        await stream.hang_up()
    return hung_up


def test_speech_behind_end_call_takes_it_back_in_any_order_of_tasks() -> None:
    """Speech that arrives right behind ``end_call`` keeps the call, whichever task happens to run first."""
    assert not any(
        run_in_order(speak_as_the_model_leaves, seed, MockClock(autojump_threshold=0)) for seed in range(12)
    )


async def test_who_answers_into_the_idle_farewell_is_not_hung_up_on(autojump_clock: object) -> None:
    """A caller who says that he is there, in the middle of the farewell, is heard out and answered."""
    model = ScriptedRealtime(
        [GREETING, Answer("Are you still there?", 1000), Answer("You do not answer, goodbye.", 3000), SHORT]
    )
    idle = {"idle_prompt_s": 3.0, "idle_prompts": 1}
    async with open_one_call(model, settings=idle) as (services, stream, leg):
        await stream.until_heard_ms(4500)
        stream.say(tone(2500))
        with trio.move_on_after(2.5):
            await leg.over.wait()
        hung_up = leg.over.is_set()
        await trio.sleep(2.0)
        await stream.hang_up()
    assert not hung_up
    assert record_of(services).outcome is Outcome.CALLER_HUNG_UP
    assert record_of(services).turns[-1].text == SHORT.text


async def test_the_time_limit_waits_for_the_callers_words_and_says_goodbye(autojump_clock: object) -> None:
    """The limit comes into a sentence: it is heard out, then the goodbye is spoken, then the line is closed."""
    model = ScriptedRealtime([Answer("Hello.", 1000), Answer("Time is up, goodbye.", 1500), SHORT])
    async with open_one_call(model, settings={"max_call_s": 5.0}) as (services, stream, leg):
        await stream.until_heard_ms(1000)
        await trio.sleep(2.0)
        began_s, heard_ms = trio.current_time(), stream.heard_ms()
        stream.say(tone(6000))
        with trio.move_on_after(35.0):
            await leg.over.wait()
        lasted_s = trio.current_time() - began_s
    assert record_of(services).outcome is Outcome.TIME_LIMIT
    assert lasted_s >= 6.0
    assert stream.heard_ms() > heard_ms

"""The greeting: who really speaks into it interrupts it, and a hello or a cough is settled by it."""

from __future__ import annotations

import attrs
import pytest
import trio
from fault_calls import GREETING, SHORT, open_one_call, record_of

from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import silence, tone


@pytest.mark.parametrize("first_word_ms", [160, 240])
async def test_a_breath_at_the_end_of_the_protection_only_postpones(
    autojump_clock: object, first_word_ms: int
) -> None:
    """The caller breathes for 260 ms as the protection ends, and speaks on: the greeting stops within 1 s."""
    model = ScriptedRealtime([Answer("Hello, this is the assistant of a very long name.", 6000), SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(100)
        stream.say(tone(first_word_ms) + silence(260) + tone(4000))
        await trio.sleep(9.0)
        await stream.hang_up()
    record = record_of(services)
    assert record.metrics.barge_in_events == 1
    assert record.turns[0].heard_ms < 100 + first_word_ms + 260 + 1000


async def answers_to(first_delta_ms: int, at_ms: int, sound_ms: int) -> list[str]:
    """What the agent says when a sound is made ``at_ms`` into its greeting, which begins after a while."""
    model = ScriptedRealtime([attrs.evolve(GREETING, first_delta_ms=first_delta_ms), SHORT, SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(at_ms)
        stream.say(tone(sound_ms))
        await trio.sleep(8.0)
        await stream.hang_up()
    return [turn.text for turn in record_of(services).turns if turn.role == "agent"]


async def test_a_hello_before_the_greeting_is_answered_by_it(autojump_clock: object) -> None:
    """Who says hello while the greeting is under way hears the greeting, and no second answer."""
    assert await answers_to(600, 0, 350) == [GREETING.text]


async def test_a_hello_into_the_greeting_is_answered_by_it(autojump_clock: object) -> None:
    """Who says hello in the first moments of the greeting hears the rest of it, and no second answer."""
    assert await answers_to(200, 60, 300) == [GREETING.text]


async def test_a_cough_into_the_greeting_is_no_turn(autojump_clock: object) -> None:
    """A cough of 100 ms into the greeting gets no answer."""
    assert await answers_to(200, 60, 100) == [GREETING.text]

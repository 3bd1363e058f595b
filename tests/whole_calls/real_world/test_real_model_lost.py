"""MO-5: what a lost session takes with it: nothing that the caller is owed, nothing that was told."""

from __future__ import annotations

import pytest
import trio
from fault_calls import GREETING, SHORT, open_faulty_call, open_one_call, record_of
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from unkind_models import Desk, run_in_order, slow_to_connect, suppose, told, until_spoken_to
from virtual_call import open_services, received

from agent.call.tools.declare import make_tool
from agent.sim.model.script import Answer, Faults, Milestone, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

OWED_S = 8.0
"""No silence that we owe the end of is longer."""
LOSSES = ("drop", "close", "session_expired")


def lose(model: ScriptedRealtime, how: str) -> None:
    """The session is over, in one of the ways of the real provider."""
    if how == "session_expired":
        error = {"type": "invalid_request_error", "code": how, "message": "Your session hit its limit."}
        model.inject({"type": "error", "error": error})
    else:
        model.disconnect(drop=how == "drop")


async def silence_after_loss(how: str, after_ms: int, idle_prompt_s: float = 0.0) -> float:
    """The session is lost ``after_ms`` into a turn of 1,500 ms; returns the seconds from both to an answer."""
    model = ScriptedRealtime([GREETING, SHORT, SHORT, SHORT])
    async with open_one_call(model, settings={"idle_prompt_s": idle_prompt_s}) as (_, stream, _leg):
        await stream.until_heard_ms(3000)
        await trio.sleep(1.0)
        stream.say(tone(1500))
        await trio.sleep(after_ms / 1000)
        lose(model, how)
        await stream.until_said()
        silent_s = await until_spoken_to(stream, 12.0)
        await stream.hang_up()
    suppose(len(model.sessions) == 2, "the session was lost")
    return silent_s


HALF_A_TURN = (
    "A session lost between the caller's last word and its commit takes the turn, and what is owed, with it."
)


@pytest.mark.parametrize("idle_prompt_s", [0.0, 15.0])
async def test_a_turn_lost_before_its_commit_is_answered(autojump_clock: object, idle_prompt_s: float) -> None:
    """The socket drops 100 ms after the caller's last word: he is answered all the same."""
    assert await silence_after_loss("drop", 1600, idle_prompt_s) < OWED_S


@example("drop", 1600, 0)
@given(st.sampled_from(LOSSES), st.integers(0, 3000), st.integers(0, 999))
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
)
def test_a_turn_is_answered_whenever_the_session_is_lost(how: str, after_ms: int, seed: int) -> None:
    """At whatever moment of a turn, in whatever way and order of tasks the session is lost: it is answered."""
    silent_s: float = run_in_order(
        lambda: silence_after_loss(how, after_ms), seed, MockClock(autojump_threshold=0)
    )
    assert silent_s < OWED_S


async def test_a_deaf_session_is_noticed_while_an_answer_is_owed(autojump_clock: object) -> None:
    """The model stops reading; who speaks then is answered by the next session."""
    deaf = Faults(sessions=1, deaf_at=Milestone.APPENDED, after_appends=100)
    model = ScriptedRealtime([Answer("Hello.", 400), SHORT], faults=deaf)
    async with open_one_call(model) as (_, stream, _leg):
        await trio.sleep(3.0)
        stream.say(tone(1000))
        await stream.until_said()
        silent_s = await until_spoken_to(stream, 20.0)
        await stream.hang_up()
    assert silent_s < OWED_S


async def test_our_own_ear_interrupts_while_no_session_is_open(autojump_clock: object) -> None:
    """The caller speaks into an answer while the model is away: the agent stops within half a second."""
    model = ScriptedRealtime([Answer("A long answer of many words.", 9000, speed=None), SHORT])
    async with (
        open_services(slow_to_connect(model, later_s=3.0)) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await stream.until_heard_ms(1500)
        model.disconnect(drop=True)
        await trio.sleep(0.1)
        stream.say(tone(2000))
        await trio.sleep(0.5)
        talks_over_him = stream.playback.audible(trio.current_time())
        await trio.sleep(6.0)
        await stream.hang_up()
    suppose(record_of(services).metrics.barge_in_events == 1, "the caller interrupts, sooner or later")
    assert not talks_over_him


async def test_keys_pressed_before_the_first_session_are_told_once(autojump_clock: object) -> None:
    """Two keys while the model is still being reached: it is told of them once."""
    model = ScriptedRealtime([GREETING, SHORT])
    async with (
        open_services(slow_to_connect(model, first_s=1.5)) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await trio.sleep(0.3)
        stream.press("1")
        stream.press("#")
        await trio.sleep(8.0)
        await stream.hang_up()
    asked = [event["response"]["metadata"]["purpose"] for event in received(model, "response.create")]
    suppose({"keys", "turn"} & set(asked), "an answer to the keys is asked for")
    assert told(model, "pressed these keys") == 1


async def result_while_reconnecting() -> ScriptedRealtime:
    """A tool's result comes while the model is being reconnected."""
    model = ScriptedRealtime(
        [GREETING, Answer("Let me book that.", 400, tool_call=ScriptedToolCall("book")), SHORT]
    )
    tools = (make_tool(Desk(takes_s=2.0).book),)
    async with (
        open_services(slow_to_connect(model, later_s=2.0), tools=tools) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(300))
        await stream.until_heard_ms(3300)
        model.disconnect(drop=True)
        await trio.sleep(8.0)
        await stream.hang_up()
    suppose(len(model.sessions) == 2, "the session was lost")
    return model


async def test_a_result_that_comes_while_reconnecting_is_told_once(autojump_clock: object) -> None:
    """The next session is told of the tool's result once."""
    assert told(await result_while_reconnecting(), "BOOKED-4711") == 1


async def test_a_result_that_comes_while_reconnecting_is_answered_once(autojump_clock: object) -> None:
    """The next session answers once."""
    assert len((await result_while_reconnecting()).session.responses) == 1


async def test_a_result_that_was_told_to_a_lost_session_is_told_to_the_next(autojump_clock: object) -> None:
    """A write is done and told, the session lost before a word of it was said: the next one hears of it, once."""
    model = ScriptedRealtime(
        [
            GREETING,
            Answer("Let me book that.", 400, tool_call=ScriptedToolCall("book")),
            Answer("Your appointment is made.", 3000, first_delta_ms=800),
            SHORT,
        ]
    )
    tools = (make_tool(Desk(takes_s=0.2).book, writes=True),)
    async with (
        open_services(slow_to_connect(model), tools=tools) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(300))
        await stream.until_heard_ms(3400)
        await trio.sleep(0.5)
        model.disconnect(drop=True)
        await trio.sleep(8.0)
        await stream.hang_up()
    first, second = model.sessions
    suppose(list(first.conversation.tool_outputs.values()) == ["BOOKED-4711"], "the first session was told")
    suppose(first.responses[-1].sent_bytes == 0, "it said nothing of it")
    suppose(second.responses, "the second answers")
    assert told(model, "BOOKED-4711") == 1

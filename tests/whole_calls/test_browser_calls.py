"""Whole calls of a browser in virtual time: the scenarios of BI-8 on the second leg, and what only it has."""

from typing import NoReturn

import pytest
import trio
from browser_calls import BrowserWorld, open_browser_call
from heard_audio import assert_no_stale_frame, heard_numbers
from trio.testing import MockClock
from virtual_call import open_services, received, tx

from agent.app.browser_answer import BrowserCalls
from agent.browser.admission import BrowserAdmission
from agent.call.prompts import UNAVAILABLE, prompt
from agent.core.audio_format import PCM16_24K, ULAW_8K
from agent.core.records import Outcome
from agent.sim.browser.phone import open_simulated_browser
from agent.sim.carrier.stream import open_simulated_stream
from agent.sim.model.script import Answer
from agent.sim.model.sending import pcm16_as_ulaw
from agent.sim.sounds import tone

GREETING = Answer("Hello, this is the assistant, how can I help you today?", 3000)
LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 4000)
SHORT = Answer("You are welcome.", 800)
DELAYS = pytest.mark.parametrize("delay_ms", [0, 60, 150])
"""Of the browser's device: its jitter buffer and its speaker."""


@DELAYS
async def test_bi_8_a_interrupting_the_greeting(delay_ms: int, autojump_clock: MockClock) -> None:
    """A: it stops at once, and the model learns what was heard, to 40 ms of what the page played (PL-8)."""
    async with open_browser_call([GREETING, LONG], delay_ms=delay_ms) as (world, _, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await stream.until_quiet(0.3)
        await stream.until_heard_ms(stream.heard_ms() + 4000)
        await trio.sleep(0.5)
        await stream.hang_up()
    record = world.services.record
    greeting, caller, answer = record.turns
    assert record.call_sid.startswith("BR")
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.metrics.barge_in_events == 1
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(heard_numbers(stream)[0] / 8, abs=40)
    assert greeting.heard_ms == truncate["audio_end_ms"]
    assert 0 < len(greeting.heard_text) < len(greeting.text)
    assert caller.role == "caller"
    assert answer.heard_text == LONG.text
    assert model.errors_sent == []
    assert stream.playback.underruns == []
    assert_no_stale_frame(stream)
    assert stream.close_code == 1000


@DELAYS
async def test_bi_8_b_interrupting_an_answer(delay_ms: int, autojump_clock: MockClock) -> None:
    """B: an answer is interrupted although the model has long finished generating it (BI-2)."""
    fast = Answer(LONG.text, 4000, speed=None)
    async with open_browser_call([SHORT, fast, SHORT], delay_ms=delay_ms) as (world, _, stream, model):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(600))
        await stream.until_heard_ms(800 + 1500)
        stream.say(tone(600))
        await stream.until_quiet(0.3)
        await trio.sleep(2.5)
        await stream.hang_up()
    record = world.services.record
    assert record.metrics.barge_in_events == 1
    assert received(model, "response.cancel") == []
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(heard_numbers(stream)[1] / 8, abs=40)
    assert [turn.interrupted for turn in record.turns if turn.role == "agent"] == [False, True, False]
    assert model.errors_sent == []


@DELAYS
async def test_bi_8_b2_several_barge_ins_in_one_call(delay_ms: int, autojump_clock: MockClock) -> None:
    """B2: each is cancelled at most once, and truncated as the page played it (BI-3)."""
    long = [Answer(f"Answer number {number}, a long one.", 4000, speed=1.5) for number in range(5)]
    async with open_browser_call([GREETING, *long], delay_ms=delay_ms) as (world, _, stream, model):
        for _ in range(5):
            await stream.until_heard_ms(stream.heard_ms() + 1200)
            stream.say(tone(500))
            await stream.until_said()
            await stream.until_quiet(0.2)
        await trio.sleep(8)
        await stream.hang_up()
    assert world.services.record.metrics.barge_in_events == 5
    cancels = [event["response_id"] for event in received(model, "response.cancel")]
    assert len(cancels) == len(set(cancels))
    assert model.errors_sent == []
    told = [event["audio_end_ms"] for event in received(model, "conversation.item.truncate")]
    assert told == pytest.approx([length / 8 for length in heard_numbers(stream)[:5]], abs=40)
    assert_no_stale_frame(stream)


async def test_a_device_that_hides_its_delay_is_believed_to_have_played_more(autojump_clock: MockClock) -> None:
    """Why the browser reports it: without, what counts as heard is off by the delay."""
    call = open_browser_call([GREETING, LONG], delay_ms=150, reported_delay_ms=0)
    async with call as (_, _, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await stream.until_quiet(0.3)
        await stream.hang_up()
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] - heard_numbers(stream)[0] / 8 > 40


async def test_the_model_is_asked_for_the_browsers_format(autojump_clock: MockClock) -> None:
    """Nothing is transcoded in the server: PCM16 at 24 kHz on both legs, keys and hanging up as on the phone."""
    async with open_browser_call([SHORT, SHORT]) as (world, phone, stream, model):
        await stream.until_heard_ms(800)
        stream.press("5")
        stream.press("#")
        await stream.until_heard_ms(1600)
        await stream.hang_up()
    [update, *_] = received(model, "session.update")
    for way in ("input", "output"):
        assert update["session"]["audio"][way]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert phone.welcomes[0]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert world.services.record.dtmf == "5#"
    assert world.services.rest.requests == [], "there is no carrier to be asked for anything"
    assert tx(stream, "malformed") == []


async def test_captions_tell_what_is_heard_and_latencies_sum(autojump_clock: MockClock) -> None:
    """WB-7: words come as they are heard; what was cut off is told apart; parts make the whole."""
    call = open_browser_call([GREETING, LONG], transcripts=["When are you open?"])
    async with call as (world, phone, stream, _):
        await stream.until_heard_ms(1500)
        halfway = [shown for shown in phone.told if shown["type"] == "caption"]
        stream.say(tone(700))
        await stream.until_heard_ms(stream.heard_ms() + 4000)
        await trio.sleep(1.0)
        await stream.hang_up()
    heard = [len(shown["heard"]) for shown in halfway]
    assert heard == sorted(heard)
    assert 0 < heard[-1] < len(GREETING.text)
    last = {shown["id"]: shown for shown in phone.told if shown["type"] == "caption"}
    assert [(turn.text, turn.heard_text, turn.interrupted) for turn in world.services.record.turns] == [
        (shown["text"], shown["heard"], shown["interrupted"]) for shown in last.values()
    ]
    [latency] = [shown for shown in phone.told if shown["type"] == "latency"]
    assert latency["total_ms"] == latency["turn_ms"] + latency["voice_ms"]
    assert world.services.record.metrics.turn_latencies_ms == (latency["total_ms"],)


def test_the_bundled_apology_is_the_same_in_both_formats() -> None:
    """As long, and as loud where it is sampled."""
    phone, browser = prompt(UNAVAILABLE, ULAW_8K), prompt(UNAVAILABLE, PCM16_24K)
    assert PCM16_24K.ms(len(browser)) == ULAW_8K.ms(len(phone))
    assert pcm16_as_ulaw(browser) == phone.replace(b"\x7f", b"\xff")


async def test_a_model_that_cannot_be_reached_is_apologised_for(autojump_clock: MockClock) -> None:
    """MO-4 on the browser's leg: the bundled prompt, for there is no carrier to say it."""

    def refuse() -> NoReturn:
        raise OSError("nobody listens")

    async with open_services(refuse) as services, trio.open_nursery() as nursery:
        world = BrowserWorld(services, BrowserCalls(services.calls, BrowserAdmission()), nursery)
        async with (
            open_simulated_browser(world.connect, world.token()) as phone,
            open_simulated_stream(phone, call_sid="BR", stream_sid="BR") as stream,
        ):
            await stream.until_closed()
    assert stream.playback.tape.audio().startswith(prompt(UNAVAILABLE, ULAW_8K).replace(b"\x7f", b"\xff"))
    assert services.record.outcome is Outcome.MODEL_UNAVAILABLE

"""Whole calls whose session writes down nothing of what the caller says: the default with a provider's model."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock
from unkind_models import count_events
from virtual_call import counts, open_call, open_scripted_call, open_services, received

from agent.call.memory.replay import WORDS_UNKNOWN
from agent.core.event_log import EventLog
from agent.core.records import Outcome, Turn
from agent.core.settings import load_settings
from agent.core.telemetry import Telemetry
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.store.call_writer import CallWriter, Entry
from agent.store.sql.values import AnsweredCall

GREETING = Answer("Hello, this is the assistant, how can I help you today?", 3000)
LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 4000)
SHORT = Answer("You are welcome.", 800)
NOBODY_WRITES: dict[str, Any] = {"transcription_model": ""}
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    async def write(self, entry: Entry) -> None:
        """See ``write_entry``."""
        await trio.lowlevel.checkpoint()
        if isinstance(entry, tuple):
            self.turns.append(entry[1])


async def no_spool(_: AnsweredCall) -> None:
    """Nothing is spooled here."""
    await trio.lowlevel.checkpoint()


def wordless(turn: Turn) -> bool:
    """A caller's turn with its times and nothing else."""
    return (turn.role, turn.text, turn.complete, turn.audio_ms > 0) == ("caller", "", False, True)


async def test_answers_and_barge_in_without_a_transcript(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The greeting is interrupted, both turns are answered, the record has when each was spoken."""
    sent = count_events(monkeypatch)
    answers = [GREETING, LONG, SHORT]
    async with open_scripted_call(answers, settings=NOBODY_WRITES) as (services, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await stream.until_said()
        await trio.sleep(6)
        stream.say(tone(500))
        await stream.until_said()
        await trio.sleep(3)
        await stream.hang_up()
    record = services.record
    [update] = received(model, "session.update")
    assert "transcription" not in update["session"]["audio"]["input"]
    assert sent[TRANSCRIBED] == 0, "nobody asked for it"
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert [turn.role for turn in record.turns] == ["agent", "caller", "agent", "caller", "agent"]
    greeting, first, hours, second, bye = record.turns
    assert record.metrics.barge_in_events == 1
    assert greeting.interrupted
    assert greeting.heard_text != greeting.text
    assert (hours.heard_text, bye.heard_text) == (LONG.text, SHORT.text)
    assert wordless(first)
    assert wordless(second)
    assert first.audio_ms == pytest.approx(700, abs=150)
    assert first.started_ms < hours.started_ms < second.started_ms
    assert len(record.metrics.turn_latencies_ms) == 2
    assert counts(record)["TURN_RECOVERED"] == 0, "no turn waited for its words"
    assert model.errors_sent == []


async def test_a_turn_committed_while_an_answer_is_active_is_answered_all_the_same(
    autojump_clock: MockClock,
) -> None:
    """BI-6 needs no words: the turn that was spoken into the protected greeting gets its answer."""
    slow = Answer(GREETING.text, 6000, speed=1.0)
    async with open_scripted_call([slow, SHORT], settings={**NOBODY_WRITES, "greeting_protect_ms": 3000}) as (
        services,
        stream,
        model,
    ):
        await stream.until_heard_ms(40)
        stream.say(tone(900))
        await trio.sleep(10)
        await stream.hang_up()
    assert services.record.turns[-1].heard_text == SHORT.text
    assert [event["response"]["metadata"]["purpose"] for event in received(model, "response.create")] == [
        "greeting",
        "turn",
    ]


async def test_a_new_session_is_told_that_there_were_words_nobody_knows(autojump_clock: MockClock) -> None:
    """The socket is lost in an answer: the agent's words are replayed and, between them, that somebody spoke."""
    answers = [GREETING, LONG, Answer("A long second answer, cut by the network.", 4000, speed=1.2), SHORT]
    async with open_scripted_call(answers, settings=NOBODY_WRITES) as (services, stream, model):
        await stream.until_heard_ms(3000)
        for pause_s in (6.0, 2.5):
            await trio.sleep(0.5)
            stream.say(tone(500))
            await stream.until_said()
            await trio.sleep(pause_s)
        model.disconnect(drop=True)
        await trio.sleep(8)
        await stream.hang_up()
    told = [event["item"] for _, event in model.sessions[1].received if "item" in event]
    said = [(item["role"], item["content"][0]["text"]) for item in told]
    cut = services.record.turns[4].heard_text
    assert said == [
        ("assistant", GREETING.text),
        ("user", WORDS_UNKNOWN),
        ("assistant", LONG.text),
        ("user", WORDS_UNKNOWN),
        ("assistant", cut),
    ]
    assert cut
    assert services.record.turns[-1].heard_text == SHORT.text, "whoever was being answered is answered again"


async def test_a_wordless_turn_is_kept_when_it_is_over(autojump_clock: MockClock) -> None:
    """A server that dies leaves the caller's turns too: the recording brings their words."""
    journal = Kept()
    keeper = CallWriter(journal.write, EventLog(Telemetry()), no_spool)
    model = ScriptedRealtime([GREETING, SHORT])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        connect = memory_realtime(lambda: model)
        async with (
            open_services(connect, keeper=keeper, **NOBODY_WRITES) as services,
            open_call(services) as stream,
        ):
            await stream.until_heard_ms(3000)
            await trio.sleep(0.5)
            stream.say(tone(500))
            await stream.until_said()
            await trio.sleep(0.5)
            assert [turn.role for turn in journal.turns] == ["agent", "caller"]
            assert wordless(journal.turns[1])
            await stream.hang_up()
        nursery.cancel_scope.cancel(reason="the test is over")


def test_the_embedded_model_writes_down_what_it_hears() -> None:
    """It does so to understand it: nobody else's model is asked for."""
    assert load_settings(openai_api_key="").transcribes_calls
    assert not load_settings(openai_api_key="sk").transcribes_calls
    assert load_settings(openai_api_key="sk", transcription_model="x").transcribes_calls

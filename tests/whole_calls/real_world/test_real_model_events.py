"""What the real provider sends: refusals, nulls, missing names, incomplete answers, rate limits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from fault_calls import GREETING, SHORT, open_faulty_call, open_one_call, record_of
from unkind_models import count_events, edit_events, suppose, until_spoken_to
from virtual_call import counts, open_services, received

from agent.core.admission import LIMITED
from agent.core.records import Outcome
from agent.core.tenant import Tenant
from agent.model.server_shapes import EventRefusedError
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import RATE_LIMITED, Answer, Faults, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.model.settings import SessionSettings
from agent.sim.sounds import numbers_in, tone

LEAVES = Answer("Bye.", 800, tool_call=ScriptedToolCall("end_call"))
VOICE = "session.audio.output.voice"
ANSWERED_S = 4.0
"""From the caller's last word: the end-point silence, two seconds to ask again, and the answer."""


def refuse_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider refuses every ``session.update`` that names a voice: it retired them all."""
    update = SessionSettings.update

    def refuse(settings: SessionSettings, session: object) -> None:
        if isinstance(session, dict) and "voice" in session["audio"]["output"]:
            raise EventRefusedError("invalid_value", "Invalid value: a retired voice.", VOICE)
        update(settings, session)

    monkeypatch.setattr(SessionSettings, "update", refuse)


def spoken_by_model(stream: SimulatedStream) -> Counter[int]:
    """Bytes of each of the model's answers that were sent to the caller."""
    return sum((numbers_in(entry.audio) for entry in stream.wire if entry.direction == "tx"), Counter())


async def test_nothing_is_played_in_a_format_that_was_not_confirmed(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are refused: no audio of a session without ``session.updated`` reaches the caller."""
    refuse_voice(monkeypatch)
    sent = count_events(monkeypatch)
    model = ScriptedRealtime([GREETING, SHORT])
    async with open_one_call(model) as (_, stream, _leg):
        await trio.sleep(6.0)
        await stream.hang_up()
    suppose(model.errors_sent, "the settings are refused")
    assert sent["session.updated"] or not spoken_by_model(stream)


async def test_a_field_that_is_refused_is_left_out(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one field that the refusal names is dropped, and the rest is asked for again."""
    refuse_voice(monkeypatch)
    model = ScriptedRealtime([GREETING, SHORT])
    async with open_one_call(model) as (_, stream, _leg):
        await trio.sleep(6.0)
        await stream.hang_up()
    wanted = [event["session"]["audio"]["output"] for event in received(model, "session.update")]
    suppose("voice" in wanted[0], "a voice is asked for at first")
    assert len(wanted) >= 2
    assert "voice" not in wanted[-1]
    assert wanted[-1]["format"] == {"type": "audio/pcmu"}


async def speak_once(answer: Answer) -> tuple[Outcome, float]:
    """The caller says something after the greeting; the outcome, and how long he waits to hear something."""
    model = ScriptedRealtime([GREETING, answer, SHORT])
    async with open_one_call(model, settings={"idle_prompt_s": 15.0}) as (services, stream, leg):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(400))
        await stream.until_said()
        silent_s = await until_spoken_to(stream, 10.0)
        with trio.move_on_after(5.0):
            await leg.over.wait()
        await stream.hang_up()
    return record_of(services).outcome, silent_s


async def test_a_tool_event_without_a_name_takes_it_from_its_item(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``end_call`` ends the call, although only its item says that it is ``end_call``."""

    def omit_name(kind: str, fields: dict[str, Any]) -> None:
        if kind == "response.function_call_arguments.done":
            del fields["name"]

    edit_events(monkeypatch, omit_name)
    outcome, _ = await speak_once(LEAVES)
    assert outcome is Outcome.AGENT_HUNG_UP


async def test_end_call_of_an_incomplete_answer_does_not_end_the_call(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that was cut short by the provider did not mean to hang up."""

    def cut_short(kind: str, fields: dict[str, Any]) -> None:
        if kind == "response.done" and "function_call" in str(fields["response"]["output"]):
            details = {"type": "incomplete", "reason": "max_output_tokens"}
            fields["response"].update(status="incomplete", status_details=details)

    edit_events(monkeypatch, cut_short)
    outcome, _ = await speak_once(LEAVES)
    assert outcome is Outcome.CALLER_HUNG_UP


async def test_an_incomplete_answer_without_a_sound_is_made_up_for(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A content filter swallows the answer: the caller hears something all the same, soon."""
    silenced = Answer("", 0)

    def swallow(kind: str, fields: dict[str, Any]) -> None:
        if kind == "response.done" and not fields["response"]["output"]:
            details = {"type": "incomplete", "reason": "content_filter"}
            fields["response"].update(status="incomplete", status_details=details)

    edit_events(monkeypatch, swallow)
    _, silent_s = await speak_once(silenced)
    assert silent_s < ANSWERED_S


async def test_a_rate_limit_is_waited_for(autojump_clock: object) -> None:
    """The provider limits the rate for eight seconds: the call goes on and the greeting is said after them."""
    model = ScriptedRealtime([GREETING] * 12, faults=Faults(fail_answers=RATE_LIMITED))
    async with open_one_call(model) as (services, stream, _):
        await trio.sleep(8.0)
        for session in model.sessions:
            session.faults = session._sender.faults = Faults()
        model.faults = Faults()
        await trio.sleep(12.0)
        await stream.hang_up()
    record = record_of(services)
    suppose(any(response.status == "failed" for response in model.sessions[0].responses), "the rate is limited")
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert [turn.text for turn in record.turns] == [GREETING.text], "the tone is no turn"
    assert services.calls.admission.refusal(0.0) == LIMITED, "meanwhile nobody else is answered by a tone"


async def test_requests_of_our_own_keep_the_tenants_instructions(autojump_clock: object) -> None:
    """Greeting and idle prompt are asked for in words beside the tenant's instructions, not in their stead."""
    tenant = Tenant("t", "מרפאה", language="he", greeting="שלום", instructions="דבר עברית בלבד.")
    model = ScriptedRealtime([GREETING, SHORT])
    async with (
        open_services(memory_realtime(lambda: model), tenant=tenant, idle_prompt_s=5.0) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await trio.sleep(14.0)
        await stream.hang_up()
    suppose(counts(record_of(services))["IDLE_PROMPT"], "the idle prompt is asked for")
    for event in received(model, "response.create"):
        assert tenant.instructions in event["response"].get("instructions", tenant.instructions)

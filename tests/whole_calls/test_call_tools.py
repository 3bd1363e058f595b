"""Tools in whole calls: whatever a tool does, the caller is answered and the call goes on (DESIGN D11)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from heard_audio import agent_words, heard_numbers
from trio.testing import MockClock
from virtual_call import CALL_SID, FakeServices, counts, open_call, open_services, received

from agent.call.tool_calls import AT_ONCE, LIMIT_S, MAX_OUTPUT, SLOW_S, WRITE_GRACE_S
from agent.call.tools.declare import Tool, ToolCall, make_tool
from agent.core.errors import DatabaseError, ToolError
from agent.core.records import Outcome
from agent.core.tenant import Tenant
from agent.core.units import CallSid
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

HELLO = Answer("Hello.", 500)
FOUND = Answer("I found it.", 700)
WAIT = Answer("One moment, please.", 600)
MORE = Answer("Is there anything else?", 600)
PERSON = "+15557770001"


def answer_using(name: str, words_ms: int = 0, **arguments: Any) -> Answer:
    """An answer that calls a tool, after words of that many milliseconds."""
    return Answer("Let me see.", words_ms, tool_call=ScriptedToolCall(name, arguments))


@asynccontextmanager
async def open_talk(
    *answers: Answer, tools: tuple[Tool, ...] = (), tenant: Tenant | None = None, **settings: Any
) -> AsyncIterator[tuple[FakeServices, SimulatedStream, ScriptedRealtime]]:
    """A call whose caller has said something when the greeting was over: the answer to it is the second."""
    model = ScriptedRealtime([HELLO, *answers], default=MORE)
    async with (
        open_services(memory_realtime(lambda: model), tools=tools, tenant=tenant, **settings) as services,
        open_call(services) as stream,
    ):
        services.rest.streams[CALL_SID] = stream
        await stream.until_heard_ms(500)
        await trio.sleep(0.5)
        stream.say(tone(300))
        yield services, stream, model


def outputs(model: ScriptedRealtime) -> list[Any]:
    """What the tools answered, in order."""
    items = [event["item"] for event in received(model, "conversation.item.create")]
    return [msgspec.json.decode(item["output"]) for item in items if item["type"] == "function_call_output"]


def asked(model: ScriptedRealtime) -> list[str]:
    """What answers the model was asked for, in order."""
    return [event["response"]["metadata"]["purpose"] for event in received(model, "response.create")]


def also_calls(model: ScriptedRealtime, name: str, call_id: str, arguments: str = "{}") -> None:
    """The model calls one more tool in the answer it is giving."""
    call = {"response_id": model.session.responses[-1].id, "item_id": f"item_{call_id}", "call_id": call_id}
    kind = "response.function_call_arguments.done"
    model.inject({"type": kind, **call, "name": name, "arguments": arguments})


def taking(seconds: float, answer: Any = None, *, name: str = "look", writes: bool = False) -> Tool:
    """A tool that takes its time."""

    async def work(call: ToolCall, what: str = "") -> Any:
        """Look something up."""
        await trio.sleep(seconds)
        return answer or {"done": True}

    return make_tool(work, name=name, writes=writes)


async def test_a_tool_is_used_and_its_result_spoken_of(autojump_clock: MockClock) -> None:
    """The tool knows who calls and what is wanted; the model goes on with what it found."""
    seen: list[tuple[ToolCall, str]] = []

    async def look_up(call: ToolCall, what: str) -> dict[str, str]:
        """Look something up."""
        await trio.sleep(0.3)
        seen.append((call, what))
        return {"hours": "nine to six"}

    tenant = Tenant("shop", "The Shop", time_zone="Asia/Tokyo")
    hours = answer_using("look_up", 400, what="hours")
    async with open_talk(hours, FOUND, tools=(make_tool(look_up),), tenant=tenant) as (services, stream, model):
        await trio.sleep(5)
        await stream.hang_up()
    [(call, what)] = seen
    assert what == "hours"
    assert (call.call_sid, call.tenant, call.phone) == (CALL_SID, tenant, "+15551230001")
    assert call.now.utcoffset() is not None
    assert call.now.tzname() == "JST"
    assert outputs(model) == [{"hours": "nine to six"}]
    assert agent_words(services.record) == ["Hello.", "Let me see.", "I found it."]
    assert asked(model) == ["greeting", "tool"]
    assert model.errors_sent == []
    assert counts(services.record)["TOOL_USED"] == 1
    assert services.record.tenant_id == "shop"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{what", "malformed"),
        ("[1, 2]", "object"),
        ('{"what": 5}', "Expected `str`"),
        ('{"where": "here"}', "unknown field `where`"),
        ("{}", "required field `what`"),
        ('{"what": "' + "x" * 20_000 + '"}', "longer than"),
    ],
)
async def test_wrong_arguments_go_back_to_the_model(autojump_clock: MockClock, arguments: str, said: str) -> None:
    """Nonsense is the model's to mend: it is told what is wrong, the caller hears an answer, the call goes on."""

    async def look_up(call: ToolCall, what: str) -> str:
        """Look something up."""
        raise AssertionError

    async with open_talk(Answer("Let me see.", 2000), FOUND, tools=(make_tool(look_up),)) as (
        services,
        stream,
        model,
    ):
        await stream.until_heard_ms(1500)
        also_calls(model, "look_up", "call_x", arguments)
        await trio.sleep(5)
        await stream.hang_up()
    [output] = outputs(model)
    assert said in output["error"]
    assert len(output["error"]) <= 500
    assert agent_words(services.record)[-1] == FOUND.text
    assert counts(services.record)["TOOL_ARGUMENTS_WRONG"] == 1
    assert services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_tool_that_hangs_is_answered_with_an_error(autojump_clock: MockClock) -> None:
    """After LIMIT_S; meanwhile the caller is asked to wait, once."""
    async with open_talk(answer_using("look"), WAIT, FOUND, tools=(taking(3600),)) as (
        services,
        stream,
        model,
    ):
        await trio.sleep(15)
        await stream.hang_up()
    assert "too long" in outputs(model)[0]["error"]
    [wanted_s] = [event.t_ms for event in services.record.timeline if event.kind == "TOOL_TOO_SLOW"]
    [slow_s] = [event.t_ms for event in services.record.timeline if event.kind == "TOOL_SLOW"]
    assert wanted_s - slow_s == pytest.approx((LIMIT_S - SLOW_S) * 1000, abs=50)
    assert asked(model) == ["greeting", "filler", "tool"]
    assert agent_words(services.record) == ["Hello.", WAIT.text, FOUND.text]


async def test_the_request_to_wait_calls_no_tools_itself(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("look"), WAIT, FOUND, tools=(taking(3),)) as (_, stream, model):
        await trio.sleep(8)
        await stream.hang_up()
    choices = {
        event["response"]["metadata"]["purpose"]: event["response"].get("tool_choice")
        for event in received(model, "response.create")
    }
    assert choices == {"greeting": None, "filler": "none", "tool": None}


async def test_nobody_is_asked_to_wait_who_is_being_spoken_to(autojump_clock: MockClock) -> None:
    """The model's own words fill the time: silence counts from their end, and is short when the tool is done."""
    long_words = answer_using("look", 3000)
    async with open_talk(long_words, FOUND, tools=(taking(3.5),)) as (services, stream, model):
        await trio.sleep(10)
        await stream.hang_up()
    assert asked(model) == ["greeting", "tool"]
    assert agent_words(services.record) == ["Hello.", "Let me see.", FOUND.text]


async def test_nobody_is_asked_to_wait_who_speaks(autojump_clock: MockClock) -> None:
    """The caller speaks while the tool works: no filler before their turn was answered and they were silent."""
    async with open_talk(answer_using("look"), MORE, FOUND, tools=(taking(4),)) as (services, stream, model):
        await trio.sleep(1.5)
        stream.say(tone(1500))
        await trio.sleep(8)
        await stream.hang_up()
    starts = [event.t_ms for event in services.record.timeline if event.kind == "SPEECH_STARTED"]
    assert len(starts) == 2
    assert "filler" not in asked(model)
    assert outputs(model) == [{"done": True}]
    assert agent_words(services.record) == ["Hello.", MORE.text, FOUND.text]


async def test_the_request_to_wait_can_be_interrupted(autojump_clock: MockClock) -> None:
    """BI-2 holds for it as for any answer; the tool's result comes all the same."""
    wait = Answer("One moment, please, I am looking for it.", 2500)
    async with open_talk(answer_using("look"), wait, MORE, FOUND, tools=(taking(6, {"found": 1}),)) as (
        services,
        stream,
        model,
    ):
        await stream.until_heard_ms(500 + 800)
        stream.say(tone(400))
        await trio.sleep(10)
        await stream.hang_up()
    assert services.record.metrics.barge_in_events == 1
    assert outputs(model) == [{"found": 1}]
    assert agent_words(services.record)[-2:] == [MORE.text, FOUND.text]
    assert model.errors_sent == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ToolError("there is no such street"), "there is no such street"),
        (RuntimeError("secret: 42"), "does not work"),
        (DatabaseError("no database at db.internal:5432"), "does not work"),
        (ExceptionGroup("some", [ValueError("secret"), OSError("other")]), "does not work"),
        (trio.TooSlowError(), "too long"),
    ],
)
async def test_a_tool_that_fails_is_answered_with_an_error(
    autojump_clock: MockClock, error: Exception, said: str
) -> None:
    """Only what a tool says on purpose is for the model; the rest is for the log."""

    async def look(call: ToolCall) -> str:
        """Look something up."""
        await trio.sleep(0.1)
        raise error

    async with open_talk(answer_using("look"), FOUND, tools=(make_tool(look),)) as (services, stream, model):
        await trio.sleep(4)
        await stream.hang_up()
    [output] = outputs(model)
    assert said in output["error"]
    assert "secret" not in output["error"]
    assert "internal" not in output["error"]
    assert agent_words(services.record)[-1] == FOUND.text
    assert services.record.outcome is Outcome.CALLER_HUNG_UP
    assert "GUEST_FAILED" not in counts(services.record)


async def test_a_result_too_long_to_be_read_is_an_error(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("look"), FOUND, tools=(taking(0, ["x" * MAX_OUTPUT]),)) as (
        _,
        stream,
        model,
    ):
        await trio.sleep(4)
        await stream.hang_up()
    assert "too long" in outputs(model)[0]["error"]


async def test_an_event_that_comes_twice_is_one_use(autojump_clock: MockClock) -> None:
    used: list[str] = []

    async def note(call: ToolCall) -> str:
        """Note it."""
        used.append(call.id)
        await trio.sleep(0.1)
        return "{}"

    tools = (make_tool(note, writes=True),)
    async with open_talk(Answer("Noted.", 2000), FOUND, tools=tools) as (services, stream, model):
        await stream.until_heard_ms(1000)
        for _ in range(3):
            also_calls(model, "note", "call_x")
        await trio.sleep(5)
        await stream.hang_up()
    assert used == ["call_x"]
    assert outputs(model) == [{}]
    assert counts(services.record)["TOOL_REPEATED"] == 2


async def test_tools_called_in_one_answer_are_answered_together(autojump_clock: MockClock) -> None:
    """One is quick, one slow: the model gets both results and is asked to go on once, after the second."""
    tools = (taking(0.1, {"quick": 1}, name="quick"), taking(0.9, {"slow": 1}, name="slow"))
    async with open_talk(answer_using("slow", 300), FOUND, tools=tools) as (services, stream, model):
        await stream.until_heard_ms(520)
        also_calls(model, "quick", "call_q")
        await trio.sleep(6)
        await stream.hang_up()
    assert outputs(model) == [{"quick": 1}, {"slow": 1}]
    assert asked(model) == ["greeting", "tool"]
    assert agent_words(services.record) == ["Hello.", "Let me see.", FOUND.text]


async def test_after_a_goodbye_nothing_more_is_said(autojump_clock: MockClock) -> None:
    """A lead is noted and the call ended in one answer: the note is kept, and the goodbye is the last word."""
    goodbye = Answer("Goodbye.", 800, tool_call=ScriptedToolCall("end_call", {}))
    async with open_talk(goodbye, FOUND, tools=(taking(0.05, writes=True),)) as (services, stream, model):
        await stream.until_heard_ms(520)
        also_calls(model, "look", "call_l")
        await stream.until_closed()
    assert services.record.outcome is Outcome.AGENT_HUNG_UP
    assert agent_words(services.record) == ["Hello.", "Goodbye."]
    assert asked(model) == ["greeting"]
    assert counts(services.record)["TOOL_USED"] == 1


async def test_a_model_that_raves_is_told_to_use_fewer_tools(autojump_clock: MockClock) -> None:
    async with open_talk(Answer("Let me see.", 1500), FOUND, tools=(taking(2),)) as (_, stream, model):
        await stream.until_heard_ms(700)
        for number in range(AT_ONCE + 3):
            also_calls(model, "look", f"call_{number}")
        await trio.sleep(8)
        await stream.hang_up()
    assert len(outputs(model)) == AT_ONCE + 3
    assert sum("at most" in str(output) for output in outputs(model)) == 3


async def test_a_result_whose_session_is_gone_is_told_in_words(autojump_clock: MockClock) -> None:
    """The new session knows nothing of the use: no output for it, but what came of it, and an answer."""
    async with open_talk(answer_using("look"), FOUND, MORE, tools=(taking(1.0, {"found": 7}),)) as (
        services,
        stream,
        model,
    ):
        await trio.sleep(1.5)
        model.disconnect(drop=True)
        await trio.sleep(8)
        await stream.hang_up()
    assert len(model.sessions) == 2
    assert outputs(model) == []
    assert model.errors_sent == []
    told = [event["item"] for event in received(model, "conversation.item.create")]
    assert '{"found":7}' in told[-1]["content"][0]["text"]
    assert counts(services.record)["TOOL_ANSWERED_LATE"] == 1
    assert agent_words(services.record)[-1] in (FOUND.text, MORE.text)


async def test_silence_while_a_tool_works_is_not_idleness(autojump_clock: MockClock) -> None:
    talk = open_talk(answer_using("look"), WAIT, FOUND, tools=(taking(7),), idle_prompt_s=3.0)
    async with talk as (services, stream, model):
        await trio.sleep(10)
        await stream.hang_up()
    assert asked(model)[:3] == ["greeting", "filler", "tool"]
    prompts = [event.t_ms for event in services.record.timeline if event.kind == "IDLE_PROMPT"]
    used = [event.t_ms for event in services.record.timeline if event.kind == "TOOL_USED"]
    assert not [at for at in prompts if at < used[0]]


# Hang-up while a tool works


@pytest.mark.parametrize(("writes", "finishes"), [(True, True), (False, False)])
async def test_what_writes_is_finished_when_the_caller_hangs_up(
    autojump_clock: MockClock, *, writes: bool, finishes: bool
) -> None:
    """The caller was promised it. What only reads is of no use to anybody any more, and is not waited for."""
    done: list[str] = []

    async def work(call: ToolCall) -> str:
        """Work."""
        await trio.sleep(1.0)
        done.append(call.id)
        return "done"

    tools = (make_tool(work, name="look", writes=writes),)
    async with open_talk(answer_using("look"), tools=tools) as (services, stream, _):
        await trio.sleep(1.2)
        began_s = trio.current_time()
        await stream.hang_up()
        await stream.until_closed()
    assert bool(done) is finishes
    assert trio.current_time() - began_s <= 1.5
    assert counts(services.record)["TOOL_USED"] == finishes
    assert services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_write_that_hangs_holds_a_call_for_no_longer_than_its_grace(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("look"), tools=(taking(3600, writes=True),)) as (services, stream, _):
        await trio.sleep(1.2)
        began_s = trio.current_time()
        await stream.hang_up()
        await stream.until_closed()
    assert trio.current_time() - began_s <= WRITE_GRACE_S + 0.5
    assert services.record.outcome is Outcome.CALLER_HUNG_UP


# Transfers


TENANT = Tenant("shop", "The Shop", transfer_numbers=(PERSON, "+15557770002"))


async def test_a_transfer_is_spoken_of_first_and_leaves_the_call_to_the_carrier(
    autojump_clock: MockClock,
) -> None:
    """What was said is heard to its end; then the carrier takes the call, and nobody hangs it up."""
    transfer = Answer(
        "I will connect you.", 1200, speed=None, tool_call=ScriptedToolCall("transfer_call", {"number": PERSON})
    )
    async with open_talk(transfer, tenant=TENANT) as (services, stream, _):
        await stream.until_closed()
    assert services.rest.transferred == {CallSid(CALL_SID): PERSON}
    assert services.rest.hung_up == []
    assert services.record.outcome is Outcome.TRANSFERRED
    assert PERSON in services.record.reason
    assert services.record.turns[-1].heard_text == transfer.text
    assert heard_numbers(stream)[1] == 1200 * 8


async def test_a_transfer_goes_to_allowed_numbers_only(autojump_clock: MockClock) -> None:
    transfer = answer_using("transfer_call", 300, number="+15550009999")
    async with open_talk(transfer, FOUND, tenant=TENANT) as (services, stream, model):
        await trio.sleep(5)
        await stream.hang_up()
    assert services.rest.transferred == {}
    assert PERSON in outputs(model)[0]["error"]
    assert agent_words(services.record)[-1] == FOUND.text


async def test_a_tenant_without_numbers_has_no_transfers(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("transfer_call", number=PERSON), tenant=Tenant("a", "A")) as (
        _,
        stream,
        model,
    ):
        await trio.sleep(4)
        await stream.hang_up()
    assert "no such tool" in outputs(model)[0]["error"]
    assert [tool["name"] for tool in received(model, "session.update")[0]["session"]["tools"]] == ["end_call"]


async def test_a_transfer_that_fails_goes_back_to_the_model(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("transfer_call", 400), FOUND, tenant=TENANT) as (
        services,
        stream,
        model,
    ):
        services.rest.failures.append("HTTP 500")
        await trio.sleep(5)
        await stream.hang_up()
    assert "failed" in outputs(model)[0]["error"]
    assert agent_words(services.record)[-1] == FOUND.text
    assert counts(services.record)["TRANSFER_FAILED"] == 1
    assert services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_who_hangs_up_into_a_failing_transfer_hung_up(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("transfer_call", 400), tenant=TENANT) as (services, stream, _):
        services.rest.failures.append("HTTP 404")
        services.rest.delay_s = 3.0
        await trio.sleep(3.0)
        assert [request.what for request in services.rest.requests][-1] == "transfer"
        await stream.hang_up()
    assert services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_caller_who_speaks_on_is_not_transferred(autojump_clock: MockClock) -> None:
    transfer = answer_using("transfer_call", 3000)
    async with open_talk(transfer, FOUND, tenant=TENANT) as (services, stream, model):
        await stream.until_heard_ms(500 + 1000)
        stream.say(tone(400))
        await trio.sleep(5)
        await stream.hang_up()
    assert services.rest.transferred == {}
    assert "spoke again" in outputs(model)[0]["reason"]
    assert agent_words(services.record)[-1] == FOUND.text


async def test_a_transfer_beats_a_hang_up_in_the_same_answer(autojump_clock: MockClock) -> None:
    async with open_talk(answer_using("end_call", 800), tenant=TENANT) as (services, stream, model):
        await stream.until_heard_ms(600)
        also_calls(model, "transfer_call", "call_t")
        await stream.until_closed()
    assert services.rest.transferred == {CallSid(CALL_SID): PERSON}
    assert services.rest.hung_up == []
    assert services.record.outcome is Outcome.TRANSFERRED

"""DO-4 in whole calls: a bound that is reached is an event, and a sentence that the model can act on."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from fake_tools import MemoryDesk
from trio.testing import MockClock
from virtual_call import CALL_SID, FakeServices, counts, open_call, open_services, received

from agent.call.tools.builtin import DeskTools
from agent.core.records import Outcome
from agent.core.tenant import Tenant
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

PERSON = "+15557770001"
TENANT = Tenant("shop", "The Shop", transfer_numbers=(PERSON,))
GOODBYE = Answer("Goodbye.", 300, tool_call=ScriptedToolCall("end_call", {}))


async def call_in_which_the_model_uses(
    *uses: ScriptedToolCall,
    words: str = "Let me see.",
    last: Answer = GOODBYE,
    desk: MemoryDesk | None = None,
    keys: str = "",
    words_after_ms: int = 200,
    **settings: Any,
) -> tuple[FakeServices, ScriptedRealtime]:
    """A call whose caller says something; the model answers with one use after the other, and then goodbye."""
    answers = [Answer("Hello.", 300), *(Answer(words, 20, tool_call=use) for use in uses)]
    model = ScriptedRealtime(answers, default=last, transcripts=["Call me at 212 555 0199."])
    model.transcription_delay_ms = words_after_ms
    async with (
        open_services(
            memory_realtime(lambda: model),
            tools=DeskTools(desk or MemoryDesk()).tools(),
            tenant=TENANT,
            **settings,
        ) as services,
        open_call(services) as stream,
    ):
        services.rest.failures += ["HTTP 500"] * len(uses)
        services.rest.streams[CALL_SID] = stream
        await stream.until_heard_ms(300)
        await trio.sleep(0.5)
        for key in keys:
            stream.press(key)
        if not keys:
            stream.say(tone(300))
        await stream.until_closed()
    return services, model


def outputs(model: ScriptedRealtime) -> list[str]:
    items = [event["item"] for event in received(model, "conversation.item.create")]
    return [item["output"] for item in items if item["type"] == "function_call_output"]


def reached(services: FakeServices) -> list[dict[str, Any]]:
    return [event.detail for event in services.record.timeline if event.kind == "BOUND_REACHED"]


def appointment(number: int, **more: str) -> ScriptedToolCall:
    return ScriptedToolCall("create_appointment", {"starts_at": f"2027-03-01T{10 + number}:00", **more})


async def test_do_4_so_many_appointments_a_call(autojump_clock: MockClock) -> None:
    desk = MemoryDesk()
    services, model = await call_in_which_the_model_uses(*(appointment(number) for number in range(5)), desk=desk)
    assert len(desk.made) == 3
    assert ["error" in output for output in outputs(model)] == [False, False, False, True, True]
    assert "offer that a person calls back" in outputs(model)[-1]
    assert reached(services) == [{"bound": "create_appointment", "tool": "create_appointment"}] * 2
    assert services.record.outcome is Outcome.AGENT_HUNG_UP


async def test_do_4_an_appointment_that_was_not_made_is_none(autojump_clock: MockClock) -> None:
    """Neither a date that is past nor arguments that do not fit take the place of one."""
    desk = MemoryDesk()
    past, wrong = (
        ScriptedToolCall("create_appointment", {"starts_at": "2020-01-01T10:00"}),
        ScriptedToolCall("create_appointment"),
    )
    await call_in_which_the_model_uses(
        past, wrong, wrong, past, *(appointment(hour) for hour in range(3)), desk=desk
    )
    assert len(desk.made) == 3


async def test_do_4_so_many_transfers_are_tried(autojump_clock: MockClock) -> None:
    transfer = ScriptedToolCall("transfer_call", {"number": PERSON})
    services, model = await call_in_which_the_model_uses(*[transfer] * 4, max_transfers=2)
    assert [request.what for request in services.rest.requests].count("transfer") == 2
    assert "transfer_call can be used 2 times" in outputs(model)[-1]
    assert counts(services.record)["BOUND_REACHED"] == 2


async def test_do_4_so_many_lookups(autojump_clock: MockClock) -> None:
    guess = ScriptedToolCall("lookup_caller", {"full_name": "Dana Levi"})
    services, model = await call_in_which_the_model_uses(*[guess] * 6)
    assert "lookup_caller can be used 5 times" in outputs(model)[-1]
    assert counts(services.record)["TOOL_USED"] == 5


async def test_do_4_so_many_uses_in_all_and_hanging_up_is_always_possible(autojump_clock: MockClock) -> None:
    """Unknown tools and wrong arguments count, too."""
    uses = [
        ScriptedToolCall("update_lead", {"name": "Dana"}),
        ScriptedToolCall("no_such_tool", {}),
        ScriptedToolCall("update_lead", {}),
    ]
    services, model = await call_in_which_the_model_uses(*uses, *uses, max_tool_uses=3)
    assert sum("tools can be used 3 times" in output for output in outputs(model)) == 3
    assert reached(services)[0] == {"bound": "tool_uses", "tool": "update_lead"}
    assert services.record.outcome is Outcome.AGENT_HUNG_UP


@pytest.mark.parametrize(("number", "keys", "is_made"), [
    ("+12125550199", "", True),
    ("+12125550177", "", False),
    ("+12125550177", "2125550177#", True),
])  # fmt: skip
async def test_do_4_another_number_is_the_callers_to_say(
    autojump_clock: MockClock, number: str, keys: str, *, is_made: bool
) -> None:
    """In words, by the transcript of this call, or with keys."""
    desk = MemoryDesk()
    services, model = await call_in_which_the_model_uses(appointment(0, phone=number), desk=desk, keys=keys)
    assert [new.phone for new, _ in desk.made] == [number] * is_made
    if not is_made:
        assert "ask them to say it digit by digit or to key it in" in outputs(model)[0]
        assert reached(services) == [{"bound": "numbers", "tool": "create_appointment"}]


@pytest.mark.parametrize(("words_after_ms", "is_made"), [(900, True), (4000, False)])
async def test_do_4_words_that_come_late_are_waited_for(
    autojump_clock: MockClock, words_after_ms: int, *, is_made: bool
) -> None:
    """The model hears the caller itself: it may want the tool before the words are written down."""
    desk = MemoryDesk()
    wanted = appointment(0, phone="+12125550199")
    await call_in_which_the_model_uses(wanted, desk=desk, words_after_ms=words_after_ms)
    assert [new.phone for new, _ in desk.made] == ["+12125550199"] * is_made


@pytest.mark.parametrize(
    ("settings", "bound"), [({"max_responses": 4}, "responses"), ({"max_text": 1000}, "text")]
)
async def test_do_4_a_call_without_an_end_is_brought_to_one(
    autojump_clock: MockClock, settings: dict[str, Any], bound: str
) -> None:
    """A model that goes round in circles is told to say goodbye, once, and the call ends."""
    uses = [ScriptedToolCall("update_lead", {"name": "Dana"})] * 40
    services, model = await call_in_which_the_model_uses(
        *uses, words="And another thing. " * 10, last=Answer("Goodbye.", 300), **settings
    )
    assert reached(services) == [{"bound": bound}]
    purposes = [event["response"]["metadata"]["purpose"] for event in received(model, "response.create")]
    assert purposes.count("farewell") == 1
    assert services.record.outcome is Outcome.TIME_LIMIT
    assert bound == "responses" or sum(len(turn.text) for turn in services.record.turns) <= 1000

"""The embedded receptionist uses the tools as they are declared to the real model, and sends what they take."""

from __future__ import annotations

import msgspec
import pytest
from desks import MemoryDesk
from test_tool_desk import calling

from agent.call_tools import FILLER, tools_of
from agent.demo.script import CITY, INSTRUCTIONS, NAME
from agent.local.facts import read_facts
from agent.local.receptionist import Receptionist, State
from agent.local.tools import ToolCall, read_tools
from agent.tenancy.tenant import Tenant
from agent.tool_desk import DeskTools
from agent.tools import Tool

SHOP = Tenant("shop", "Harbour Dental", transfer_numbers=("+15557770001", "+15557770002"))
DESK = MemoryDesk()
TOOLS = tools_of(SHOP, DeskTools(DESK).tools(), can_transfer=True)
RECEPTIONIST = Receptionist(read_facts(INSTRUCTIONS), read_tools(tool.declare() for tool in TOOLS.values()))


def says(state: State, words: str) -> tuple[State, str, tuple[ToolCall, ...]]:
    state, reply = RECEPTIONIST.respond(state, words)
    return state, reply.text, reply.calls


async def test_a_name_and_a_city_are_written_down() -> None:
    """As in the demo: what it sends is what the tool takes, and what it is answered is spoken of as done."""
    state, _ = RECEPTIONIST.greet(State())
    state, _, calls = says(state, f"Okay, my name is {NAME}, and I live in {CITY}.")
    [call] = calls
    assert call.name == "update_lead"
    tool: Tool = TOOLS[call.name]
    arguments = tool.read(call.arguments)
    assert (arguments["name"], arguments["city"]) == (NAME, CITY)
    assert tool.function is not None
    output = await tool.function(calling(tenant=SHOP), **arguments)
    _, reply = RECEPTIONIST.after_tools(state, [msgspec.json.encode(output).decode()])
    assert "noted" in reply.text
    [lead] = DESK.leads.values()
    assert (lead.name, lead.city) == (NAME, CITY)


@pytest.mark.parametrize(
    ("words", "name"), [("No thank you, goodbye!", "end_call"), ("I want to speak to a human.", "transfer_call")]
)
def test_a_call_is_ended_or_transferred_with_arguments_that_are_taken(words: str, name: str) -> None:
    *_, calls = says(RECEPTIONIST.greet(State())[0], words)
    assert [call.name for call in calls] == [name]
    assert TOOLS[name].read(calls[0].arguments)["reason"]


def test_what_it_cannot_fill_it_does_not_call() -> None:
    """An appointment wants a date that a rule cannot make of "Tuesday at three": the wish is written down."""
    state, _ = RECEPTIONIST.greet(State())
    used, noted = [], dict[str, object]()
    for words in (
        "I would like to book an appointment for a cleaning.",
        f"My name is {NAME}.",
        f"I live in {CITY}.",
        "Tuesday at three.",
        "That is all, goodbye!",
    ):
        state, _, calls = says(state, words)
        used += [call.name for call in calls]
        for call in calls:
            arguments = TOOLS[call.name].read(call.arguments)
            noted = arguments if call.name == "update_lead" else noted
    assert set(used) == {"update_lead", "end_call"}
    assert noted["service"] == "cleaning"
    assert noted["note"] == "", "what one field says, no other one repeats"


def test_it_asks_to_wait_when_it_is_told_to() -> None:
    state, _ = RECEPTIONIST.greet(State())
    followed = RECEPTIONIST.follow(state, FILLER)
    assert followed is not None
    assert followed[0] == state, "and goes on where it was"
    assert followed[1].text == "One moment, please."
    assert followed[1].calls == ()

"""The embedded receptionist uses the tools as they are declared to the real model, and sends what they take."""

from __future__ import annotations

import msgspec
import pytest
from fake_tools import MemoryDesk, calling

from agent.app.demo.script import CITY, INSTRUCTIONS, NAME
from agent.call.tool_calls import FILLER, tools_of
from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import Tool
from agent.core.tenant import Tenant
from agent.local.receptionist.business import read_context
from agent.local.receptionist.receptionist import Receptionist, State
from agent.local.receptionist.tools import PlannedCall, read_tools

SHOP = Tenant("shop", "Harbour Dental", transfer_numbers=("+15557770001", "+15557770002"))
DESK = MemoryDesk()
TOOLS = tools_of(SHOP, DeskTools(DESK).tools(), can_transfer=True)
RECEPTIONIST = Receptionist(read_context(INSTRUCTIONS), read_tools(tool.declare() for tool in TOOLS.values()))


def says(state: State, words: str) -> tuple[State, str, tuple[PlannedCall, ...]]:
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


TALK = (
    "I would like to book an appointment for a cleaning.",
    f"My name is {NAME}.",
    f"I live in {CITY}.",
)


def talk(receptionist: Receptionist, *lines: str) -> tuple[list[str], dict[str, list[dict[str, object]]]]:
    """What was answered to each line, and with which arguments each tool was called, as it reads them."""
    state, _ = receptionist.greet(State())
    answers, used = [], dict[str, list[dict[str, object]]]()
    for line in lines:
        state, reply = receptionist.respond(state, line)
        answers.append(reply.text)
        for call in reply.calls:
            used.setdefault(call.name, []).append(TOOLS[call.name].read(call.arguments))
    return answers, used


async def test_an_appointment_is_made_of_what_was_said_bit_by_bit() -> None:
    """The day, then the time; said back as a date before it is made, and made as the tool wants it."""
    answers, used = talk(booking(NOW), *TALK, "On Tuesday.", "At three.", "That is all, goodbye!")
    assert answers[3].endswith("At what time would that be?")
    assert answers[4].startswith("Tuesday, November 24, at 3 PM, very well.")
    [made] = used["create_appointment"]
    assert (made["starts_at"], made["service"], made["name"]) == ("2026-11-24T15:00", "cleaning", NAME)
    [lead] = used["update_lead"]
    assert (lead["service"], lead["note"]) == ("cleaning", ""), "what one tool was told, no other one repeats"
    function = TOOLS["create_appointment"].function
    assert function is not None
    output = await function(calling(tenant=SHOP), **made)
    assert output["starts_at"] == "Tuesday, 2026-11-24 15:00"


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (("Next week.", "Next week, I said."), "Would like to come: Next week, Next week"),
        (("Tuesday.", "I do not know."), "Would like to come: Tuesday, I do not know"),
        (("Around lunch.", "Any day is fine with me."), "Would like to come: Around lunch"),
    ],
)
def test_an_appointment_that_is_no_moment_is_a_note(lines: tuple[str, ...], note: str) -> None:
    """Nothing is made up, and nothing that was said is lost."""
    _, used = talk(booking(NOW), *TALK, *lines, "That is all, goodbye!")
    assert "create_appointment" not in used
    assert used["update_lead"][-1]["note"] == note


def test_without_the_tool_for_it_an_appointment_is_a_note() -> None:
    receptionist = booking(NOW, without="create_appointment")
    _, used = talk(receptionist, *TALK, "Tuesday at three.", "That is all, goodbye!")
    assert used["update_lead"][-1]["note"] == "Would like to come: Tuesday at three"


NOW = "It is now Saturday, 2026-11-21, 10:30 (America/New_York)."


def booking(*instructions: str, without: str = "") -> Receptionist:
    tools = read_tools(tool.declare() for tool in TOOLS.values() if tool.name != without)
    return Receptionist(read_context("\n".join((INSTRUCTIONS, *instructions))), tools)


def test_it_asks_to_wait_when_it_is_told_to() -> None:
    state, _ = RECEPTIONIST.greet(State())
    followed = RECEPTIONIST.follow(state, FILLER)
    assert followed is not None
    assert followed[0] == state, "and goes on where it was"
    assert followed[1].text == "One moment, please."
    assert followed[1].calls == ()

"""Whole conversations with the embedded receptionist, in text."""

from __future__ import annotations

import json
from typing import Any

from agent.call.tools.declare import END_CALL
from agent.call.watchdog import IDLE_FAREWELL, IDLE_REQUEST, LIMIT_FAREWELL
from agent.local.receptionist.business import EXAMPLE_INSTRUCTIONS, read_context
from agent.local.receptionist.receptionist import Receptionist, Reply, State
from agent.local.receptionist.tools import read_tools
from agent.pipeline.analysis.spoken_names import Slot

GREETING = "Hello, this is the assistant. How can I help you today?"


def function(name: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "name": name, "parameters": schema}


TEXT = {"type": "string"}
SAVE_LEAD = function("save_lead", {"name": TEXT, "city": TEXT, "service": TEXT}, "name")
BOOK = function(
    "book_appointment",
    {"customer_name": TEXT, "date": TEXT, "service": {"type": "string", "enum": ["check-up", "cleaning"]}},
    "customer_name",
    "date",
    "service",
)
TRANSFER = function("transfer_to_human", {"department": TEXT})


class Talk:
    """A call: what the caller says goes in, the reply comes out, the state stays."""

    def __init__(self, *tools: dict[str, Any], instructions: str = EXAMPLE_INSTRUCTIONS) -> None:
        self.receptionist = Receptionist(read_context(instructions), read_tools(tools))
        self.state, self.reply = self.receptionist.say(State(), GREETING)

    def say(self, text: str) -> Reply:
        """The caller's words."""
        self.state, self.reply = self.receptionist.respond(self.state, text)
        return self.reply

    def tools_answer(self, *outputs: str) -> Reply:
        """The results of the tools called last."""
        self.state, self.reply = self.receptionist.after_tools(self.state, outputs)
        return self.reply

    @property
    def calls(self) -> dict[str, Any]:
        """The tools the last reply calls, with their arguments."""
        return {call.name: json.loads(call.arguments) for call in self.reply.calls}


def test_two_questions_name_city_and_goodbye() -> None:
    """The demo's call: answers, particulars taken down, goodbye with end_call in the same answer."""
    talk = Talk(END_CALL.declare())
    assert "Monday to Friday" in talk.say("What are your opening hours?").text
    assert "sixty dollars" in talk.say("How much is a cleaning?").text
    assert talk.say("My name is John Miller and I live in Boston.").text == (
        "Thank you, John Miller. Boston, noted. Is there anything else I can do for you?"
    )
    assert not talk.calls
    assert talk.say("No, thank you. That's all. Goodbye.").text == "Thank you for calling, John Miller. Goodbye!"
    assert list(talk.calls) == ["end_call"]


def test_a_booking_asks_for_everything_once_and_calls_the_tools() -> None:
    talk = Talk(END_CALL.declare(), SAVE_LEAD, BOOK)
    assert talk.say("Hi, I'd like to book an appointment.").text == "Gladly. May I have your name, please?"
    assert talk.say("It's Dave.").text == "Thank you, Dave. Which city are you calling from?"
    assert talk.say("Chicago.").text == "Chicago, noted. What would you like to come in for?"
    assert talk.say("A check up please.").text == "Check-up, very well. Which day and time would suit you?"
    assert talk.say("Tuesday at 3pm.").text == "Tuesday at 3pm, very well."
    assert talk.calls == {
        "save_lead": {"name": "Dave", "city": "Chicago", "service": "check-up"},
        "book_appointment": {"customer_name": "Dave", "date": "Tuesday at 3pm", "service": "check-up"},
    }
    assert talk.tools_answer('{"ok": true}', '{"message": "You are booked."}').text == (
        "You are booked. Is there anything else I can do for you?"
    )
    assert not talk.calls
    talk.say("No thanks.")
    assert list(talk.calls) == ["end_call"]


def test_a_goodbye_first_records_what_is_known() -> None:
    """A caller in a hurry: what was said is recorded before the call ends, in this order."""
    talk = Talk(END_CALL.declare(), SAVE_LEAD)
    talk.say("My name is Dave. Bye.")
    assert list(talk.calls) == ["save_lead", "end_call"]
    assert talk.calls["save_lead"] == {"name": "Dave"}


def test_a_failed_tool_is_admitted() -> None:
    talk = Talk()
    for output in ('{"error": "full"}', '{"ok": false}', '{"success": false}'):
        assert talk.tools_answer(output).text.startswith("I am sorry, that did not work.")
    assert talk.tools_answer("done").text.startswith("I have noted everything.")
    assert talk.tools_answer("[1]").text.startswith("I have noted everything.")


def test_tools_that_cannot_be_filled_are_not_called() -> None:
    """A phone number, a number type, a choice that was not mentioned: no call with invented arguments."""
    talk = Talk(
        function("save_phone", {"name": TEXT, "phone_number": TEXT}, "name", "phone_number"),
        function("save_age", {"name": {"type": "integer"}}, "name"),
        function("save_branch", {"city": {"type": "string", "enum": ["Paris", "London"]}}, "city"),
        function("get_weather", {}),
        {"type": "mcp", "server_label": "x"},
    )
    talk.say("My name is Dave and I live in Boston.")
    assert not talk.calls


def test_the_same_particular_is_asked_for_twice_at_most() -> None:
    talk = Talk()
    asked = [talk.say("I'm calling about my bill.").text for _ in range(6)]
    assert sum("your name" in text for text in asked) == 2
    assert sum("Which city" in text for text in asked) == 2
    assert asked[-1].endswith("Is there anything else I can do for you?")


def test_repeat_unheard_unknown_and_identity() -> None:
    talk = Talk()
    assert talk.say("Sorry, can you say that again?").text == GREETING
    assert talk.say("").text == "Sorry, I did not catch that. May I have your name, please?"
    assert talk.say("What is the meaning of life?").text.startswith("I am afraid I cannot answer that")
    assert talk.say("Are you a robot?").text.startswith("I am the automatic assistant of Harbour Dental.")


def test_a_question_the_instructions_do_not_answer() -> None:
    talk = Talk(instructions="Opening hours: never.")
    assert talk.say("Is there parking?").text.startswith("I am afraid I cannot answer that")


def test_a_person_is_asked_for() -> None:
    assert Talk().say("Can I talk to a human?").text.startswith("Nobody is free at the moment")
    talk = Talk(TRANSFER)
    assert talk.say("Can I talk to a human?").text == "Of course, I will connect you."
    assert list(talk.calls) == ["transfer_to_human"]


def said(result: tuple[State, Reply] | None) -> str:
    assert result is not None
    assert not result[1].calls
    return result[1].text


def test_instructions_for_one_answer() -> None:
    """The requests our agent makes; a goodbye it orders calls no tool, since it ends the call itself."""
    talk = Talk(END_CALL.declare())
    receptionist = talk.receptionist
    assert said(receptionist.follow(talk.state, IDLE_REQUEST)) == "Are you still there?"
    assert said(receptionist.follow(talk.state, IDLE_FAREWELL)) == "Thank you for calling. Goodbye!"
    up = "I am sorry, our time is up. Thank you for calling. Goodbye!"
    assert said(receptionist.follow(talk.state, LIMIT_FAREWELL)) == up
    hello = "Hello! This is Harbour Dental. How can I help you?"
    assert said(receptionist.follow(State(), "Greet the caller.")) == hello
    assert receptionist.follow(State(), "Speak like a pirate.") is None
    assert said(receptionist.carry_on(State())) == hello
    assert said(receptionist.carry_on(talk.state)) == "May I have your name, please?"


def test_the_old_state_is_untouched() -> None:
    """States are values: an answer that was never spoken leaves no trace."""
    receptionist = Receptionist(read_context(""))
    before = State()
    after, _ = receptionist.respond(before, "My name is Dave.")
    assert before == State()
    assert after.slots == {Slot.NAME: "Dave"}

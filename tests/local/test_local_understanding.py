"""What the embedded receptionist makes of a caller's words, as speech recognition writes them."""

from __future__ import annotations

import pytest

from agent.local.receptionist.business import EXAMPLE_INSTRUCTIONS, Subject, read_context
from agent.local.receptionist.understanding import Intent, understand
from agent.pipeline.analysis.spoken_names import Slot

NAME, CITY, SERVICE, APPOINTMENT = Slot.NAME, Slot.CITY, Slot.SERVICE, Slot.APPOINTMENT
SERVICES = ("check-up", "cleaning", "filling", "whitening")


@pytest.mark.parametrize(
    ("text", "asked", "slots"),
    [
        ("My name is John Miller, and I live in Boston.", None, {NAME: "John Miller", CITY: "Boston"}),
        ("This is Anna Schmidt calling from New York City.", None, {NAME: "Anna Schmidt", CITY: "New York City"}),
        ("I'm from Tel Aviv and my name's Noa Levi.", None, {NAME: "Noa Levi", CITY: "Tel Aviv"}),
        ("my name is dave", None, {NAME: "Dave"}),
        ("Hi, it's Mary O'Neill here.", None, {NAME: "Mary O'Neill"}),
        ("It's Miller.", NAME, {NAME: "Miller"}),
        ("Sure, John Miller.", NAME, {NAME: "John Miller"}),
        ("John Miller from Chicago.", NAME, {NAME: "John Miller", CITY: "Chicago"}),
        ("Yes, I'm Dave", NAME, {NAME: "Dave"}),
        ("I'm in Springfield.", None, {CITY: "Springfield"}),
        ("We live near St. Louis.", None, {CITY: "St. Louis"}),
        ("boston", CITY, {CITY: "Boston"}),
        ("Boston, please.", CITY, {CITY: "Boston"}),
        ("from chicago", CITY, {CITY: "Chicago"}),
        ("I need a haircut tomorrow.", None, {SERVICE: "haircut", APPOINTMENT: "tomorrow"}),
        ("A check up please.", SERVICE, {SERVICE: "check-up"}),
        ("I'd like a teeth cleaning.", None, {SERVICE: "cleaning"}),
        ("I'd like to book an appointment for Tuesday at 3pm.", None, {APPOINTMENT: "Tuesday at 3pm"}),
        ("3 o'clock on Friday", APPOINTMENT, {APPOINTMENT: "3 o'clock on Friday"}),
        ("tomorrow at half past nine", APPOINTMENT, {APPOINTMENT: "tomorrow at half past nine"}),
        ("Next Tuesday in the afternoon.", APPOINTMENT, {APPOINTMENT: "Next Tuesday in the afternoon"}),
        ("June 5th at 10 a.m.", APPOINTMENT, {APPOINTMENT: "June 5th at 10 a.m"}),
        ("I'm calling about my bill.", None, {}),
        ("I'm sorry, what?", NAME, {}),
        ("Are you open on Saturday?", None, {}),
        ("Can you come in May?", None, {}),
    ],
)
def test_particulars(text: str, asked: Slot | None, slots: dict[Slot, str]) -> None:
    assert understand(text, asked=asked, services=SERVICES).slots == slots


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("What are your opening hours?", (Subject.HOURS,)),
        ("When do you close on Friday?", (Subject.HOURS,)),
        ("Are you open on Saturday?", (Subject.HOURS,)),
        ("How much does the hair cut cost?", (Subject.PRICES,)),
        ("By the way, where are you?", (Subject.ADDRESS,)),
        ("Where are you located, and when are you open?", (Subject.ADDRESS, Subject.HOURS)),
        ("What services do you offer?", (Subject.SERVICES,)),
        ("Is there parking?", (Subject.PARKING,)),
        ("Do you take insurance?", (Subject.PAYMENT,)),
        ("Is that your phone number?", (Subject.PHONE,)),
        ("I like your voice.", ()),
    ],
)
def test_subjects_in_the_order_they_were_asked(text: str, subjects: tuple[Subject, ...]) -> None:
    assert understand(text).subjects == subjects


@pytest.mark.parametrize(
    ("text", "intent", "there"),
    [
        ("No, thank you. That's all. Goodbye.", Intent.GOODBYE, True),
        ("Bye-bye.", Intent.GOODBYE, True),
        ("No thanks.", Intent.GOODBYE, True),
        ("Nothing else, have a nice day!", Intent.GOODBYE, True),
        ("No, wait.", Intent.GOODBYE, False),
        ("By the way, where are you?", Intent.GOODBYE, False),
        ("Can you say that again?", Intent.REPEAT, True),
        ("Could I speak to a person?", Intent.HUMAN, True),
        ("Who is this?", Intent.WHO, True),
        ("I want to make an appointment.", Intent.BOOKING, True),
        ("Hello.", Intent.GREETING, True),
    ],
)
def test_intents(text: str, intent: Intent, *, there: bool) -> None:
    assert (intent in understand(text).intents) is there


def test_no_is_no_goodbye_while_something_is_asked() -> None:
    assert Intent.GOODBYE not in understand("No.", asked=Slot.NAME).intents


def test_facts_by_label() -> None:
    facts = read_context(EXAMPLE_INSTRUCTIONS)
    assert facts.business == "Harbour Dental"
    assert facts.services == SERVICES
    assert facts.about(Subject.HOURS).startswith("Our opening hours are Monday to Friday")
    assert facts.about(Subject.PHONE) == ""


def test_facts_in_prose() -> None:
    facts = read_context("You work for Joe. We are open from eight to five. Brakes cost $200. Be kind.")
    assert facts.about(Subject.HOURS) == "We are open from eight to five."
    assert facts.about(Subject.PRICES) == "Brakes cost $200."
    assert facts.about(Subject.ADDRESS) == ""


def test_instructions_without_facts_get_an_example_that_says_so() -> None:
    """Nobody is told an invented opening hour as if it were true."""
    facts = read_context("You are a friendly receptionist.")
    assert all(text.startswith("In this demonstration, ") for text in facts.sentences.values())
    assert facts.about(Subject.HOURS)

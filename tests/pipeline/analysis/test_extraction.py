"""Summary and particulars by rules: what is sure is found, what is not stays empty, any script survives."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.records import Turn
from agent.core.tenant import Tenant
from agent.pipeline.analysis.extraction import (
    INTENTS,
    LEAD_STATUSES,
    LONGEST,
    LONGEST_SUMMARY,
    Extraction,
    TranscriptLine,
    clean,
    conversation_of,
    cut,
    extract_by_rules,
    summarise_by_rules,
    tidy,
)
from agent.pipeline.analysis.extraction_rules import asked_for
from agent.pipeline.analysis.spoken_names import Slot, find_city, find_name, find_service

TENANT = Tenant("x", "X", services=("check-up", "Cleaning", "filling", "root canal", "ייעוץ"))


def call(*lines: str) -> list[TranscriptLine]:
    """Agent and caller in turn, the agent first."""
    return [TranscriptLine("caller" if index % 2 else "agent", text, index) for index, text in enumerate(lines)]


def found(*lines: str) -> Extraction:
    return extract_by_rules(call(*lines), TENANT)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My name is John Miller.", "John Miller"),
        ("my name is john and I need help", "John"),
        ("Hi, this is Dana Levi from Haifa.", "Dana Levi"),
        ("Hello. I'm Dr. Maria de la Cruz, calling about a bill.", "Dr. Maria de la Cruz"),
        ("The name's Bond.", "Bond"),
        ("It’s O'Brien speaking.", "O'Brien"),  # noqa: RUF001
        ("My name is van der Berg.", "van der Berg"),
        ("I'm Sorry, what?", ""),
        ("I'm calling about Monday.", ""),
        ("This is important.", ""),
        ("This is Monday.", ""),
        ("I'm from Boston.", ""),
        ("My name is not important", ""),
        ("I am very happy with Doctor Smith.", ""),
        ("", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    assert find_name(text) == name


@pytest.mark.parametrize(
    ("text", "city"),
    [
        ("I live in Tel Aviv.", "Tel Aviv"),
        ("I'm calling from Stratford-upon-Avon, hello", "Stratford-upon-Avon"),
        ("This is John Miller from Chicago.", "Chicago"),
        ("We're based in the city of Haifa.", "Haifa"),
        ("My city is St. Louis.", "St. Louis"),
        ("I'm in English class", ""),
        ("I'm from Monday to Friday at work", ""),
        ("I would like it in March.", ""),
        ("Ich wohne in Berlin.", ""),
    ],
)
def test_cities(text: str, city: str) -> None:
    assert find_city(text) == city


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("I need a check up", "check-up"),
        ("a checkup please", "check-up"),
        ("two fillings", "filling"),
        ("first cleaning, no, rather a root canal", "root canal"),
        ("אני רוצה לקבוע תור לייעוץ", "ייעוץ"),
        ("fulfilling work", ""),
        ("I need a haircut", ""),
    ],
)
def test_services_are_the_tenants_own(text: str, service: str) -> None:
    assert find_service(text, TENANT.services) == service


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("May I have your name?", "name"),
        ("Who am I speaking with? And which city are you in?", "city"),
        ("Which city are you in, and what is your name?", "name"),
        ("How can I help?", None),
    ],
)
def test_what_the_agent_asked_for(text: str, asked: str | None) -> None:
    assert asked_for(text) == asked


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It's Miller.", "Miller"),
        ("Boston, please", "Boston"),
        ("Um, yes, Dana Levi", "Dana Levi"),
        ("Why do you ask?", ""),
        ("No thanks", ""),
        ("I would rather not say", ""),
        ("nothing", ""),
    ],
)
def test_bare_answers(text: str, answer: str) -> None:
    assert find_name(text, Slot.NAME) == answer
    assert find_city(text, Slot.CITY) == answer


def test_a_whole_booking() -> None:
    assert found(
        "Hello, how can I help?",
        "I'd like to book a cleaning for tomorrow.",
        "May I have your name?",
        "It's Dana Levi.",
        "And which city are you in?",
        "Haifa, please.",
        "Thank you. You're booked for tomorrow at ten.",
        "Thanks, bye.",
    ) == Extraction("Dana Levi", "Haifa", "Cleaning", "booking", "appointment", "")


def test_who_corrects_himself_means_the_last() -> None:
    result = found(
        "Hello", "My name is Jon.", "Jon?", "My name is John Smith, I live in York.", "", "I live in Leeds"
    )
    assert (result.name, result.city) == ("John Smith", "Leeds")


@pytest.mark.parametrize(
    ("said", "intent", "status", "follows"),
    [
        ("I want to make an appointment", "booking", "qualified", True),
        ("How much is a filling?", "question", "contacted", False),
        ("I have a question about my bill", "question", "contacted", False),
        ("This is unacceptable, I want my money back", "complaint", "", True),
        ("Can I talk to a real person please", "human", "contacted", True),
        ("Sorry, wrong number", "wrong_number", "not_interested", False),
        ("I'm not interested, please don't call me again", "other", "not_interested", False),
        ("I'm an existing patient of yours, thank you", "other", "customer", False),
        ("Please call me back later, it is urgent", "other", "", True),
        ("Hello, it is nice weather, and that is all I have to say", "other", "", False),
    ],
)
def test_intents_and_what_follows(said: str, intent: str, status: str, follows: bool) -> None:  # noqa: FBT001
    result = found("Hello, how can I help?", said)
    assert (result.intent, result.lead_status, bool(result.follow_up)) == (intent, status, follows)


@pytest.mark.parametrize(
    "said",
    [
        "שלום, קוראים לי דנה ואני גרה בחיפה",
        "Guten Tag, ich heiße Müller und möchte einen Termin",
        "Bonjour, je m'appelle Amélie",
        "مرحبا، اسمي أحمد",
        "你好，我想预约",  # noqa: RUF001 - Chinese punctuation
        "Здравствуйте, меня зовут Иван",
    ],
)
def test_another_language_gives_no_garbage_and_keeps_its_words(said: str) -> None:
    result = found("?", said)
    assert result == Extraction()
    assert summarise_by_rules(call("?", said), TENANT) == said


def test_what_the_agent_says_is_not_the_callers() -> None:
    result = found("Hello, this is Anna from Boston. My name is Anna. Do you want to book a filling?", "What?")
    assert (result.name, result.city, result.service) == ("", "", "")


def test_nobody_said_anything() -> None:
    assert found("Hello?") == Extraction()
    assert summarise_by_rules(call("Hello?", "", "Anybody there?", " \u202e "), TENANT) == ""


def test_the_summary_says_who_what_and_how() -> None:
    summary = summarise_by_rules(call("Hello", "Hi, this is John Miller from Boston. I need a check-up."), TENANT)
    first, *words = summary.splitlines()
    assert first == (
        "John Miller from Boston wanted an appointment (check-up). "
        "Call back: an appointment was asked for and is not booked yet."
    )
    assert words == ["In the caller's words:", "Hi, this is John Miller from Boston. I need a check-up."]


def test_an_appointment_that_was_made_leaves_nothing_to_do() -> None:
    """Also if nobody said so: the agent's tool made it, and that is known."""
    said = call("Hello", "Hi, this is John Miller from Boston. I want to book a check-up.")
    made = [*said, TranscriptLine("booked", "Tuesday 2026-11-24 at 15:00, check-up", 40.0)]
    particulars = extract_by_rules(made, TENANT)
    assert (particulars.lead_status, particulars.follow_up) == ("appointment", "")
    assert summarise_by_rules(made, TENANT).splitlines()[0] == (
        "John Miller from Boston wanted an appointment (check-up). "
        "An appointment was made: Tuesday 2026-11-24 at 15:00, check-up."
    )


def test_the_conversation_is_what_was_heard() -> None:
    turns = [
        Turn("agent", "a", "Hello, I can offer you Monday.", "Hello,", 0, 2000, 400, interrupted=True),
        Turn("caller", "b", "Wait\n", "Wait\n", 1500, 500, 500, interrupted=False),
        Turn("caller", "c", "", "", 2500, 100, 100, interrupted=False),
    ]
    assert conversation_of(turns) == (
        TranscriptLine("agent", "Hello,", 0.0),
        TranscriptLine("caller", "Wait", 1.5),
    )


# Whoever found it


def test_particulars_are_cut_to_known_words_and_sane_lengths() -> None:
    wild = Extraction("N" * 999, "City\nof\u202e Evil\x00", "cleaning", "steal", "owner", "f" * 9999)
    kept = tidy(wild, TENANT)
    assert kept == Extraction("N" * 119 + "…", "City of Evil", "Cleaning", "", "", "f" * 499 + "…")


@given(st.text(), st.integers(2, 40))
def test_cut_is_never_longer_and_never_parts_a_letter_from_its_accent(text: str, longest: int) -> None:
    result = cut(text, longest)
    assert len(result) <= longest
    if text != result:
        rest = text[len(result.removesuffix("…")) :].lstrip()
        assert result.endswith("…")
        if len(result) > 1 and rest:
            assert not unicodedata.combining(rest[0])


@pytest.mark.parametrize("text", ["e\u0301" * 30, "👩\u200d👩\u200d👧 " * 20, "שָׁלוֹם " * 10])
def test_cut_in_awkward_scripts(text: str) -> None:
    for longest in range(8, 30):
        result = cut(text, longest).removesuffix("…")
        assert text.startswith(result)
        assert not unicodedata.combining(text[len(result)])
        assert not result.endswith("\u200d")


@given(st.text())
def test_clean_text_is_one_line_of_utf_8(text: str) -> None:
    result = clean(text)
    assert result == result.strip()
    assert "\n" not in result
    result.encode()
    assert clean(result) == result


lines = st.lists(
    st.builds(TranscriptLine, st.sampled_from(["caller", "agent"]), st.text(max_size=80), st.just(0.0)),
    max_size=8,
)


@given(lines)
def test_any_talk_gives_known_values_of_sane_length(conversation: Sequence[TranscriptLine]) -> None:
    result = extract_by_rules(conversation, TENANT)
    assert result.intent in ("", *INTENTS)
    assert result.lead_status in ("", *LEAD_STATUSES)
    assert all(len(value) <= LONGEST[name] for name, value in attrs.asdict(result).items())
    assert len(summarise_by_rules(conversation, TENANT)) <= LONGEST_SUMMARY


@pytest.mark.parametrize(
    "unit", ["a ", "I'm ", "My name is A ", "yes ", "um", "A-", "speak to a ", "?" * 3, "is it "]
)
def test_a_long_monologue_costs_no_time(unit: str) -> None:
    """No pattern runs away: 20 lines of 20,000 characters each."""
    conversation = [TranscriptLine("caller", unit * (20_000 // len(unit)))] * 20
    began = time.process_time()
    summarise_by_rules(conversation, TENANT)
    assert time.process_time() - began < 2

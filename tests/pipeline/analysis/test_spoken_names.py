"""Names, cities and services as people say them on the phone: what is sure is found, and nothing else is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.analysis.spoken_names import Slot, find_city, find_name, find_service, find_wish

NAME, CITY, SERVICE = Slot.NAME, Slot.CITY, Slot.SERVICE

NAMES = [
    # Said without being asked, or in whole sentences.
    ("My name is John Miller.", None, "John Miller"),
    ("my name is john and I need help", None, "John"),
    ("Hi, my name's Sarah.", None, "Sarah"),
    ("Hi there, my name is Mary-Jane Watson-Parker.", None, "Mary-Jane Watson-Parker"),
    ("My full name is Juan Carlos de la Vega.", None, "Juan Carlos de la Vega"),
    ("My name is uh, Peter.", None, "Peter"),
    ("My name is April.", None, "April"),
    ("My name is Will Young.", None, "Will Young"),
    ("My name is John I need a check-up.", None, "John"),
    ("My name is Anna and my number is 555 1234.", None, "Anna"),
    ("My name is John F. Kennedy.", None, "John F. Kennedy"),
    ("My name is Anna, A-N-N-A.", None, "Anna"),
    ("My name is S-M-I-T-H.", None, "Smith"),
    ("First name John, last name Smith.", None, "John Smith"),
    ("My first name is Anna and my last name is Schmidt.", None, "Anna Schmidt"),
    ("Last name is O'Connor.", None, "O'Connor"),
    ("You can call me Bob.", None, "Bob"),
    ("The name's Bond.", None, "Bond"),
    ("Hello, this is Anna Schmidt speaking.", None, "Anna Schmidt"),
    ("This is Dr. Patel.", None, "Dr. Patel"),
    ("Good morning, this is Mrs. van der Berg.", None, "Mrs. van der Berg"),
    ("Yes hello this is Tom calling about the invoice", None, "Tom"),
    ("Hi, it's Mary O'Neill here.", None, "Mary O'Neill"),
    ("Hi, it’s Dana from Haifa.", None, "Dana"),  # noqa: RUF001
    ("It's Mike again.", None, "Mike"),
    ("No, it's Anna with two n's.", None, "Anna"),
    ("John Miller speaking.", None, "John Miller"),
    ("Yeah, Mark here.", None, "Mark"),
    ("John Smith, calling about my bill.", None, "John Smith"),
    ("Hi Anna, this is John.", None, "John"),
    ("I'm Noa Levi, and I'd like an appointment.", None, "Noa Levi"),
    ("Um, yes, I'm Dave.", None, "Dave"),
    ("I'm Jürgen Müller.", None, "Jürgen Müller"),
    # Answers to a question for the name.
    ("Miller.", NAME, "Miller"),
    ("It's Miller.", NAME, "Miller"),
    ("That's Miller, John Miller.", NAME, "Miller"),
    ("Sure, John Miller.", NAME, "John Miller"),
    ("Uh, Dana Levi.", NAME, "Dana Levi"),
    ("Um, it's, uh, Peter Jones.", NAME, "Peter Jones"),
    ("Yes, of course. Maria Garcia.", NAME, "Maria Garcia"),
    ("john miller", NAME, "John Miller"),
    ("it's mary o'neill", NAME, "Mary O'Neill"),
    ("John Miller from Chicago.", NAME, "John Miller"),
    ("Dr. Maria de la Cruz.", NAME, "Dr. Maria de la Cruz"),
    ("Mr. Smith, please.", NAME, "Mr. Smith"),
    ("Professor Xu.", NAME, "Professor Xu"),
    ("D'Angelo.", NAME, "D'Angelo"),
    ("S-M-I-T-H.", NAME, "Smith"),
    ("Smith, S M I T H.", NAME, "Smith"),
    ("J O H N", NAME, "John"),
    ("That's S-M-Y-T-H-E.", NAME, "Smythe"),
    ("Anna, as in Anna Karenina.", NAME, "Anna"),
    ("No, Anna.", NAME, "Anna"),
    ("No, not Hanna, Anna.", NAME, "Anna"),
    ("Sorry, it's Jon without an h.", NAME, "Jon"),
    ("I said Miller.", NAME, "Miller"),
    ("It's Grace Hopper.", NAME, "Grace Hopper"),
    ("Jean-Luc.", NAME, "Jean-Luc"),
    ("Miller is my name.", NAME, "Miller"),
    ("Anna Schmidt. Are you open on Saturday?", NAME, "Anna Schmidt"),
    # No names, asked or not.
    ("One moment, please.", NAME, ""),
    ("one moment please", NAME, ""),
    ("Just a second.", NAME, ""),
    ("Please try again.", NAME, ""),
    ("Hold on.", NAME, ""),
    ("hold on", NAME, ""),
    ("Hang on a minute.", NAME, ""),
    ("Wait.", NAME, ""),
    ("What?", NAME, ""),
    ("Sorry?", NAME, ""),
    ("Pardon?", NAME, ""),
    ("Excuse me?", NAME, ""),
    ("Hello?", NAME, ""),
    ("Hello.", NAME, ""),
    ("Hey there.", NAME, ""),
    ("Can you hear me?", NAME, ""),
    ("Are you there?", NAME, ""),
    ("Speaking.", NAME, ""),
    ("Yes.", NAME, ""),
    ("Yes it is.", NAME, ""),
    ("Yes, this is he.", NAME, ""),
    ("No.", NAME, ""),
    ("No thanks.", NAME, ""),
    ("No, thank you.", NAME, ""),
    ("I'd rather not say.", NAME, ""),
    ("I would rather not say", NAME, ""),
    ("That's none of your business.", NAME, ""),
    ("Why do you need my name?", NAME, ""),
    ("Why do you ask?", NAME, ""),
    ("My name is not important.", NAME, ""),
    ("My name is on the account.", NAME, ""),
    ("You already have my name.", NAME, ""),
    ("Anonymous.", NAME, ""),
    ("It's about my bill.", NAME, ""),
    ("It's for my daughter.", NAME, ""),
    ("Is this the dentist?", NAME, ""),
    ("Is this Harbour Dental?", NAME, ""),
    ("Four five six.", NAME, ""),
    ("555 1234", NAME, ""),
    ("Forty-two.", NAME, ""),
    ("Uh.", NAME, ""),
    ("Um, well, uh", NAME, ""),
    ("Uh-huh.", NAME, ""),
    ("Mm-hmm.", NAME, ""),
    ("Right, okay.", NAME, ""),
    ("Oh, great.", NAME, ""),
    ("I don't know.", NAME, ""),
    ("Nothing.", NAME, ""),
    ("Whatever.", NAME, ""),
    ("Operator.", NAME, ""),
    ("Representative!", NAME, ""),
    ("Speak to a human.", NAME, ""),
    ("Wrong number.", NAME, ""),
    ("wrong number", NAME, ""),
    ("root canal", NAME, ""),
    ("Thanks, Anna.", NAME, ""),
    ("Hello, Sarah.", NAME, ""),
    ("Anna?", NAME, ""),
    ("Guten Tag.", NAME, ""),
    ("Tomorrow.", NAME, ""),
    ("Monday morning.", NAME, ""),
    ("Okay Google.", NAME, ""),
    ("You have reached the voicemail of John Smith.", NAME, ""),
    ("My husband's name is Tom.", NAME, ""),
    ("The doctor's name is Smith.", NAME, ""),
    ("Dr. Smith's office.", NAME, ""),
    ("I'm Sorry, what?", None, ""),
    ("I'm calling about Monday.", None, ""),
    ("I'm calling for Mr. Smith.", None, ""),
    ("I'm calling on behalf of John Smith.", None, ""),
    ("I'd like to speak to Anna.", None, ""),
    ("Nice to meet you, Anna.", None, ""),
    ("I'm Dr. Smith's patient.", None, ""),
    ("This is Anna's mother.", None, ""),
    ("This is important.", None, ""),
    ("This is Monday.", None, ""),
    ("It's Christmas.", None, ""),
    ("It's Boston.", CITY, ""),
    ("It's me again.", None, ""),
    ("Someone here speaks English.", None, ""),
    ("I'm from Boston.", None, ""),
    ("I'm American.", None, ""),
    ("I am very happy with Doctor Smith.", None, ""),
    ("Call me back.", None, ""),
    ("Call me Monday.", None, ""),
    ("Miller", None, ""),
    ("", None, ""),
    ("", NAME, ""),
]
CITIES = [
    ("I live in Tel Aviv.", None, "Tel Aviv"),
    ("i live in boston", None, "Boston"),
    ("My name is John Miller, and I live in Boston.", None, "Boston"),
    ("I'm calling from New York City.", None, "New York City"),
    ("I'm calling from Stratford-upon-Avon, hello", None, "Stratford-upon-Avon"),
    ("This is John Miller from Chicago.", None, "Chicago"),
    ("We're based in the city of Haifa.", None, "Haifa"),
    ("My city is St. Louis.", None, "St. Louis"),
    ("I'm over in Newark right now.", None, "Newark"),
    ("We live just outside Springfield, Illinois.", None, "Springfield"),
    ("I'm from, uh, Leeds.", None, "Leeds"),
    ("Our office is in San Francisco.", None, "San Francisco"),
    ("Boston.", CITY, "Boston"),
    ("boston", CITY, "Boston"),
    ("from chicago", CITY, "Chicago"),
    ("Boston, please.", CITY, "Boston"),
    ("In Boston.", CITY, "Boston"),
    ("Um, it's Tel Aviv.", CITY, "Tel Aviv"),
    ("St. Louis.", CITY, "St. Louis"),
    ("Near Haifa.", CITY, "Haifa"),
    ("No, not Austin, Boston.", CITY, "Boston"),
    ("Boston, Massachusetts.", CITY, "Boston"),
    ("I'm in Boston at the moment.", CITY, "Boston"),
    ("we live over in Salem", CITY, "Salem"),
    ("Kansas City.", CITY, "Kansas City"),
    ("I'm Anna.", CITY, ""),
    ("John Smith, calling about my bill.", CITY, ""),
    ("I'm in D.C.", None, ""),
    ("I live near St. Patrick's.", None, ""),
    ("No, it's Anna with two n's.", CITY, ""),
    ("The Hague area", CITY, ""),
    ("One moment, please.", CITY, ""),
    ("Please try again.", CITY, ""),
    ("Sorry?", CITY, ""),
    ("Which city?", CITY, ""),
    ("In the morning.", CITY, ""),
    ("At home.", CITY, ""),
    ("I'd rather not say.", CITY, ""),
    ("Downtown.", CITY, ""),
    ("Yes.", CITY, ""),
    ("Monday.", CITY, ""),
    ("On Facebook.", CITY, ""),
    ("I'm in English class", None, ""),
    ("I'm from Monday to Friday at work", None, ""),
    ("I would like it in March.", None, ""),
    ("I'm in Room 5.", None, ""),
    ("This is Anna from Accounting.", None, ""),
    ("This is Anna from Harbour Insurance.", None, ""),
    ("I don't live in Boston.", None, ""),
    ("I'm not in Boston.", None, ""),
    ("Do you live in Boston?", None, ""),
    ("My parents live in Boston.", None, ""),
    ("I was treated in Boston.", None, ""),
    ("I saw it in Boston Magazine.", None, ""),
    ("i live in the suburbs", None, ""),
    ("Ich wohne in Berlin.", None, ""),
    ("", CITY, ""),
]
SERVICES = ("check-up", "Cleaning", "filling", "root canal", "ייעוץ")


@pytest.mark.parametrize(("text", "asked", "name"), NAMES)
def test_names(text: str, asked: Slot | None, name: str) -> None:
    assert find_name(text, asked) == name


@pytest.mark.parametrize(("text", "asked", "city"), CITIES)
def test_cities(text: str, asked: Slot | None, city: str) -> None:
    assert find_city(text, asked) == city


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
def test_services_that_are_offered(text: str, service: str) -> None:
    assert find_service(text, SERVICES) == service


@pytest.mark.parametrize(
    ("text", "asked", "wish"),
    [
        ("I need a haircut tomorrow.", None, "haircut"),
        ("I'd like to book a beard trim, please.", None, "beard trim"),
        ("A haircut, please.", SERVICE, "haircut"),
        ("Uh, just a wash and cut.", SERVICE, "wash and cut"),
        ("I need to know the price.", None, ""),
        ("Cleaning.", SERVICE, "cleaning"),
        ("One moment, please.", SERVICE, ""),
        ("Please try again.", SERVICE, ""),
        ("No, it's Anna with two n's.", SERVICE, ""),
        ("Can I have a look?", None, ""),
        ("I have a question.", SERVICE, ""),
    ],
)
def test_services_nobody_listed(text: str, asked: Slot | None, wish: str) -> None:
    assert find_wish(text, asked) == wish


@given(st.text(), st.sampled_from([None, *Slot]))
def test_whatever_is_found_was_said(text: str, asked: Slot | None) -> None:
    """No text breaks the grammar, and no letter of what is found comes from elsewhere."""
    for found in (find_name(text, asked), find_city(text, asked)):
        assert set(found.casefold()) <= set(text.replace("\u2019", "'").casefold()) | {" "}


@pytest.mark.parametrize("asked", [None, NAME, CITY, SERVICE])
@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "I'm ",
        "My name is A ",
        "yes ",
        "um",
        "A-",
        "A ",
        "uh, ",
        "it's ",
        "from ",
        "O' ",
        "van ",
        "over ",
        ", ",
        "A.",
    ],
)
def test_a_long_monologue_costs_no_time(unit: str, asked: Slot | None) -> None:
    """No pattern runs away: 10 lines of 20,000 characters each."""
    text = unit * (20_000 // len(unit))
    began = time.process_time()
    for _ in range(10):
        find_name(text, asked), find_city(text, asked), find_wish(text, asked)
    assert time.process_time() - began < 2

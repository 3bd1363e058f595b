"""DO-4: what the built-in tools tell, and for whom they write; caller ID alone proves nothing."""

from typing import Any

import attrs
import msgspec
import pytest
from fake_tools import OPEN_SHOP, PHONE, MemoryDesk, calling
from hypothesis import given
from hypothesis import strategies as st

from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import Tool, ToolCall, tool
from agent.call.tools.spoken_numbers import digits_said, is_said
from agent.call.tools.use_counts import UseCounts
from agent.core.bounds import ModelBounds
from agent.core.errors import BoundError, ToolError

DATE = "2026-11-24"
AT = f"{DATE}T14:30"
KNOWN = {"known": True, "first_name": "Dana"}


async def use(
    desk: MemoryDesk, name: str, call: ToolCall, bounds: ModelBounds | None = None, /, **arguments: Any
) -> Any:
    """Use a tool as the model does."""
    [its] = [its for its in DeskTools(desk, bounds or ModelBounds()).tools() if its.name == name]
    assert its.function is not None
    return await its.function(call, **its.read(msgspec.json.encode(arguments).decode()))


async def desk_that_knows_dana() -> MemoryDesk:
    """A desk with the lead and the appointment of an earlier call."""
    desk, earlier = MemoryDesk(), calling("earlier")
    await use(desk, "create_appointment", earlier, starts_at=AT, service="implants", name="Dana Levi")
    await use(desk, "update_lead", earlier, city="Haifa", note="is in debt")
    return desk


# What lookup_caller tells


async def test_do_4_a_number_alone_is_told_a_first_name() -> None:
    assert await use(await desk_that_knows_dana(), "lookup_caller", calling()) == KNOWN


@pytest.mark.parametrize("name", ["Dana Levi", "dana levi", "Levi, D\u00e1na", " DANA  LEVI "])
async def test_do_4_the_full_name_opens_the_row(name: str) -> None:
    told = await use(await desk_that_knows_dana(), "lookup_caller", calling(), full_name=name)
    assert (told["name"], told["city"], told["note"]) == ("Dana Levi", "Haifa", "is in debt")
    assert told["appointments"] == [{"starts_at": "Tuesday, 2026-11-24 14:30", "service": "implants"}]
    assert told["last_calls"] == []


async def test_do_4_a_date_opens_that_appointment_alone() -> None:
    told = await use(await desk_that_knows_dana(), "lookup_caller", calling(), appointment_on=DATE)
    assert told == KNOWN | {"appointments": [{"starts_at": "Tuesday, 2026-11-24 14:30", "service": "implants"}]}


@pytest.mark.parametrize(
    "guess",
    [
        {"full_name": "Dana"},
        {"full_name": "Dana Cohen"},
        {"full_name": "Levi"},
        {"full_name": "Dana Levi Cohen"},
        {"appointment_on": "2026-11-25"},
        {"full_name": "Dana Cohen", "appointment_on": "2026-11-25"},
    ],
)
async def test_do_4_what_does_not_match_opens_nothing(guess: dict[str, str]) -> None:
    """A first name does not either: it is told anyway."""
    with pytest.raises(BoundError, match="not what is written down") as caught:
        await use(await desk_that_knows_dana(), "lookup_caller", calling(), **guess)
    assert caught.value.bound == "lookup"


async def test_do_4_a_date_that_is_none_is_told_to_the_model() -> None:
    with pytest.raises(ToolError, match="no date"):
        await use(await desk_that_knows_dana(), "lookup_caller", calling(), appointment_on="on Tuesday")


async def test_do_4_a_tenant_may_be_open() -> None:
    told = await use(await desk_that_knows_dana(), "lookup_caller", calling(tenant=OPEN_SHOP))
    assert (told["name"], told["note"], len(told["appointments"])) == ("Dana Levi", "is in debt", 1)


async def test_do_4_what_a_call_wrote_itself_proves_nothing() -> None:
    """Who has a name or an appointment written down is not by that the one who was known before."""
    desk, call = await desk_that_knows_dana(), calling("call_2")
    await use(desk, "update_lead", call, name="Mallory Smith")
    with pytest.raises(BoundError):
        await use(desk, "lookup_caller", call, full_name="Mallory Smith")
    await use(desk, "create_appointment", call, starts_at="2026-12-01T10:00", name="Mallory Smith")
    told = await use(desk, "lookup_caller", call, full_name="Mallory Smith", appointment_on="2026-12-01")
    assert told == KNOWN | {"appointments": [{"starts_at": "Tuesday, 2026-12-01 10:00", "service": ""}]}
    assert (await use(desk, "lookup_caller", call, full_name="Dana Levi"))["note"] == "is in debt"


# Numbers


@pytest.mark.parametrize(
    ("said", "digits"),
    [
        ("It's 212-555-0199, thanks.", "2125550199"),
        ("two one two, five five five, oh one double nine", "2125550199"),
        ("triple five", "555"),
        ("at three o'clock", "3"),
        ("אפס חמש שתיים, שבע שבע", "05277"),
        ("\u0662\u0661\u0662", "212"),
        ("nothing \u00b2 at all", ""),
        ("", ""),
    ],
)
def test_digits_as_they_are_said(said: str, digits: str) -> None:
    assert digits_said(said) == digits


@given(st.text())
def test_whatever_is_said_is_digits_or_none(text: str) -> None:
    assert digits_said(text).isdecimal() or digits_said(text) == ""


def test_a_number_is_said_with_or_without_its_country_in_one_turn_or_several() -> None:
    assert is_said("+972527654321", ["052 7654321"])
    assert is_said("+972527654321", ["plus 972 52", "7654", "321#"])
    assert not is_said("+972527654321", ["052 765 432"])
    assert not is_said("+972527654321", [])


async def test_do_4_a_number_that_nobody_said_is_not_written_for() -> None:
    desk = MemoryDesk()
    for said in ((), ("My number is 212 555 0198.",)):
        with pytest.raises(BoundError, match="has not said the number") as caught:
            await use(desk, "create_appointment", calling(said=said), starts_at=AT, phone="+12125550199")
        assert caught.value.bound == "numbers"
    assert desk.made == []
    await use(desk, "create_appointment", calling(said=("", "2125550199#")), starts_at=AT, phone="+12125550199")
    await use(desk, "create_appointment", calling("own"), starts_at=AT, phone="(212) 555-0123")
    assert [new.phone for new, _ in desk.made] == ["+12125550199", PHONE], "keyed in, and the caller's own"


async def test_do_4_any_number_where_the_setting_says_so() -> None:
    desk = MemoryDesk()
    bounds = ModelBounds(other_numbers="any")
    await use(desk, "create_appointment", calling(), bounds, starts_at=AT, phone="+12125550199")
    assert len(desk.made) == 1


# How often


async def test_do_4_a_caller_makes_some_appointments_a_day() -> None:
    desk, bounds = MemoryDesk(), ModelBounds(appointments_a_day=2)
    for hour in (10, 11):
        await use(desk, "create_appointment", calling(f"{hour}"), bounds, starts_at=f"{DATE}T{hour}:00")
    with pytest.raises(BoundError, match="offer that a person calls back") as caught:
        await use(desk, "create_appointment", calling("12"), bounds, starts_at=f"{DATE}T12:00")
    assert caught.value.bound == "appointments_a_day"


def made(*, writes: bool = False, most: int | None = None) -> Tool:
    @tool(writes=writes, most=most)
    async def look(call: ToolCall) -> str:
        """Look."""
        return call.id

    return look


def test_do_4_uses_are_counted_by_tool_and_in_all() -> None:
    counts, rare, common = UseCounts(6), made(most=2), attrs.evolve(made(), name="other")
    for its in (rare, rare, common):
        counts.take(its)
    with pytest.raises(BoundError, match="look can be used 2 times") as caught:
        counts.take(rare)
    assert caught.value.bound == "look"
    counts.take(None)
    counts.take(common)
    with pytest.raises(BoundError, match="call end_call") as caught:
        counts.take(common)
    assert caught.value.bound == "tool_uses"


@pytest.mark.parametrize("writes", [True, False])
def test_do_4_what_was_not_written_does_not_count(*, writes: bool) -> None:
    """A date that is past is no appointment; a name that does not match was a guess."""
    counts, its = UseCounts(50), made(writes=writes, most=1)
    counts.take(its)
    counts.refused(its)
    if writes:
        counts.take(its)
    with pytest.raises(BoundError):
        counts.take(its)

"""Tools: declared as the provider's own types want them, arguments checked, users' functions made into tools."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta
from openai.types.realtime import RealtimeFunctionTool

from agent.call.tools.builtin import local_time
from agent.call.tools.declare import END_CALL, MAX_ARGUMENTS, ToolCall, tool, transfer_tool
from agent.core.errors import ToolArgumentsError, ToolError
from agent.core.tenant import Tenant

HOURS = {"monday": "nine to six"}
JERUSALEM = ZoneInfo("Asia/Jerusalem")
NOW = datetime(2026, 3, 20, 12, tzinfo=JERUSALEM)


@tool
async def opening_hours(
    call: ToolCall,
    day: Annotated[str, Meta(description="Day of the week", max_length=20)],
    holidays: Literal["with", "without"] = "without",
) -> str:
    """Tell when the shop is open.

    On a day of the week.
    """
    return f"{HOURS[day]} {holidays} {call.tenant.id}"


CALL = ToolCall("call_1", "CA1", Tenant("shop", "Shop"), "+15550001111", NOW)


def test_end_call_is_declared_as_the_provider_wants_it() -> None:
    declared = END_CALL.declare()
    declaration = RealtimeFunctionTool.model_validate(declared)
    assert declaration.to_dict() == declared, "and with nothing that it does not know"
    assert declaration.name == "end_call"


def test_a_declaration_is_the_callers_own_to_change() -> None:
    END_CALL.declare()["parameters"]["type"] = "string"
    assert END_CALL.declare()["parameters"]["type"] == "object"


async def test_a_function_is_its_declaration_its_check_and_its_work() -> None:
    assert opening_hours.declare() == {
        "type": "function",
        "name": "opening_hours",
        "description": "Tell when the shop is open. On a day of the week.",
        "parameters": {
            "type": "object",
            "properties": {
                "day": {"type": "string", "maxLength": 20, "description": "Day of the week"},
                "holidays": {"enum": ["with", "without"], "default": "without"},
            },
            "required": ["day"],
            "additionalProperties": False,
        },
    }
    arguments = opening_hours.read('{"day": "monday"}')
    assert opening_hours.function is not None
    assert await opening_hours.function(CALL, **arguments) == "nine to six without shop"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ("{}", "day"),
        ('{"day": 7}', "Expected `str`"),
        ('{"day": "monday", "night": 1}', "unknown field `night`"),
        ('{"day": "' + "y" * 21 + '"}', "length <= 20"),
        ('{"day": "monday", "holidays": "some"}', "Invalid enum value"),
        ('{"day": "' + "y" * MAX_ARGUMENTS + '"}', "longer than"),
        ('{"day": "\\ud800"}', "."),
        ("[" * 9_000, "."),
    ],
)
def test_what_does_not_fit_is_told_to_the_model(arguments: str, said: str) -> None:
    with pytest.raises(ToolArgumentsError, match=said):
        opening_hours.read(arguments)


@given(st.text())
def test_whatever_the_model_sends_is_arguments_or_an_error_for_it(arguments: str) -> None:
    with suppress(ToolArgumentsError):
        opening_hours.read(arguments)


def test_a_function_the_model_cannot_call_is_refused_at_once() -> None:
    async def nameless(call: ToolCall, day: str) -> str:
        return day

    async def untyped(call: ToolCall, day) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Tell."""
        return str(day)

    def waits_for_nothing(call: ToolCall) -> str:
        """Tell."""
        return ""

    for function, said in (
        (nameless, "docstring"),
        (untyped, "the parameter day needs a type"),
        (waits_for_nothing, "async function"),
    ):
        with pytest.raises(TypeError, match=said):
            tool(function)  # type: ignore[arg-type]


def test_transfers_are_declared_with_where_they_may_go() -> None:
    assert "+15559990000" in transfer_tool(Tenant("shop", "Shop", transfer_numbers=("+15559990000",))).description


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-31T14:30", datetime(2026, 3, 31, 11, 30, tzinfo=UTC)),
        ("2026-03-31 14:30", datetime(2026, 3, 31, 11, 30, tzinfo=UTC)),
        ("2026-03-31T14:30:00+01:00", datetime(2026, 3, 31, 13, 30, tzinfo=UTC)),
        ("2026-10-25T01:30", datetime(2026, 10, 24, 22, 30, tzinfo=UTC)),  # comes twice: the first
    ],
)
def test_a_time_is_meant_where_the_tenant_is(text: str, moment: datetime) -> None:
    assert local_time(text, JERUSALEM, NOW).astimezone(UTC) == moment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tomorrow at three", "no date and time"),
        ("2026-03-27T02:30", "does not exist"),
        ("2026-03-20T11:59", "is past"),
        ("2031-01-01T10:00", "too far away"),
    ],
)
def test_a_time_that_cannot_be_is_told_to_the_model(text: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        local_time(text, JERUSALEM, NOW)

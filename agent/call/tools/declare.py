"""Tools the model may call: a function with typed arguments is the declaration, the check, and the work.

::

    @tool
    async def opening_hours(call: ToolCall, day: Annotated[str, Meta(description="Day of the week")]) -> str:
        \"\"\"Tell when the shop is open on a day.\"\"\"
        return HOURS[day.lower()]

The docstring is what the model reads; the first parameter says who is on the phone; the others become the JSON
schema of the session and are validated when the model calls: what does not fit goes back to it as an error. Types
are those of msgspec (str, int, bool, float, Literal, list, ``Annotated[..., Meta(...)]``, defaults).
"""

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final, overload

import attrs
import msgspec

from agent.call.tools.spoken_numbers import is_said
from agent.core.errors import ToolArgumentsError
from agent.core.tenant import Tenant

MAX_ARGUMENTS: Final = 10_000
"""Characters of JSON; a model that sends more is raving."""


@attrs.frozen
class ToolCall:
    """Who calls, for a tool: ``id`` is the model's for this use of it, ``phone`` the other party's number.

    ``now`` is aware, in the tenant's time zone. ``said`` is what the caller said so far, as far as it was written
    down, and keyed in; ``memory`` is for what the tools of one call want to remember until its end.
    """

    id: str
    call_sid: str
    tenant: Tenant
    phone: str
    now: datetime
    said: tuple[str, ...] = ()
    memory: dict[Any, Any] = attrs.field(factory=dict, eq=False, repr=False)

    def has_said(self, number: str) -> bool:
        """Whether the caller said ``number`` (E.164) in this call; the model may have made it up otherwise."""
        return is_said(number, self.said)


ToolFunction = Callable[..., Awaitable[Any]]


@attrs.frozen(slots=False)
class Tool:
    """A tool. ``writes``: what it began is finished when the call ends meanwhile, within a bound.

    ``most``: how often it may be used in one call; of a tool that writes, uses that it refused do not count.
    """

    name: str
    description: str
    function: ToolFunction | None = attrs.field(default=None, eq=False)
    """None: the call itself does it (hang up, transfer)."""
    arguments: type[msgspec.Struct] | None = None
    writes: bool = False
    most: int | None = None

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """JSON schema of the arguments."""
        if self.arguments is None:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        [whole], components = msgspec.json.schema_components([self.arguments])
        schema = dict(components.get(self.arguments.__name__, whole))
        schema.pop("title", None)
        if len(components) > 1:
            raise TypeError(f"tool {self.name}: arguments are texts, numbers and lists, not structures")
        return schema

    def declare(self) -> dict[str, Any]:
        """The object the session lists the tool by; the caller's own."""
        parameters = msgspec.json.decode(msgspec.json.encode(self.schema))
        return {"type": "function", "name": self.name, "description": self.description, "parameters": parameters}

    def read(self, arguments: str) -> dict[str, Any]:
        """The arguments by name, checked. Raises ToolArgumentsError, saying what to do better."""
        if len(arguments) > MAX_ARGUMENTS:
            raise ToolArgumentsError(f"the arguments are longer than {MAX_ARGUMENTS} characters")
        if self.arguments is None:
            return {}
        try:
            values = msgspec.json.decode(arguments or "{}", type=self.arguments)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ToolArgumentsError(str(error)) from None
        return {name: getattr(values, name) for name in values.__struct_fields__}


@overload
def tool(function: ToolFunction) -> Tool: ...
@overload
def tool(*, writes: bool = False, most: int | None = None) -> Callable[[ToolFunction], Tool]: ...
def tool(
    function: ToolFunction | None = None, *, writes: bool = False, most: int | None = None
) -> Tool | Callable[[ToolFunction], Tool]:
    """Make a tool of an async function; see above. Raises TypeError for one that the model cannot call."""
    if function is None:
        return lambda function: make_tool(function, writes=writes, most=most)
    return make_tool(function)


def make_tool(function: ToolFunction, *, writes: bool = False, name: str = "", most: int | None = None) -> Tool:
    """The tool that ``function`` describes; its first parameter is the ToolCall. Raises TypeError."""
    name = name or getattr(function, "__name__", "")
    if not inspect.iscoroutinefunction(inspect.unwrap(function)) and not _is_bound_coroutine(function):
        raise TypeError(f"tool {name}: an async function is needed")
    description = " ".join((inspect.getdoc(function) or "").split())
    if not description:
        raise TypeError(f"tool {name}: a docstring is needed, it is what the model reads")
    hints = typing.get_type_hints(function, include_extras=True)
    _, *parameters = inspect.signature(function).parameters.values()
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.name not in hints:
            raise TypeError(f"tool {name}: the parameter {parameter.name} needs a type")
        kind = hints[parameter.name]
        empty = parameter.default is inspect.Parameter.empty
        fields.append((parameter.name, kind) if empty else (parameter.name, kind, parameter.default))
    # The required ones first, as structures want them.
    fields.sort(key=len)
    arguments = msgspec.defstruct(f"{name}_arguments", fields, forbid_unknown_fields=True, kw_only=True)
    made = Tool(name, description, function, arguments, writes, most)
    _ = made.schema  # says now, not in a call, what cannot be declared
    return made


def _is_bound_coroutine(function: ToolFunction) -> bool:
    return inspect.iscoroutinefunction(getattr(function, "__func__", None))


class _EndCall(msgspec.Struct, forbid_unknown_fields=True):
    reason: typing.Annotated[str, msgspec.Meta(description="Why the call ends, in a few words")] = ""


class _Transfer(msgspec.Struct, forbid_unknown_fields=True):
    number: typing.Annotated[str, msgspec.Meta(description="One of the allowed numbers; empty: the first")] = ""
    reason: typing.Annotated[str, msgspec.Meta(description="What the caller wants, in a few words")] = ""


END_CALL: Final = Tool(
    name="end_call",
    description="Hang up. Say goodbye in the same answer first; the call ends when the caller has heard it.",
    arguments=_EndCall,
)
TRANSFER_CALL: Final = Tool(
    name="transfer_call",
    description="Connect the caller to a person. Say so in the same answer first; when the caller has heard it, "
    "the call goes to that number and you are no longer part of it.",
    arguments=_Transfer,
)

LEAVES: Final = (END_CALL.name, TRANSFER_CALL.name)
"""Tools that end the call."""


def transfer_tool(tenant: Tenant, most: int | None = None) -> Tool:
    """``transfer_call`` as declared for a tenant: with the numbers it may go to, tried at most ``most`` times."""
    numbers = ", ".join(tenant.transfer_numbers)
    description = f"{TRANSFER_CALL.description} Allowed numbers: {numbers}."
    return attrs.evolve(TRANSFER_CALL, description=description, most=most)

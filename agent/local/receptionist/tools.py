"""Which of the tools the session declares can be called with what the caller said. Pure.

The real model reads a tool's description; this one reads its name and the names of its parameters.
"""

import enum
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from agent.pipeline.analysis.spoken_names import Slot


class ToolPurpose(enum.Enum):
    """What a tool is for, as far as a receptionist cares."""

    END = enum.auto()
    TRANSFER = enum.auto()
    RECORD = enum.auto()


@attrs.frozen
class DeclaredTool:
    """A declared function: its parameters by name with their JSON schemas."""

    name: str
    purpose: ToolPurpose
    properties: Mapping[str, Mapping[str, Any]]
    required: frozenset[str]


@attrs.frozen
class PlannedCall:
    """A call to be made; ``arguments`` is JSON text."""

    name: str
    arguments: str


_END: Final = re.compile(r"end_?(?:the_?)?(?:call|conversation)|hang_?up|good_?bye", re.IGNORECASE)
_TRANSFER: Final = re.compile(r"transfer|handoff|hand_over|human|operator|escalate", re.IGNORECASE)
_LOOKS_UP: Final = re.compile(r"(?:look_?up|find|search|get|list)_", re.IGNORECASE)
_SLOT_WORDS: Final = (
    (
        Slot.SERVICE,
        {"service", "treatment", "reason", "topic", "need", "needs", "note", "notes", "request", "purpose"},
    ),
    (Slot.APPOINTMENT, {"appointment", "date", "time", "datetime", "when", "day", "slot", "start", "starts"}),
    (Slot.CITY, {"city", "town", "location", "place"}),
    (Slot.NAME, {"name", "caller", "customer", "client", "lead"}),
)
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d|\bISO[- ]?8601\b")
_NOTE: Final = {"note", "notes"}
_NOT_OURS: Final = {"phone", "number", "email", "business", "id", "address", "zip"}


def read_tools(declared: Iterable[Mapping[str, Any]]) -> tuple[DeclaredTool, ...]:
    """The function tools among ``declared`` (GA shape); what has no name or no object schema is left out.

    So is what looks things up: rules make nothing of what it finds.
    """
    tools = []
    for tool in declared:
        schema = tool.get("parameters") or {}
        if tool.get("type", "function") != "function" or not tool.get("name") or not isinstance(schema, Mapping):
            continue
        name = str(tool["name"])
        if _LOOKS_UP.match(name):
            continue
        otherwise = ToolPurpose.TRANSFER if _TRANSFER.search(name) else ToolPurpose.RECORD
        purpose = ToolPurpose.END if _END.search(name) else otherwise
        properties = {str(key): value for key, value in (schema.get("properties") or {}).items()}
        tools.append(DeclaredTool(name, purpose, properties, frozenset(map(str, schema.get("required") or ()))))
    return tuple(tools)


def closing_call(tool: DeclaredTool, reason: str) -> PlannedCall | None:
    """A call of an END or TRANSFER tool: ``reason`` goes wherever a text is required."""
    wanted = tool.required | ({"reason"} & tool.properties.keys())
    filled = {key: _choice(tool.properties.get(key, {}), reason) for key in sorted(wanted)}
    if any(value is None for value in filled.values()):
        return None
    return PlannedCall(tool.name, json.dumps(filled))


def recording_call(
    tool: DeclaredTool,
    slots: Mapping[Slot, str],
    *,
    still_to_ask: Iterable[Slot],
    moment: str = "",
    note: str = "",
) -> PlannedCall | None:
    """A call of a RECORD tool, if ``slots`` fill what it requires and nothing it takes is still to be asked.

    ``moment`` is the appointment in ISO 8601, for tools that want it so; ``note`` is what only a note can hold.
    """
    wanted = {key: slot for key in tool.properties if (slot := _slot_of(key)) is not None}
    if not wanted or not tool.required <= wanted.keys() or set(wanted.values()) & set(still_to_ask):
        return None
    filled, told = {}, set[Slot]()
    for key, slot in wanted.items():
        if note and _words_of(key) & _NOTE:
            filled[key] = note
            continue
        if slot in told and key not in tool.required:
            continue  # a note beside the service itself
        told.add(slot)
        schema = tool.properties[key]
        said = moment if slot is Slot.APPOINTMENT and _wants_moment(schema) else slots.get(slot, "")
        value = _choice(schema, said) if said else None
        if value is not None:
            filled[key] = value
    return PlannedCall(tool.name, json.dumps(filled)) if filled and tool.required <= filled.keys() else None


def takes_appointments(tool: DeclaredTool) -> bool:
    """Whether it is given the time of an appointment."""
    return any(_slot_of(key) is Slot.APPOINTMENT for key in tool.properties)


def _wants_moment(schema: Mapping[str, Any]) -> bool:
    """Whether a parameter is a date and time in ISO 8601: it says so, or shows one."""
    return schema.get("format") == "date-time" or bool(_ISO.search(str(schema.get("description", ""))))


def _words_of(key: str) -> frozenset[str]:
    return frozenset(re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower().split("_"))


def _slot_of(key: str) -> Slot | None:
    words = _words_of(key)
    if words & _NOT_OURS:
        return None
    return next((slot for slot, names in _SLOT_WORDS if words & names), None)


def _choice(schema: Mapping[str, Any], value: str) -> str | None:
    """``value`` as ``schema`` allows it: a string, or the one of an enumeration that it mentions."""
    if schema.get("type", "string") != "string":
        return None
    options = schema.get("enum")
    if not options:
        return value
    folded = value.lower()
    return next((str(option) for option in options if str(option).lower().replace("_", " ") in folded), None)

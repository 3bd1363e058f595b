"""Client events of the Realtime API, read field by field: what is not as it should be is refused. Pure."""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from agent.model.server_shapes import EventRefusedError

T = TypeVar("T")


def decode(raw: str | bytes) -> Mapping[str, Any]:
    """The event as an object with a type. Raises EventRefusedError."""
    try:
        event = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EventRefusedError("invalid_json", f"Not a JSON object: {error}") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise EventRefusedError("missing_required_parameter", "An event is an object with a type.", "type")
    return event


def audio_field(event: Mapping[str, Any]) -> bytes:
    """The bytes of an append. Raises EventRefusedError."""
    try:
        return a2b_base64(text_field(event, "audio"), strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise EventRefusedError("invalid_value", f"The audio is not base64: {error}", "audio") from None


def mapping_field(event: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object; empty if it is absent or null. Raises EventRefusedError."""
    return _field(event, key, dict[str, Any], "an object")


def text_field(event: Mapping[str, Any], key: str) -> str:
    """A string; empty if it is absent or null. Raises EventRefusedError."""
    return _field(event, key, str, "a string")


def count_field(event: Mapping[str, Any], key: str) -> int:
    """An integer. Raises EventRefusedError."""
    value = event.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise EventRefusedError("invalid_type", f"'{key}' is an integer.", key)
    return value


def _field(event: Mapping[str, Any], key: str, kind: Callable[[], T], article: str) -> T:
    value = event.get(key)
    empty = kind()
    if value is None:
        return empty
    if not isinstance(value, type(empty)):
        raise EventRefusedError("invalid_type", f"'{key}' is {article}.", key)
    return value

"""What Postgres cannot keep is left out at the border: NUL, and halves of surrogate pairs (models send both)."""

from typing import Any, Final

import msgspec

from agent.core.records import CallRecord

KEY_CHARACTERS: Final = 200
"""Names of calls, items and people on the phone have at most 40, or a few more with SIP."""


def clean(text: str) -> str:
    """``text`` as Postgres can keep it."""
    if "\0" in text:
        text = text.replace("\0", "")
    return text.encode(errors="replace").decode()


def key(text: str) -> str:
    """``text`` as Postgres can keep it in an index, which has no room for what a broken peer may send."""
    return clean(text)[:KEY_CHARACTERS]


def clean_json(value: Any) -> Any:
    """A JSON value with its texts and keys cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): clean_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(part) for part in value]
    return value


def record_json(record: CallRecord) -> str:
    """The whole record for a ``jsonb`` column. Takes milliseconds for a long call: not for the event loop."""
    return msgspec.json.encode(clean_json(msgspec.to_builtins(record, enc_hook=repr))).decode()

"""The provider's habits on the wire: nulls, unknown fields and events, usage, rate limits. No I/O, no clock."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import attrs
import msgspec

from agent.model.server_shapes import Event

_AUDIO: Final = '{"type":"response.output_audio.delta"'
_NULLS: Final[Mapping[str, tuple[str, ...]]] = {
    "session": ("prompt", "tracing", "include", "expires_at"),
    "response": ("usage", "audio", "conversation_id"),
    "item": ("phase",),
    "error": ("param", "code", "event_id"),
}
"""Fields that the provider's types let be null; what is there already stays, but for the message of a failure."""
_UNHEARD_OF: Final = "session.weather.updated"
UNKNOWN_EVENTS: Final = 0.05
"""Share of events after which comes one that no client knows."""
NAMELESS_CALLS: Final = 0.5
"""Share of function calls whose own event leaves the name to the item."""
_LIMITS: Final = (("requests", 1000), ("tokens", 400_000))


@attrs.define(eq=False)
class RealWire:
    """Stands between an outbox and the wire; ``put`` takes what the outbox gives."""

    _put: Callable[[str], object]
    _chance: Random
    _answers: int = 0

    def put(self, message: str) -> None:
        """Pass on ``message`` as the provider would word it, and what it would send after it."""
        if message.startswith(_AUDIO):
            self._put(message)
            return
        event: Event = msgspec.json.decode(message)
        kind = event["type"]
        self._loosen(event)
        if kind == "response.function_call_arguments.done" and self._chance.random() < NAMELESS_CALLS:
            del event["name"]
        if kind == "response.done":
            event["response"]["usage"] = self._usage()
        self._send(event)
        if kind == "response.done":
            self._send(self._rate_limits())
        if self._chance.random() < UNKNOWN_EVENTS:
            self._send({"type": _UNHEARD_OF, "event_id": "event_of_tomorrow", "session": 7, "item": ["rain"]})

    def _send(self, event: Event) -> None:
        self._put(msgspec.json.encode(event).decode())

    def _loosen(self, event: Event) -> None:
        """Nulls where they may be, and a field that nobody knows."""
        event["obfuscation"] = {"of": [None, "tomorrow"]}
        for name, nulls in _NULLS.items():
            inner = event.get(name)
            if isinstance(inner, dict):
                inner.update({null: inner.get(null) for null in nulls})
        details = (event.get("response") or {}).get("status_details") or {}
        if "error" in details:
            details["error"]["message"] = None

    def _usage(self) -> Event:
        heard, spoken = self._chance.randrange(100, 9000), self._chance.randrange(20, 900)
        return {"input_tokens": heard, "output_tokens": spoken, "total_tokens": heard + spoken}

    def _rate_limits(self) -> Event:
        self._answers += 1
        limits: list[dict[str, Any]] = [
            {"name": name, "limit": limit, "remaining": limit - self._answers, "reset_seconds": 60 / limit}
            for name, limit in _LIMITS
        ]
        return {"type": "rate_limits.updated", "event_id": f"event_limits_{self._answers}", "rate_limits": limits}

"""The server's side of the Realtime API on the wire, for the scripted and the embedded model alike. Pure.

Names and shapes are those of the GA API (``openai.types.realtime``; tests validate every event against them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from secrets import token_hex
from typing import Any

import attrs
import msgspec

from agent.core.errors import AgentError

Event = dict[str, Any]


@attrs.frozen
class ErrorDetails:
    """An error as the provider words it; ``param`` names the field of the client's event that is wrong."""

    type: str
    code: str | None
    message: str
    param: str | None = None


class EventRefusedError(AgentError):
    """A client event that cannot be obeyed; it becomes an ``error`` event and the session goes on."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = ErrorDetails("invalid_request_error", code, message, param)


@attrs.define(eq=False)
class Outbox:
    """The way out of a session: events are numbered, encoded and given to ``put``, whose errors pass.

    ``session`` stands in all its ids, as no client may take one session's for another's.
    """

    _put: Callable[[str], object]
    _digits: int = 0
    """Ids have at least so many, with zeros in front."""
    session: str = attrs.field(factory=partial(token_hex, 4))
    _ids: count[int] = attrs.field(factory=lambda: count(1))

    def new_id(self, kind: str) -> str:
        """An id that no other object has, of this session or another."""
        return f"{kind}_{self.session}_{next(self._ids):0{self._digits}}"

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event of type ``kind``."""
        self.send_all([{"type": kind, **fields}])

    def send_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Send ``events``, which have their types in them, in order."""
        for event in events:
            self._put(msgspec.json.encode({**event, "event_id": self.new_id("event")}).decode())

    def audio_delta(self, response_id: str, item_id: str, payload: str) -> None:
        """Send audio, already base64: most of the traffic, so it is put together by hand."""
        self._put(
            f'{{"type":"response.output_audio.delta","event_id":"{self.new_id("event")}",'
            f'"response_id":"{response_id}","item_id":"{item_id}","output_index":0,'
            f'"content_index":0,"delta":"{payload}"}}'
        )

    def error(self, error: ErrorDetails, event_id: str | None = None) -> Event:
        """Send an error event and return its body; ``event_id`` is the client's event, if it was one's fault."""
        body = {**attrs.asdict(error), "event_id": event_id}
        self.send("error", error=body)
        return body


@attrs.frozen
class Output:
    """An output item of a response, and the events that tell of it."""

    response_id: str
    item_id: str
    index: int = 0

    @property
    def place(self) -> Event:
        """The item's place in its response."""
        return {"response_id": self.response_id, "output_index": self.index}

    @property
    def part(self) -> Event:
        """The place of its only content."""
        return {**self.place, "item_id": self.item_id, "content_index": 0}

    def tell(self, verb: str, item: Event) -> Event:
        """It was ``added``, or is ``done``."""
        return {"type": f"response.output_item.{verb}", **self.place, "item": item}

    def opened(self) -> Event:
        """Its speech begins."""
        part = {"type": "audio", "transcript": ""}
        return {"type": "response.content_part.added", **self.part, "part": part}

    def text(self, delta: str) -> Event:
        """More of its words."""
        return {"type": "response.output_audio_transcript.delta", **self.part, "delta": delta}

    def audio(self, payload: str) -> Event:
        """More of its audio, in base64."""
        return {"type": "response.output_audio.delta", **self.part, "delta": payload}

    def closed(self, transcript: str) -> list[Event]:
        """Its speech ends, whose words are ``transcript``."""
        part = {"type": "audio", "transcript": transcript}
        return [
            {"type": "response.output_audio.done", **self.part},
            {"type": "response.output_audio_transcript.done", **self.part, "transcript": transcript},
            {"type": "response.content_part.done", **self.part, "part": part},
        ]

    def called(self, call_id: str, name: str, arguments: str) -> list[Event]:
        """It calls a function, with JSON text."""
        call = {**self.place, "item_id": self.item_id, "call_id": call_id}
        return [
            {"type": "response.function_call_arguments.delta", **call, "delta": arguments},
            {"type": "response.function_call_arguments.done", **call, "name": name, "arguments": arguments},
        ]


def item(item_id: str, kind: str, **fields: Any) -> Event:
    """An item of the conversation."""
    return {"id": item_id, "object": "realtime.item", "type": kind, **fields}


def response(
    response_id: str, status: str, details: Event | None, output: Sequence[Event], metadata: object, **fields: Any
) -> Event:
    """The ``response`` object of an event; ``metadata`` is what the client sent with its request."""
    return {
        "object": "realtime.response",
        "id": response_id,
        "status": status,
        "status_details": details,
        "output": list(output),
        "output_modalities": ["audio"],
        "metadata": metadata,
        **fields,
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any], *, whole: Sequence[str] = ()) -> Event:
    """``old`` with what ``new`` gives; objects are merged, all else and the fields in ``whole`` replaced."""
    result = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), dict) and key not in whole
        result[key] = merged(result[key], value, whole=whole) if both else value
    return result

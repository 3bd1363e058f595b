"""One response of the embedded model, as the events that tell of it. Pure: every method returns what to send."""

from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, Final

import attrs

from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.local.conversation import Item
from agent.local.receptionist.tools import PlannedCall
from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, Output

DELTA_MS: Final = 400
"""Most audio in one delta: small enough to begin playing at once, large enough to cost little."""


@attrs.define(eq=False)
class LocalResponse:
    """From ``response.created`` to ``response.done``; ``items`` are what it put into the conversation."""

    id: str
    voice: str
    audio: AudioFormat = ULAW_8K
    """What it is spoken in."""
    metadata: Mapping[str, Any] | None = None
    """What the client sent with its request, repeated to it."""
    items: list[Item] = attrs.field(factory=list)
    _open: Item | None = None
    _status: str = "in_progress"

    def begin(self) -> list[Event]:
        """The response exists."""
        return [{"type": "response.created", "response": self._response(None)}]

    def open_message(self, item_id: str, previous: str | None) -> list[Event]:
        """A spoken message begins; ``previous`` is the conversation's last item."""
        self._open = Item(item_id, "message", role="assistant", audio_ms=0.0, status="in_progress")
        return [*self._added(self._open, previous), self._output(self._open).opened()]

    def speak(self, text: str, spoken: bytes) -> list[Event]:
        """A sentence, as text and as audio. A message is open."""
        item = self._message()
        output, delta = self._output(item), f" {text}" if item.text else text
        item.text += delta
        item.audio_ms = (item.audio_ms or 0.0) + len(spoken) / self.audio.bytes_per_ms
        size = DELTA_MS * self.audio.bytes_per_ms
        pieces = (spoken[at : at + size] for at in range(0, len(spoken), size))
        return [output.text(delta), *(output.audio(_base64(piece)) for piece in pieces)]

    def close_message(self, status: str = "completed") -> list[Event]:
        """The open message ends."""
        item = self._message()
        self._open, item.status = None, status
        return [*self._output(item).closed(item.text), *self._done(item)]

    def call(self, item_id: str, call_id: str, call: PlannedCall, previous: str | None) -> list[Event]:
        """A tool is called."""
        item = Item(item_id, "function_call", name=call.name, call_id=call_id, status="in_progress")
        added = self._added(item, previous)
        item.text, item.status = call.arguments, "completed"
        return [*added, *self._output(item).called(call_id, call.name, call.arguments), *self._done(item)]

    def finish(self, status: str = "completed", reason: str | None = None) -> list[Event]:
        """The response ends: completed, or cancelled with a ``reason``; an open message is closed before."""
        events = self.close_message("incomplete") if self._open is not None else []
        self._status = status
        details: Event = {"type": status} if reason is None else {"type": status, "reason": reason}
        return [*events, {"type": "response.done", "response": self._response(details)}]

    def _message(self) -> Item:
        if self._open is None:
            raise ValueError("no message is open")
        return self._open

    def _output(self, item: Item) -> Output:
        return Output(self.id, item.id, self.items.index(item))

    def _added(self, item: Item, previous: str | None) -> list[Event]:
        self.items.append(item)
        shown = {**item.as_event(), "content": []} if item.kind == "message" else item.as_event()
        told = {"type": "conversation.item.added", "previous_item_id": previous, "item": shown}
        return [self._output(item).tell("added", shown), told]

    def _done(self, item: Item) -> list[Event]:
        told = {"type": "conversation.item.done", "previous_item_id": None, "item": item.as_event()}
        return [self._output(item).tell("done", item.as_event()), told]

    def _response(self, details: Event | None) -> Event:
        audio = {"output": {"format": self.audio.declare(), "voice": self.voice}}
        output = [item.as_event() for item in self.items]
        return realtime_wire.response(self.id, self._status, details, output, self.metadata, audio=audio)


def _base64(audio: bytes) -> str:
    return b2a_base64(audio, newline=False).decode()

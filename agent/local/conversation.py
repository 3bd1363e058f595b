"""The items of one session: who said what, how much of it was sent, and what of it was heard. Pure."""

from collections.abc import Mapping
from typing import Any

import attrs

from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, EventRefusedError


@attrs.define(eq=False)
class Item:
    """A message, a function call or its output; ``audio_ms`` is None for what was never audio."""

    id: str
    kind: str
    role: str = ""
    text: str = ""
    audio_ms: float | None = None
    status: str = "completed"
    call_id: str = ""
    name: str = ""

    def as_event(self) -> Event:
        """The item as the Realtime API shows it."""
        match self.kind:
            case "function_call_output":
                fields: Event = {"call_id": self.call_id, "output": self.text}
            case "function_call":
                call = {"call_id": self.call_id, "name": self.name, "arguments": self.text}
                fields = {"status": self.status, **call}
            case _:
                fields = {"status": self.status, "role": self.role, "content": [self._content()]}
        return realtime_wire.item(self.id, self.kind, **fields)

    def _content(self) -> Event:
        side = "output" if self.role == "assistant" else "input"
        if self.audio_ms is not None:
            return {"type": f"{side}_audio", "transcript": self.text or None}
        return {"type": f"{side}_text", "text": self.text}


@attrs.define(eq=False)
class LocalConversation:
    """The items in order."""

    _items: dict[str, Item] = attrs.field(factory=dict)

    @property
    def last_id(self) -> str | None:
        """The newest item's id."""
        return next(reversed(self._items), None)

    def add(self, item: Item) -> str | None:
        """Append ``item``; the id of the one before it. Raises EventRefusedError if its id is taken."""
        if item.id in self._items:
            raise EventRefusedError(
                "item_create_duplicate_item_id", f"Item {item.id!r} exists already.", "item.id"
            )
        previous = self.last_id
        self._items[item.id] = item
        return previous

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Only the first ``audio_end_ms`` were heard; the words are no longer known. Raises EventRefusedError."""
        item = self._find(item_id, "item_truncate_invalid_item_id")
        if item.role != "assistant" or item.audio_ms is None:
            raise EventRefusedError("invalid_value", "Only audio of the model can be truncated.", "item_id")
        if content_index != 0:
            raise EventRefusedError(
                "invalid_value", f"Item {item_id!r} has no content {content_index}.", "content_index"
            )
        if not 0 <= audio_end_ms <= item.audio_ms:
            length = f"Audio content of {item.audio_ms:.0f}ms is already shorter than {audio_end_ms}ms"
            raise EventRefusedError("invalid_value", length, "audio_end_ms")
        item.audio_ms, item.text = audio_end_ms, ""

    def delete(self, item_id: str) -> None:
        """Remove an item. Raises EventRefusedError if there is none of that id."""
        self._find(item_id, "item_delete_invalid_item_id")
        del self._items[item_id]

    def _find(self, item_id: str, code: str) -> Item:
        if item_id not in self._items:
            raise EventRefusedError(code, f"Item with item_id not found: {item_id}", "item_id")
        return self._items[item_id]


def read_item(value: Mapping[str, Any], new_id: str) -> Item:
    """The item of a ``conversation.item.create``: a text message or a tool's output. Raises EventRefusedError."""
    kind, item_id = value.get("type"), str(value.get("id") or new_id)
    if kind == "function_call_output":
        call_id, output = value.get("call_id"), value.get("output")
        if not isinstance(call_id, str) or not isinstance(output, str):
            raise EventRefusedError("invalid_type", "A tool's output has a call_id and a text.", "item")
        return Item(item_id, kind, text=output, call_id=call_id)
    role, content = value.get("role"), value.get("content")
    if kind != "message" or role not in {"user", "assistant", "system"}:
        raise EventRefusedError("invalid_value", "Items are messages or tool outputs.", "item.type")
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise EventRefusedError("invalid_type", "The content of a message is a list of parts.", "item.content")
    texts = [part.get("text") for part in content if part.get("type") in {"input_text", "output_text", "text"}]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise EventRefusedError("invalid_value", "Only text can be added to the conversation.", "item.content")
    return Item(item_id, "message", role=str(role), text=" ".join(map(str, texts)))

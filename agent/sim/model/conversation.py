"""The items of a scripted model's conversation: what the client may do to them. No I/O, no clock."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, EventRefusedError, Outbox
from agent.sim.model.response import SimulatedMessage

_CREATED_BY_CLIENTS: Final = ("message", "function_call", "function_call_output")


@attrs.define(eq=False)
class SimulatedItem:
    """An item as the provider would show it; ``spoken`` is set for what the model says."""

    resource: Event
    spoken: SimulatedMessage | None = None
    truncated_ms: int | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.resource["id"])


@attrs.define(eq=False)
class SimulatedConversation:
    """Items in order, and what was done to them."""

    outbox: Outbox
    items: dict[str, SimulatedItem] = attrs.field(factory=dict)
    truncations: list[tuple[str, int]] = attrs.field(factory=list)
    deleted: list[str] = attrs.field(factory=list)
    tool_outputs: dict[str, str] = attrs.field(factory=dict)
    last_id: str | None = None

    def add(self, item: SimulatedItem) -> None:
        """An item begins."""
        self.outbox.send("conversation.item.added", previous_item_id=self.last_id, item=item.resource)
        self.items[item.id] = item
        self.last_id = item.id

    def finish(self, item_id: str, resource: Event) -> None:
        """An item is complete and stays as ``resource``; one deleted meanwhile is not finished."""
        item = self.items.get(item_id)
        if item is not None:
            item.resource = resource
            self.outbox.send("conversation.item.done", item=resource)

    def add_user_audio(self, item_id: str) -> None:
        """What the caller said became an item."""
        content = [{"type": "input_audio", "transcript": None}]
        self._add_whole(realtime_wire.item(item_id, "message", role="user", status="completed", content=content))

    def create(self, event: Mapping[str, Any]) -> None:
        """``conversation.item.create``: a message, or a tool's output. Raises EventRefusedError, as all."""
        given = event.get("item")
        if not isinstance(given, dict) or given.get("type") not in _CREATED_BY_CLIENTS:
            raise EventRefusedError("invalid_value", "Invalid 'item'.", "item")
        item_id = str(given.get("id") or self.outbox.new_id("item"))
        if given["type"] == "function_call_output":
            self.tool_outputs[str(given.get("call_id"))] = str(given.get("output"))
        self._add_whole({**given, "id": item_id, "object": "realtime.item", "status": "completed"})

    def delete(self, event: Mapping[str, Any]) -> None:
        """``conversation.item.delete``."""
        item = self._found(event, "item_delete_invalid_item_id", "deleting")
        del self.items[item.id]
        self.deleted.append(item.id)
        self.outbox.send("conversation.item.deleted", item_id=item.id)

    def truncate(self, event: Mapping[str, Any]) -> None:
        """``conversation.item.truncate``: never beyond what there is, as the provider has it."""
        item = self._found(event, "item_truncate_invalid_item_id", "truncating")
        if item.spoken is None:
            raise EventRefusedError(
                "invalid_value", "Only model output audio messages can be truncated", "item_id"
            )
        end_ms = event.get("audio_end_ms")
        if end_ms == 0:
            raise EventRefusedError(
                "unsupported_content_type", "Unable to truncate: no audio content.", "audio_end_ms"
            )
        if not isinstance(end_ms, int) or end_ms < 0:
            raise EventRefusedError("invalid_value", "Invalid 'audio_end_ms'.", "audio_end_ms")
        length_ms = item.spoken.sent_ms if item.truncated_ms is None else item.truncated_ms
        if end_ms > length_ms:
            message = f"Audio content of {length_ms}ms is already shorter than {end_ms}ms"
            raise EventRefusedError("invalid_value", message, "audio_end_ms")
        item.truncated_ms = end_ms
        self.truncations.append((item.id, end_ms))
        where = {"item_id": item.id, "content_index": event.get("content_index", 0)}
        self.outbox.send("conversation.item.truncated", **where, audio_end_ms=end_ms)

    def _add_whole(self, resource: Event) -> None:
        self.add(SimulatedItem(resource))
        self.finish(str(resource["id"]), resource)

    def _found(self, event: Mapping[str, Any], code: str, doing: str) -> SimulatedItem:
        item = self.items.get(str(event.get("item_id")))
        if item is None:
            message = f"Error {doing} item: the item with id '{event.get('item_id')}' does not exist."
            raise EventRefusedError(code, message, "item_id")
        return item

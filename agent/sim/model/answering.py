"""How a scripted answer goes out: the events of a response in the provider's order. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import msgspec

from agent.sim.model.conversation import Conversation, Item
from agent.sim.model.response import SimulatedResponse
from agent.sim.model.script import Faults, ToolCall
from agent.sim.model.wire import Outbox

EndStatus = Literal["completed", "cancelled", "failed"]


@attrs.define(eq=False)
class Answering:
    """Sends the events of responses through ``outbox``, with the faults asked for."""

    outbox: Outbox
    conversation: Conversation
    faults: Faults

    def announce(self, response: SimulatedResponse) -> None:
        """``response.created``."""
        for _ in range(2 if self.faults.duplicate_created else 1):
            self.outbox.send("response.created", response=response.resource(None, []))

    def advance(self, response: SimulatedResponse) -> bool:
        """Send the delta that is due; False if its end is."""
        if self.faults.early_done and response.steps_left == 1 and not response.is_cut:
            self._send_done(response, "completed")
        step = response.take_step()
        if step is None:
            return False
        if not response.opened:
            self._open_message(response)
        if step.kind == "text":
            self.outbox.send("response.output_audio_transcript.delta", **_part_of(response), delta=step.data)
            return True
        if response.sent_bytes == step.length_bytes:
            self._misbehave(step.data)
        self.outbox.audio_delta(response.id, response.item_id, step.data)
        return True

    def end(self, response: SimulatedResponse, status: EndStatus) -> None:
        """Close what is open and send ``response.done``."""
        if response.opened:
            where = _part_of(response)
            self.outbox.send("response.output_audio.done", **where)
            text = response.sent_text
            self.outbox.send("response.output_audio_transcript.done", **where, transcript=text)
            part = {"type": "audio", "transcript": text}
            self.outbox.send("response.content_part.done", **where, part=part)
            item = response.message_item("completed" if status == "completed" else "incomplete")
            self.conversation.finish(response.item_id, item)
            place = {"response_id": response.id, "output_index": 0}
            self.outbox.send("response.output_item.done", **place, item=item)
        if status == "completed" and response.answer.tool_call is not None:
            self._call_tool(response, response.answer.tool_call)
        if not response.done_sent:
            self._send_done(response, status)
        if self.faults.duplicate_done:
            self._send_done(response, status)

    def _open_message(self, response: SimulatedResponse) -> None:
        response.opened = True
        item = response.message_item("in_progress")
        self.outbox.send("response.output_item.added", response_id=response.id, output_index=0, item=item)
        self.conversation.add(Item(item, response))
        part = {"type": "audio", "transcript": ""}
        self.outbox.send("response.content_part.added", **_part_of(response), part=part)

    def _misbehave(self, payload: str) -> None:
        if self.faults.garbage:
            self.outbox.ready += ["{this is no JSON", '["this", "is", "no", "event"]']
        if self.faults.stray_delta:
            self.outbox.audio_delta("resp_nobody", "item_nobody", payload)

    def _call_tool(self, response: SimulatedResponse, tool: ToolCall) -> None:
        item_id, call_id = self.outbox.new_id("item"), self.outbox.new_id("call")
        arguments = msgspec.json.encode(tool.arguments).decode()
        item: dict[str, Any] = {"id": item_id, "object": "realtime.item", "type": "function_call"}
        item |= {"name": tool.name, "call_id": call_id, "arguments": "", "status": "in_progress"}
        place = {"response_id": response.id, "output_index": int(response.opened)}
        self.outbox.send("response.output_item.added", **place, item=item)
        self.conversation.add(Item(item))
        call = {**place, "item_id": item_id, "call_id": call_id}
        self.outbox.send("response.function_call_arguments.delta", **call, delta=arguments)
        self.outbox.send("response.function_call_arguments.done", **call, name=tool.name, arguments=arguments)
        item = {**item, "arguments": arguments, "status": "completed"}
        self.conversation.finish(item_id, item)
        self.outbox.send("response.output_item.done", **place, item=item)
        response.output.append(item)

    def _send_done(self, response: SimulatedResponse, status: EndStatus) -> None:
        response.status, response.done_sent = status, True
        details: dict[str, Any] | None = None
        error = self.faults.fail_answers
        if status == "cancelled":
            details = {"type": status, "reason": response.cut_reason}
        elif status == "failed" and error is not None:
            body = {"type": error.type, "code": error.code, "message": error.message}
            details = {"type": status, "error": body}
        message = [response.message_item("completed" if status == "completed" else "incomplete")]
        output = (message if response.opened else []) + response.output
        self.outbox.send("response.done", response=response.resource(details, output))


def _part_of(response: SimulatedResponse) -> Mapping[str, Any]:
    return {
        "response_id": response.id,
        "item_id": response.item_id,
        "output_index": 0,
        "content_index": 0,
    }

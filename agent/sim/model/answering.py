"""How a scripted answer goes out: the events of a response in the provider's order. No I/O, no clock."""

from __future__ import annotations

from typing import Literal

import attrs
import msgspec

from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, Outbox, Output
from agent.sim.model.conversation import Conversation, Item
from agent.sim.model.response import SimulatedResponse
from agent.sim.model.script import Faults, ToolCall

EndStatus = Literal["completed", "cancelled", "failed"]


@attrs.define(eq=False)
class Answering:
    """Sends the events of responses through ``outbox``, with the faults asked for."""

    ready: list[str]
    """What the outbox fills."""
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
            self.outbox.send_all([response.message.text(step.data)])
            return True
        if response.sent_bytes == step.length_bytes:
            self._misbehave(step.data)
        self.outbox.audio_delta(response.id, response.item_id, step.data)
        return True

    def end(self, response: SimulatedResponse, status: EndStatus) -> None:
        """Close what is open and send ``response.done``."""
        if response.opened:
            item = response.message_item("completed" if status == "completed" else "incomplete")
            self.outbox.send_all(response.message.closed(response.sent_text))
            self.conversation.finish(response.item_id, item)
            self.outbox.send_all([response.message.tell("done", item)])
        if status == "completed" and response.answer.tool_call is not None:
            self._call_tool(response, response.answer.tool_call)
        if not response.done_sent:
            self._send_done(response, status)
        if self.faults.duplicate_done:
            self._send_done(response, status)

    def _open_message(self, response: SimulatedResponse) -> None:
        response.opened = True
        item = response.message_item("in_progress")
        self.outbox.send_all([response.message.tell("added", item)])
        self.conversation.add(Item(item, response))
        self.outbox.send_all([response.message.opened()])

    def _misbehave(self, payload: str) -> None:
        if self.faults.garbage:
            self.ready += ["{this is no JSON", '["this", "is", "no", "event"]']
        if self.faults.stray_delta:
            self.outbox.audio_delta("resp_nobody", "item_nobody", payload)

    def _call_tool(self, response: SimulatedResponse, tool: ToolCall) -> None:
        item_id, call_id = self.outbox.new_id("item"), self.outbox.new_id("call")
        arguments = msgspec.json.encode(tool.arguments).decode()
        call: Event = {"name": tool.name, "call_id": call_id}
        output = Output(response.id, item_id, int(response.opened))
        begun = realtime_wire.item(item_id, "function_call", **call, arguments="", status="in_progress")
        self.outbox.send_all([output.tell("added", begun)])
        self.conversation.add(Item(begun))
        item = {**begun, "arguments": arguments, "status": "completed"}
        self.outbox.send_all(output.called(call_id, tool.name, arguments))
        self.conversation.finish(item_id, item)
        self.outbox.send_all([output.tell("done", item)])
        response.output.append(item)

    def _send_done(self, response: SimulatedResponse, status: EndStatus) -> None:
        response.status, response.done_sent = status, True
        details: Event | None = None
        error = self.faults.fail_answers
        if status == "cancelled":
            details = {"type": status, "reason": response.cut_reason}
        elif status == "failed" and error is not None:
            body = {"type": error.type, "code": error.code, "message": error.message}
            details = {"type": status, "error": body}
        message = [response.message_item("completed" if status == "completed" else "incomplete")]
        output = (message if response.opened else []) + response.output
        self.outbox.send("response.done", response=response.resource(details, output))

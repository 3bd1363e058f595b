"""How a scripted answer goes out: the events of a response in the provider's order. No I/O, no clock."""

from binascii import a2b_base64, b2a_base64
from typing import Final, Literal

import attrs
import msgspec

from agent.audio.ulaw import pcm16_to_ulaw, ulaw_to_pcm16
from agent.core.units import SAMPLE_RATE_HZ
from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, Outbox, Output
from agent.sim.model.conversation import SimulatedConversation, SimulatedItem
from agent.sim.model.response import SimulatedMessage, SimulatedResponse
from agent.sim.model.script import Faults, ScriptedToolCall
from agent.sim.model.settings import SessionSettings

EndStatus = Literal["completed", "cancelled", "failed"]
PCM_RATE_HZ: Final = 24_000


@attrs.define(eq=False)
class ResponseSender:
    """Sends the events of responses through ``outbox``, with the faults asked for."""

    ready: list[str]
    """What the outbox fills."""
    outbox: Outbox
    conversation: SimulatedConversation
    faults: Faults
    settings: SessionSettings

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
        message = response.messages[step.part]
        if not message.opened:
            self._close_message(response, "completed")
            self._open_message(response, message)
        if step.kind == "text":
            self.outbox.send_all([message.output.text(step.data)])
            return True
        payload = as_pcm(step.data) if self.settings.speaks_pcm else step.data
        if response.sent_bytes == step.length_bytes:
            self._misbehave(payload)
        if message.output.index:
            self.outbox.send_all([message.output.audio(payload)])
        else:
            self.outbox.audio_delta(response.id, message.output.item_id, payload)
        return True

    def end(self, response: SimulatedResponse, status: EndStatus) -> None:
        """Close what is open and send ``response.done``."""
        self._close_message(response, status)
        if status == "completed" and response.answer.tool_call is not None:
            self._call_tool(response, response.answer.tool_call)
        if not response.done_sent:
            self._send_done(response, status)
        if self.faults.duplicate_done:
            self._send_done(response, status)

    def _open_message(self, response: SimulatedResponse, message: SimulatedMessage) -> None:
        message.opened, response.speaking = True, message
        item = message.item("in_progress")
        self.outbox.send_all([message.output.tell("added", item)])
        self.conversation.add(SimulatedItem(item, message))
        self.outbox.send_all([message.output.opened()])

    def _close_message(self, response: SimulatedResponse, status: EndStatus) -> None:
        message, response.speaking = response.speaking, None
        if message is not None:
            item = message.item("completed" if status == "completed" else "incomplete")
            message.ended = item
            self.outbox.send_all(message.output.closed(message.sent_text))
            self.conversation.finish(message.output.item_id, item)
            self.outbox.send_all([message.output.tell("done", item)])

    def _misbehave(self, payload: str) -> None:
        if self.faults.garbage:
            self.ready += ["{this is no JSON", '["this", "is", "no", "event"]']
        if self.faults.stray_delta:
            self.outbox.audio_delta("resp_nobody", "item_nobody", payload)

    def _call_tool(self, response: SimulatedResponse, tool: ScriptedToolCall) -> None:
        item_id, call_id = self.outbox.new_id("item"), self.outbox.new_id("call")
        arguments = msgspec.json.encode(tool.arguments).decode()
        call: Event = {"name": tool.name, "call_id": call_id}
        output = Output(response.id, item_id, sum(message.opened for message in response.messages))
        begun = realtime_wire.item(item_id, "function_call", **call, arguments="", status="in_progress")
        self.outbox.send_all([output.tell("added", begun)])
        self.conversation.add(SimulatedItem(begun))
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
        self.outbox.send("response.done", response=response.resource(details, response.items()))


def as_pcm(payload: str) -> str:
    """Mu-law at 8 kHz as the provider's own default: 16-bit samples at 24 kHz, both in base64."""
    samples = ulaw_to_pcm16(a2b_base64(payload)).repeat(PCM_RATE_HZ // SAMPLE_RATE_HZ)
    return b2a_base64(samples.astype("<i2").tobytes(), newline=False).decode()


def as_ulaw(payload: str) -> str:
    """PCM16 at 24 kHz as mu-law at 8 kHz, both in base64. Raises binascii.Error, ValueError."""
    return b2a_base64(pcm16_as_ulaw(a2b_base64(payload, strict_mode=True)), newline=False).decode()


def pcm16_as_ulaw(audio: bytes) -> bytes:
    """Every third sample: what ``as_pcm`` made is found again, byte for byte."""
    import numpy as np  # noqa: PLC0415  (a simulation without it does not load it)

    return pcm16_to_ulaw(np.frombuffer(audio, "<i2")[:: PCM_RATE_HZ // SAMPLE_RATE_HZ])

"""One answer of the scripted model: what is sent of it, when, and how it ends. No I/O, no clock."""

from collections.abc import Mapping
from math import inf
from typing import Any, Literal

import attrs

from agent.core.units import audio_ms
from agent.model import server_shapes as realtime_wire
from agent.model.server_shapes import Event, Output
from agent.sim.model.script import Answer, Delta

Status = Literal["in_progress", "completed", "cancelled", "failed"]


@attrs.define(eq=False)
class SimulatedMessage:
    """A message of an answer, and the record of what was sent of it."""

    output: Output
    phase: str | None = None
    """``commentary`` or ``final_answer`` where there are both."""
    opened: bool = False
    """Whether it was announced."""
    sent_bytes: int = 0
    sent_text: str = ""
    ended: Event | None = None
    """The item it became."""

    @property
    def sent_ms(self) -> int:
        """Milliseconds of audio sent."""
        return audio_ms(self.sent_bytes)

    def item(self, status: str) -> Event:
        """It as an item of the conversation."""
        content = [{"type": "output_audio", "transcript": self.sent_text}] if status != "in_progress" else []
        phase = {"phase": self.phase} if self.phase else {}
        fields = {"role": "assistant", "status": status, "content": content, **phase}
        return realtime_wire.item(self.output.item_id, "message", **fields)


@attrs.define(eq=False, kw_only=True)
class SimulatedResponse:
    """A response of the model, and the record of what was sent of it."""

    id: str
    messages: tuple[SimulatedMessage, ...]
    number: int
    """Counted from 0 over all answers of the script; the audio carries it (``agent.sim.sounds.numbers_in``)."""
    answer: Answer
    steps: tuple[Delta, ...] = attrs.field(repr=False)
    created_s: float
    """When ``response.created`` is sent."""
    request: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """The ``response`` object of the ``response.create`` that asked for it; empty after a turn."""
    total_bytes: int = attrs.field(init=False)
    status: Status = "in_progress"
    sent_bytes: int = 0
    speaking: SimulatedMessage | None = None
    """The message that is open."""
    done_sent: bool = False
    cut_s: float = inf
    """When it ends as cancelled."""
    cut_reason: str = ""
    output: list[Event] = attrs.field(factory=list)
    """Items besides its messages: the function call."""
    _index: int = 0

    @total_bytes.default
    def _count(self) -> int:
        return sum(step.length_bytes for step in self.steps)

    @property
    def item_id(self) -> str:
        """The item of its first message."""
        return self.messages[0].output.item_id

    @property
    def _first_s(self) -> float:
        return self.created_s + self.answer.first_delta_ms / 1000

    def next_s(self) -> float:
        """When its next step, or its end, is due."""
        last_s = self.steps[-1].after_s if self.steps else 0.0
        after_s = self.steps[self._index].after_s if self._index < len(self.steps) else last_s
        return min(self._first_s + after_s, self.cut_s)

    def cut(self, at_s: float, reason: str) -> None:
        """End it at ``at_s``, or when it is created if that is later; what is due before is still sent."""
        self.cut_s, self.cut_reason = max(at_s, self.created_s), reason

    @property
    def is_cut(self) -> bool:
        """Whether it was cancelled, though a few deltas may follow."""
        return self.cut_s < inf

    @property
    def steps_left(self) -> int:
        """How many deltas are not sent yet."""
        return len(self.steps) - self._index

    def take_step(self) -> Delta | None:
        """The step due at ``next_s``, counted as sent; None if its end is due."""
        if not self.steps_left or self.cut_s <= self._first_s + self.steps[self._index].after_s:
            return None
        step = self.steps[self._index]
        self._index += 1
        self.sent_bytes += step.length_bytes
        message = self.messages[step.part]
        message.sent_bytes += step.length_bytes
        if step.kind == "text":
            message.sent_text += step.data
        return step

    def items(self) -> list[Event]:
        """What it put out so far."""
        opened = [message for message in self.messages if message.opened]
        return [message.ended or message.item("completed") for message in opened] + self.output

    def resource(self, details: Event | None, output: list[Event]) -> Event:
        """It as the ``response`` object of an event."""
        metadata, conversation = self.request.get("metadata"), "conv_simulated"
        return realtime_wire.response(
            self.id, self.status, details, output, metadata, conversation_id=conversation
        )

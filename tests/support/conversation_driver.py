"""A conversation with everything around it recorded: what it had done, what it told the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from agent.audio.generation import Generation
from agent.audio.level_meter import LevelMeter
from agent.call.commands import (
    CallTool,
    Command,
    Commands,
    Complete,
    GiveUp,
    Interrupt,
    RateLimited,
    RenewSession,
    Speak,
    ToModel,
    Withdraw,
)
from agent.call.conversation import Conversation
from agent.call.memory.transcript import Transcript
from agent.call.turns.barge_in import BargeInPolicy
from agent.call.turns.own_ear import OwnEar
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.core.units import BYTES_PER_MS, FRAME_MS, FRAME_S, ItemId, ResponseId
from agent.model import events as model
from agent.playout import PlayoutClock

LOUD = bytes([0x00, 0x80]) * 80
"""A frame at full scale."""


@attrs.define(eq=False)
class Done:
    """What a conversation had done, by kind."""

    told: list[dict[str, Any]] = attrs.field(factory=list)
    """What was sent to the model."""
    started: list[Generation] = attrs.field(factory=list)
    completed: list[Generation] = attrs.field(factory=list)
    interrupted: list[tuple[Generation, ...]] = attrs.field(factory=list)
    tools: list[model.FunctionCallDone] = attrs.field(factory=list)
    gave_up: list[str] = attrs.field(factory=list)
    renewed: list[str] = attrs.field(factory=list)
    limited_s: list[float] = attrs.field(factory=list)
    steps: int = 0

    def carry_out(self, commands: Sequence[Command]) -> None:
        """Take the commands of one step."""
        self.steps += 1
        for command in commands:
            self.do(command)

    def do(self, command: Command) -> None:
        """Keep one command."""
        match command:
            case ToModel(message):
                self.told.append(msgspec.json.decode(message))
            case Speak(generation):
                self.started.append(generation)
            case Complete(generation):
                self.completed.append(generation)
            case Interrupt(generations):
                self.interrupted.append(generations)
            case Withdraw(generation):
                self.interrupted.append((generation,))
            case CallTool(call):
                self.tools.append(call)
            case GiveUp(reason):
                self.gave_up.append(reason)
            case RateLimited(wait_s):
                self.limited_s.append(wait_s)
            case RenewSession(reason):
                self.renewed.append(reason)


@attrs.define(eq=False)
class Talk:
    """One conversation in which the test is the model, the pacer and the clock."""

    protect_ms: int = 500
    max_answer_ms: int = 300_000
    now: float = 0.0
    did: Done = attrs.field(factory=Done)
    conversation: Conversation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(
            commands=Commands(self.did.carry_out),
            playout=PlayoutClock(),
            events=EventLog(Telemetry()),
            policy=BargeInPolicy(self.protect_ms),
            transcript=Transcript(0.0),
            ear=OwnEar(LevelMeter()),
            max_answer_ms=self.max_answer_ms,
        )
        self.conversation.session_ready()

    def next_session(self) -> None:
        """The session is lost, and another one confirms its settings."""
        self.conversation.session_lost()
        self.conversation.session_ready()

    # The model says

    def event(self, event: model.ModelEvent) -> None:
        """The model sends an event, now."""
        if isinstance(event, model.AudioDelta):
            self.conversation.audio(event)
        else:
            self.conversation.model_event(event, self.now)

    def created(self, response: str, purpose: str = "") -> None:
        """A response begins."""
        self.event(model.ResponseCreated(ResponseId(response), purpose))

    def audio(self, response: str, ms: int, item: str = "") -> None:
        """Audio for an item of a response; the item is named after the response unless said otherwise."""
        item_id = ItemId(item or f"item of {response}")
        self.event(model.AudioDelta(ResponseId(response), item_id, 0, b"\x11" * (ms * BYTES_PER_MS)))

    def text(self, response: str, text: str, item: str = "") -> None:
        """Text for an item of a response."""
        self.event(model.TranscriptDelta(ResponseId(response), ItemId(item or f"item of {response}"), text))

    def done(self, response: str, status: str = "completed", reason: str = "") -> None:
        """A response is over."""
        self.event(model.ResponseDone(ResponseId(response), status, reason, ""))

    def answer(self, response: str, ms: int, text: str = "", purpose: str = "") -> None:
        """A whole answer, generated faster than it is spoken."""
        self.created(response, purpose)
        if text:
            self.text(response, text)
        self.audio(response, ms)
        self.done(response)

    def starts(self, item: str = "caller 1") -> None:
        """The model hears the caller begin."""
        self.event(model.SpeechStarted(ItemId(item)))

    def commits(self, item: str = "caller 1", text: str = "") -> None:
        """The model hears the caller end, commits the turn and transcribes it."""
        self.event(model.SpeechStopped(ItemId(item), 0))
        self.event(model.InputCommitted(ItemId(item)))
        if text:
            self.event(model.InputTranscribed(ItemId(item), text))

    # The pacer and the carrier do

    def play(self, ms: int) -> None:
        """The pacer sends what is due, a frame each 20 ms, and the caller hears it."""
        for _ in range(ms // FRAME_MS):
            speaking = [generation for generation in self.conversation.live if generation.owed_frames]
            if speaking:
                generation = speaking[0]
                generation.slicer.pop()
                if generation.first_frame_s is None:
                    generation.first_frame_s = self.now
                    self.conversation.first_frame(generation, self.now)
                generation.sent_frames += 1
                owed = sum(waiting.owed_frames for waiting in self.conversation.live)
                self.conversation.playout.frame_sent(generation.id, self.now, owed)
            self.now += FRAME_S
            for generation in self.conversation.live:
                if generation.slicer.exhausted:
                    self.conversation.heard_to_end(generation)

    def clears(self) -> None:
        """The pacer wrote the clear it was asked for."""
        self.conversation.playout.clear_sent(self.now)
        self.conversation.truncation.cleared(self.now)

    def pause(self, seconds: float) -> None:
        """Time passes; what is due is looked at when it is due."""
        until = self.now + seconds
        while (due := self.conversation.due(self.now)) is not None and due <= until:
            self.now = max(due, self.now)
        self.now = until
        self.conversation.due(self.now)

    # What was told

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type that the model was sent."""
        return [event for event in self.did.told if event["type"] == kind]

    @property
    def cancelled(self) -> list[str]:
        """The responses cancelled, in order."""
        return [event["response_id"] for event in self.told("response.cancel")]

    @property
    def truncated(self) -> dict[str, int]:
        """Each item that was cut off and the milliseconds of it that were heard: none of one that was deleted."""
        ends = {event["item_id"]: event["audio_end_ms"] for event in self.told("conversation.item.truncate")}
        return ends | {event["item_id"]: 0 for event in self.told("conversation.item.delete")}

    @property
    def asked(self) -> list[str]:
        """What answers were requested for, in order."""
        return [event["response"]["metadata"]["purpose"] for event in self.told("response.create")]

    def count(self, event: str) -> int:
        """How often an event was counted."""
        return self.conversation.events.counts[event]

"""The model's leg of one call: what its sessions are told, and what becomes of what they say."""

from datetime import UTC, datetime
from typing import Any, Final

import attrs
import trio
from typing_extensions import override

from agent.audio.generation import Purpose
from agent.call.call_clock import CallClock
from agent.call.conversation import Conversation
from agent.call.state import CallState
from agent.call.tools.declare import Tool
from agent.model import events as model
from agent.model.session import SessionUser
from agent.tx_scheduler import TxScheduler

GREETING_REQUEST: Final = "Say exactly, and nothing else: "


@attrs.define(eq=False)
class ModelLeg(SessionUser):
    """Between the sessions of one call and its conversation."""

    state: CallState
    conversation: Conversation
    pacer: TxScheduler
    tools: tuple[Tool, ...]
    clock: CallClock
    _greeted: bool = False
    """The greeting was begun: a later session is not asked for it."""

    @override
    def settings(self) -> dict[str, Any]:
        state = self.state
        session = state.services.session_of(state.tenant, self.tools, datetime.now(UTC), state.leg.format)
        self.conversation.response_requests.instructions = session["instructions"]
        return session

    @override
    def ready(self) -> list[str]:
        """What was said so far, and the greeting if it is due."""
        conversation = self.conversation
        conversation.session_ready()
        said = conversation.replay()
        greeting = self.state.services.greeting_of(self.state.tenant)
        if greeting and not self._greeted and not said:
            said.append(conversation.response_requests.request(Purpose.GREETING, GREETING_REQUEST + greeting))
        return said

    @override
    def on_audio(self, event: model.AudioDelta) -> None:
        generation = self.conversation.audio(event)
        if generation is not None:
            self._greeted = self._greeted or generation.purpose is Purpose.GREETING
            self.pacer.audio_waits(generation)

    @override
    def on_event(self, event: model.ModelEvent) -> None:
        if isinstance(event, model.SpeechStarted):
            self.clock.caller_spoke()
        self.conversation.model_event(event, trio.current_time())

    @override
    def lost(self) -> None:
        self.conversation.session_lost()

    @override
    def next_event_id(self) -> str:
        return self.conversation.response_requests.next_event_id()

    @property
    @override
    def quiet(self) -> bool:
        return self.conversation.quiet

    @property
    @override
    def answer_due(self) -> bool:
        return self.conversation.turns.busy

    @property
    @override
    def unheard_voice(self) -> bool:
        return self.conversation.ear.unnoticed_words

"""The model's answers in one call: what it says about them, and what is being spoken. Pure.

An answer is a ``Response`` while the provider generates it and a ``Generation`` while the caller may hear it.
"""

from typing import Any, Final

import attrs

from agent.audio.frames import FrameSlicer
from agent.audio.generation import Generation, Purpose
from agent.audio.waiting_tone import waiting_tone
from agent.call.answers.response_requests import ResponseRequests
from agent.call.answers.responses import Response, ResponseTracker, Stage
from agent.call.answers.truncation import TruncationLedger
from agent.call.bounds import TalkBounds
from agent.call.commands import CallTool, Commands, Complete, RenewSession, Speak, ToModel, Withdraw
from agent.call.tools.declare import LEAVES
from agent.call.turns.greeted_turn import GreetedTurns
from agent.core.audio_format import AudioFormat
from agent.core.errors import GenerationTooLongError
from agent.core.event_log import EventLog
from agent.core.units import GenerationId, ItemId, ResponseId
from agent.model import events as model
from agent.model import requests
from agent.model.errors import Severity, severity

_PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}


@attrs.define(eq=False)
class Answers:
    """All answers of one call; ``live`` are those that are not heard to their end, in speaking order."""

    commands: Commands
    turns: ResponseTracker
    requests: ResponseRequests
    truncation: TruncationLedger
    greeted: GreetedTurns
    events: EventLog
    format: AudioFormat
    max_answer_ms: int
    bounds: TalkBounds
    live: list[Generation] = attrs.field(factory=list)
    _last_id: int = 0

    # What the model says

    def created(self, event: model.ResponseCreated, now: float, *, caller_speaking: bool) -> None:
        """A response begins: it is spoken, or cancelled at its birth."""
        purpose = _PURPOSES.get(event.purpose)
        response = self.turns.created(event.response_id, purpose, caller_speaking=caller_speaking)
        if response is None:
            self.events.emit("DUPLICATE_RESPONSE", "warning", response_id=event.response_id)
            return
        self.bounds.response()
        self.greeted.answered(response)
        if response.stage is Stage.CANCELLED:
            self.events.emit("CANCELLED_AT_BIRTH", response_id=event.response_id)
            self.cancel(event.response_id)
        else:
            response.generation = self._begin(event.response_id, response.purpose, now)

    def audio(self, event: model.AudioDelta) -> Generation | None:
        """Audio of an answer goes to its slicer; the generation that has more to say now, if one has."""
        generation = self._generation(event.response_id)
        if generation is None or not generation.live or (generation.closed and not generation.overflowed):
            self.events.count("STALE_DELTA")
            if generation is not None:
                self.truncation.came_late(generation, event.item_id, event.content_index)
            return None
        if generation.overflowed:
            self.events.count("DELTA_OVER_LIMIT")
            return None
        generation.accept(event.item_id, event.content_index, event.audio)
        if generation.received_ms > self.max_answer_ms:
            self._end_overlong(generation)
        return generation

    def text(self, event: model.TranscriptDelta) -> None:
        """Words of an answer; they may run ahead of its audio."""
        generation = self._generation(event.response_id)
        if generation is not None and (generation.live or generation.parts):
            generation.part_of(event.item_id).text += self.bounds.keep(event.text)

    def item_added(self, event: model.OutputItemAdded) -> None:
        """An item of an answer; that of a tool's use has the tool's name, which its event may lack."""
        if event.name:
            self.turns.session.tool_names[event.item_id] = event.name

    def tool_called(self, event: model.FunctionCallDone) -> None:
        """An answer wants a tool: it is run once the answer is done; one that is cut may not mean it."""
        response = self.turns.session.responses.get(event.response_id)
        if response is None or response.generation is None or not response.generation.live:
            self.events.emit("STALE_TOOL_CALL", "warning", tool=event.name)
            return
        name = event.name or self.turns.session.tool_names.get(event.item_id, "")
        call = attrs.evolve(event, name=name)
        if response.stage is Stage.OVER and response.generation.response_done:
            self.commands.add(CallTool(call))
        else:
            response.tool_calls.append(call)

    def done(self, event: model.ResponseDone, now: float) -> None:
        """A response is over: whole, cut short, or failed."""
        response = self.turns.done(event.response_id, now)
        generation, completed, goes_on = response.generation, event.status == "completed", False
        if generation is not None:
            generation.response_done = completed
            if generation.live:
                self.complete(generation)
                goes_on = self._run_tools(response, completed=completed)
        if event.status == "failed":
            self.requests.failed(response.purpose, event.reason, event.message, now)
            self._sound_busy(now)
        elif completed:
            self.requests.succeeded()
        elif event.status == "incomplete" and generation and not (generation.received_bytes or goes_on):
            self.requests.failed(response.purpose, event.reason, "an answer without a sound", now)

    def error(self, event: model.ErrorEvent, now: float) -> None:
        """The provider refuses something of ours, or fails."""
        grade = severity(event.kind, event.code)
        level: Any = "info" if grade is Severity.IGNORABLE else "error"
        self.events.emit(
            "MODEL_ERROR", level, severity=grade.value, code=event.code or event.kind, message=event.message
        )
        if grade is Severity.FATAL:
            self.requests.give_up(event.message)
        elif grade is Severity.RECONNECT:
            self.commands.add(RenewSession(event.code))
        else:
            self.requests.refused(event, grade, now)
            self._sound_busy(now)

    # What becomes of them

    def say(self, audio: bytes, words: str, now: float) -> Generation:
        """Speak bundled audio ourselves, without the model; without ``words`` it is a tone, and no turn."""
        generation = self._begin(ResponseId(""), Purpose.PROMPT, now)
        generation.response_done = True
        generation.accept(ItemId("prompt"), 0, audio)
        generation.part_of(ItemId("prompt")).text = words
        self.complete(generation)
        return generation

    def complete(self, generation: Generation) -> None:
        """No more audio of it is taken; what there is, is spoken."""
        generation.close()
        self.commands.add(Complete(generation))

    def cancel(self, response_id: ResponseId) -> None:
        """Send ``response.cancel``: the step of the response's table says that it is time."""
        self.commands.add(ToModel(requests.encode_response_cancel(response_id, self.requests.next_event_id())))

    def take_back(self, response: Response, now: float) -> None:
        """Nobody wants this answer, and nobody is interrupted: unless it is heard already, it never will be."""
        if response.id and self.turns.cancel(response.id):
            self.cancel(response.id)
        generation = response.generation
        if generation is not None and generation.first_frame_s is None and generation in self.live:
            generation.cancel(now)
            self.live.remove(generation)
            self.commands.add(Withdraw(generation))
            self.truncation.withdrawn(generation)

    def session_lost(self) -> None:
        """The session is gone: its answers end where they are."""
        for generation in self.live:
            self.complete(generation)

    def _begin(self, response_id: ResponseId, purpose: Purpose, now: float) -> Generation:
        self._last_id += 1
        slicer = FrameSlicer(self.format)
        generation = Generation(GenerationId(self._last_id), response_id, purpose, now, slicer=slicer)
        self.live.append(generation)
        self.commands.add(Speak(generation))
        return generation

    def _generation(self, response_id: ResponseId) -> Generation | None:
        response = self.turns.session.responses.get(response_id)
        return response.generation if response is not None else None

    def _end_overlong(self, generation: Generation) -> None:
        """One answer passed the limit of buffered audio: it ends there, the call goes on (TX-7)."""
        generation.overflowed = True
        error = GenerationTooLongError(f"an answer of over {self.max_answer_ms} ms was ended")
        self.events.emit("GENERATION_TOO_LONG", "error", error=str(error), response_id=generation.response_id)
        if self.turns.cancel(generation.response_id):
            self.cancel(generation.response_id)
        self.complete(generation)

    def _run_tools(self, response: Response, *, completed: bool) -> bool:
        """Run what an answer wants done, and say whether there is anything: the model goes on after it.

        An answer that was cut short by the provider did not mean to leave.
        """
        meant = [call for call in response.tool_calls if completed or call.name not in LEAVES]
        for call in response.tool_calls:
            if call in meant:
                self.commands.add(CallTool(call))
            else:
                self.events.emit("INCOMPLETE_LEAVE_IGNORED", "warning", tool=call.name)
        return bool(meant)

    def _sound_busy(self, now: float) -> None:
        """While the provider limits the rate, the caller hears a tone that asks to wait in any language."""
        wait_s = self.requests.wait_s
        speaks = any(generation.received_bytes for generation in self.live)
        if wait_s and not speaks and not self.requests.departure.final:
            self.say(waiting_tone(round(wait_s * 1000), self.format), "", now)

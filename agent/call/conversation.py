"""One call's conversation: what each event of the model means, and what is to be done about it.

Synchronous and without I/O: every method runs to its end before any other task looks, so there are no locks and
no half-made decisions. What is to be done goes out through ``Effects``; time comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs

from agent.audio.generation import Generation, Purpose
from agent.audio.level_meter import LevelMeter
from agent.call.barge_in import PROTECT_CHECK_S, BargeInPolicy, SpeechStart
from agent.call.replay import Replay
from agent.call.response_requests import Addressee, ResponseRequests
from agent.call.responses import ResponseTracker
from agent.call.transcript import Transcript
from agent.call.truncation import TruncationLedger
from agent.core.errors import GenerationTooLongError
from agent.core.event_log import EventLog
from agent.core.units import GenerationId, ItemId, ResponseId
from agent.model import events as model
from agent.model import requests
from agent.model.errors import Severity, severity
from agent.playout import PlayoutClock

_PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}


class Effects(Addressee, Protocol):
    """What a decision makes happen. All synchronous; none may block or raise."""

    def start_generation(self, generation: Generation) -> None:
        """Give the generation its scope and its task, and let it speak after those before it."""

    def feed(self, generation: Generation, audio: bytes) -> None:
        """Hand audio to the generation's task."""

    def complete(self, generation: Generation) -> None:
        """No more audio comes for the generation."""

    def interrupt(self, generations: tuple[Generation, ...]) -> None:
        """Cancel the scopes of these generations and have the carrier clear what it holds."""

    def call_tool(self, call: model.FunctionCallDone) -> None:
        """Run a tool as a guest of the call."""

    def renew_session(self, reason: str) -> None:
        """This session with the model is over: open another."""


@attrs.define(eq=False)
class Conversation:
    """The state of one call between the carrier's playback and the model's events."""

    effects: Effects
    playout: PlayoutClock
    events: EventLog
    policy: BargeInPolicy
    transcript: Transcript
    meter: LevelMeter
    max_answer_ms: int
    endpoint_ms: int = 0
    """Silence the model waits for at the end of a turn: the ``audio_end_ms`` it reports includes it."""
    turns: ResponseTracker = attrs.field(factory=ResponseTracker)
    barge_in_events: int = 0
    frames_dropped: int = 0
    turn_latencies_ms: list[int] = attrs.field(factory=list)
    caller_quiet_since: float | None = None
    """When the caller's last speech really ended, end-pointing silence taken off; None once it is answered."""
    appended_ms: int = 0
    """Caller audio given to the model in this session: its clock for speech events."""
    barged_in_s: float = 0.0
    response_requests: ResponseRequests = attrs.field(init=False)
    truncation: TruncationLedger = attrs.field(init=False)
    _generations: dict[ResponseId, Generation] = attrs.field(factory=dict)
    _live: list[Generation] = attrs.field(factory=list)
    _replay: Replay = attrs.field(init=False)
    _last_id: int = 0

    def __attrs_post_init__(self) -> None:
        self.response_requests = ResponseRequests(self.effects, self.turns, self.events)
        self._replay = Replay(self.transcript.live, self.response_requests.next_event_id)
        self.transcript.on_turn = self._replay.turn
        self.truncation = TruncationLedger(
            self.playout, self.transcript, self.effects.to_model, self.response_requests.next_event_id
        )

    # What others ask

    @property
    def live(self) -> tuple[Generation, ...]:
        """Generations that are not heard to their end, in speaking order."""
        return tuple(self._live)

    @property
    def idle(self) -> bool:
        """Whether nobody speaks, nothing is owed, and no answer is underway."""
        return not (self._live or self.policy.caller_speaking or self.turns.busy or self.turns.owes_answer)

    def greeting_heard_ms(self, now: float) -> int | None:
        """Heard of the greeting while it is the only thing live, else None."""
        if len(self._live) == 1 and self._live[0].purpose is Purpose.GREETING:
            return self.playout.heard_ms(self._live[0].id, now)
        return None

    # What we say

    def tell(self, text: str, now: float) -> None:
        """Tell the model something the caller did without words, and ask for an answer to it."""
        self.effects.to_model(self._replay.told(text, now))
        self.response_requests.ask_when_free(Purpose.KEYS)

    def say(self, audio: bytes, now: float) -> Generation:
        """Speak bundled audio ourselves, without the model."""
        generation = self._new_generation(ResponseId(""), Purpose.PROMPT, now)
        generation.response_done = True
        generation.accept(ItemId("prompt"), 0, audio)
        self.effects.feed(generation, audio)
        self._complete(generation)
        return generation

    # What the model says

    def model_event(self, event: model.ModelEvent, now: float) -> None:
        """Take one event. Unknown ones are counted and ignored."""
        handle = _HANDLERS.get(type(event))
        if handle is None:
            return
        handle(self, event, now)

    def _speech_started(self, event: model.SpeechStarted, now: float) -> None:
        self.transcript.caller_started(event.item_id, now)
        greeting_heard_ms = self.greeting_heard_ms(now)
        audible = self.playout.audible(now)
        decision = self.policy.speech_started(
            now, speaking=bool(self._live) or self.turns.busy, greeting_heard_ms=greeting_heard_ms
        )
        self.events.emit(
            "SPEECH_STARTED", decision=decision.value, **self.playout.status(now), **self.meter.snapshot()
        )
        if decision is SpeechStart.INTERRUPT:
            self._interrupt(now, audible=audible)

    def due_interruption(self, now: float) -> float | None:
        """Decide what is due; returns when to look next, or None for not before the next event."""
        if self.policy.protecting:
            decision = self.policy.due_interruption(
                greeting_heard_ms=self.greeting_heard_ms(now), voiced=self.meter.voiced
            )
            if decision is SpeechStart.INTERRUPT:
                self._interrupt(now, audible=True)
            if self.policy.protecting:
                return now + PROTECT_CHECK_S
        if self.response_requests.given_up:
            return None
        if self.turns.answer_due(now, caller_speaking=self.policy.caller_speaking):
            self.events.emit("TURN_RECOVERED")
            self.response_requests.ask(Purpose.TURN)
        return None if self.policy.caller_speaking else self.turns.owed_at

    def _interrupt(self, now: float, *, audible: bool) -> None:
        """Barge-in: nothing that is not heard to its end goes on (DESIGN D4)."""
        generations = self.live
        dropped = sum(generation.cancel(now) for generation in generations)
        self.frames_dropped += dropped
        for generation in generations:
            generation.interrupted = True
        self._live.clear()
        self.truncation.cut_off(generations)
        self.playout.cancelled(now)
        if generations:
            self.barged_in_s = now
            self.effects.interrupt(generations)
        cancelled = self.turns.barge_in()
        for response_id in cancelled:
            self._cancel_response(response_id)
        # A second start while the first one's clear is under way finds nothing left to interrupt.
        barge_in = audible and bool(generations)
        self.barge_in_events += barge_in
        self.events.emit(
            "BARGE_IN" if barge_in else "ANSWER_WITHDRAWN",
            response_ids=cancelled,
            generations=[generation.id for generation in generations],
            frames_dropped=dropped,
            **self.meter.snapshot(),
        )

    def _cancel_response(self, response_id: ResponseId) -> None:
        self.effects.to_model(
            requests.encode_response_cancel(response_id, self.response_requests.next_event_id())
        )

    def _speech_stopped(self, event: model.SpeechStopped, now: float) -> None:
        self.policy.speech_stopped()
        spoken_ago_ms = max(self.appended_ms - event.audio_end_ms, 0) + self.endpoint_ms
        self.caller_quiet_since = now - min(spoken_ago_ms / 1000, 5.0)
        self.transcript.caller_stopped(event.item_id, self.caller_quiet_since)

    def _committed(self, event: model.InputCommitted, now: float) -> None:
        self.policy.speech_stopped()
        self.transcript.caller_committed(event.item_id, self.caller_quiet_since or now)
        self.turns.committed(now)

    def _transcribed(self, event: model.InputTranscribed, now: float) -> None:
        self.transcript.caller_said(event.item_id, event.transcript, now)

    def _created(self, event: model.ResponseCreated, now: float) -> None:
        purpose = _PURPOSES.get(event.purpose)
        new_response = self.turns.created(event.response_id, purpose, caller_speaking=self.policy.caller_speaking)
        if new_response is None:
            self.events.emit("DUPLICATE_RESPONSE", "warning", response_id=event.response_id)
        elif new_response.unwanted:
            self.events.emit("CANCELLED_AT_BIRTH", response_id=event.response_id)
            if self.turns.cancel(event.response_id):
                self._cancel_response(event.response_id)
        else:
            self._generations[event.response_id] = self._new_generation(
                event.response_id, new_response.purpose, now
            )

    def _new_generation(self, response_id: ResponseId, purpose: Purpose, now: float) -> Generation:
        self._last_id += 1
        generation = Generation(GenerationId(self._last_id), response_id, purpose, now)
        self._live.append(generation)
        self.effects.start_generation(generation)
        return generation

    def _complete(self, generation: Generation) -> None:
        generation.closed = True
        self.effects.complete(generation)

    def _audio(self, event: model.AudioDelta, _now: float) -> None:
        generation = self._generations.get(event.response_id)
        if generation is None or not generation.live or (generation.closed and not generation.overflowed):
            self.events.count("STALE_DELTA")
            if generation is not None:
                self.truncation.came_late(generation, event.item_id, event.content_index)
            return
        if generation.overflowed:
            self.events.count("DELTA_OVER_LIMIT")
            return
        generation.accept(event.item_id, event.content_index, event.audio)
        self.effects.feed(generation, event.audio)
        if generation.received_ms > self.max_answer_ms:
            self._end_overlong(generation)

    def _end_overlong(self, generation: Generation) -> None:
        """One answer passed the limit of buffered audio: it ends there, the call goes on (TX-7)."""
        generation.overflowed = True
        error = GenerationTooLongError(f"an answer of over {self.max_answer_ms} ms was ended")
        self.events.emit("GENERATION_TOO_LONG", "error", error=str(error), response_id=generation.response_id)
        if self.turns.cancel(generation.response_id):
            self._cancel_response(generation.response_id)
        self._complete(generation)

    def _text(self, event: model.TranscriptDelta, _now: float) -> None:
        generation = self._generations.get(event.response_id)
        if generation is not None and (generation.live or generation.parts):
            generation.part_of(event.item_id).text += event.text

    def _tool_called(self, event: model.FunctionCallDone, _now: float) -> None:
        generation = self._generations.get(event.response_id)
        if generation is None or not generation.live:
            self.events.emit("STALE_TOOL_CALL", "warning", tool=event.name)
            return
        self.effects.call_tool(event)

    def _done(self, event: model.ResponseDone, now: float) -> None:
        self.turns.done(event.response_id, now)
        generation = self._generations.get(event.response_id)
        if generation is not None:
            generation.response_done = event.status == "completed"
            if generation.live:
                self._complete(generation)
        if event.status == "failed":
            purpose = generation.purpose if generation is not None else Purpose.ANSWER
            self.response_requests.failed(purpose, event.reason, event.message, now)
        elif event.status == "completed":
            self.response_requests.succeeded()

    def _error(self, event: model.ErrorEvent, now: float) -> None:
        if self.truncation.refused(event.event_id):
            return
        grade = severity(event.kind, event.code)
        level: Any = "info" if grade is Severity.IGNORABLE else "error"
        self.events.emit(
            "MODEL_ERROR", level, severity=grade.value, code=event.code or event.kind, message=event.message
        )
        if grade is Severity.FATAL:
            self.response_requests.give_up(event.message)
        elif grade is Severity.RECONNECT:
            self.effects.renew_session(event.code)
        else:
            self.response_requests.refused(event, grade, now)

    # What playback and the session say

    def first_frame(self, generation: Generation, now: float) -> int | None:
        """The first frame of an answer left; returns the latency of the turn it answers, if it answers one."""
        if generation.purpose not in (Purpose.ANSWER, Purpose.TURN) or self.caller_quiet_since is None:
            return None
        latency_ms = round((now - self.caller_quiet_since) * 1000)
        self.caller_quiet_since = None
        self.turn_latencies_ms.append(latency_ms)
        return latency_ms

    def heard_to_end(self, generation: Generation) -> None:
        """The caller heard the last frame of a generation."""
        if generation in self._live:
            self._live.remove(generation)
        self.truncation.heard_to_end(generation)
        self.events.count("ANSWER_HEARD")

    def session_lost(self) -> None:
        """The model's socket is gone: its answers end where they are; what the caller is owed stays owed."""
        for generation in self.live:
            if generation.purpose is Purpose.GREETING and not generation.received_bytes:
                self.turns.withdraw(generation.response_id)
            self._complete(generation)
        self.truncation.session_lost(self._live)
        self.turns.session_lost()
        self.policy.speech_stopped()
        self.response_requests.session_lost()
        self.appended_ms = 0
        self._generations.clear()

    def replay(self) -> list[str]:
        """What tells a new session all that was said and heard so far, and what is still to be heard."""
        return self._replay.messages(
            (generation.first_frame_s or generation.created_s, generation.received_text)
            for generation in self._live
        )

    def end(self, now: float) -> None:
        """The call is over: what was still live ends as heard up to now."""
        for generation in self.live:
            generation.cancel(now)
            self.truncation.ended_with_call(generation, now)
        self._live.clear()
        self.truncation.cleared(now)


_HANDLERS: Final[Mapping[type, Callable[[Conversation, Any, float], None]]] = {
    model.AudioDelta: Conversation._audio,  # noqa: SLF001 - the class's own table
    model.TranscriptDelta: Conversation._text,  # noqa: SLF001
    model.SpeechStarted: Conversation._speech_started,  # noqa: SLF001
    model.SpeechStopped: Conversation._speech_stopped,  # noqa: SLF001
    model.InputCommitted: Conversation._committed,  # noqa: SLF001
    model.InputTranscribed: Conversation._transcribed,  # noqa: SLF001
    model.ResponseCreated: Conversation._created,  # noqa: SLF001
    model.ResponseDone: Conversation._done,  # noqa: SLF001
    model.FunctionCallDone: Conversation._tool_called,  # noqa: SLF001
    model.ErrorEvent: Conversation._error,  # noqa: SLF001
}

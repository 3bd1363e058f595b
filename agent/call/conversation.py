"""One call's conversation: what each event of the model means, and what is to be done about it.

Synchronous and without I/O: every method runs to its end before any other task looks, so there are no locks and
no half-made decisions. What is to be done goes out through ``Effects``; time comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, Protocol

import attrs

from agent.audio.generation import Generation, Purpose
from agent.audio.level_meter import LevelMeter
from agent.audio.waiting_tone import waiting_tone
from agent.call.barge_in import PROTECT_CHECK_S, BargeInPolicy, SpeechStart
from agent.call.greeted_turn import WORDS_S, GreetedTurn
from agent.call.leaving import Departure
from agent.call.replay import Replay
from agent.call.response_requests import Addressee, ResponseRequests
from agent.call.responses import Debt, Response, ResponseTracker, Stage, Step
from agent.call.small_talk import has_substance
from agent.call.tools.declare import LEAVES
from agent.call.transcript import Transcript
from agent.call.truncation import TruncationLedger
from agent.core.errors import GenerationTooLongError
from agent.core.event_log import EventLog
from agent.core.records import Outcome
from agent.core.units import FRAME_MS, GenerationId, ItemId, ResponseId
from agent.model import events as model
from agent.model import requests
from agent.model.errors import Severity, severity
from agent.playout import PlayoutClock

_PURPOSES: Final = {purpose.value: purpose for purpose in Purpose}
OWN_EAR_MS: Final = 200
"""Voice that interrupts an answer by our own ear, while no session is there to hear it."""
VOICE_MS: Final = 400
"""Voice by our own ear that is taken for words, should the model not say so."""
APOLOGY_WAITS_MS: Final = 1500
"""What an answer may still have to say before an apology: one that has more is cut off."""
FRESH_S: Final = 0.3
"""How old the last audio of the caller may be for our own ear to say anything."""
NOISE_S: Final = 20.0
"""Speech that the model hears for so long, and our own ear does not, is steady noise."""


class Effects(Addressee, Protocol):
    """What a decision makes happen. All synchronous; none may block or raise."""

    def start_generation(self, generation: Generation) -> None:
        """Give the generation its scope and its task, and let it speak after those before it."""

    def audio_waits(self, generation: Generation) -> None:
        """The generation has new audio in its slicer, or is complete: the pacer may have to be woken."""

    def interrupt(self, generations: tuple[Generation, ...]) -> None:
        """Cancel the scopes of these generations and have the carrier clear what it holds."""

    def withdraw(self, generation: Generation) -> None:
        """Cancel the scope of a generation of which nothing was sent."""

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
    unanswered_voice_from: int = 0
    """Voiced frames of the caller, by our own ear, when the model was last heard from."""
    barge_in_events: int = 0
    frames_dropped: int = 0
    turn_latencies_ms: list[int] = attrs.field(factory=list)
    caller_quiet_since: float | None = None
    """When the caller's last speech really ended, end-pointing silence taken off; None once it is answered."""
    barged_in_s: float = 0.0
    caller_heard_s: float = -inf
    """When audio of the caller last came."""
    language: str = ""
    """Of the caller, a BCP 47 tag; empty: unknown."""
    departure: Departure | None = None
    """Why the call is about to end; None while it stays."""
    response_requests: ResponseRequests = attrs.field(init=False)
    truncation: TruncationLedger = attrs.field(init=False)
    _greeted_turn: GreetedTurn | None = None
    """The caller's turn that the greeting may settle."""
    _unwanted_answer: bool = False
    """The provider's next answer of its own is to a turn that the greeting settled."""
    _greeting_done: bool = False
    """The protected part of the greeting was heard, or there is none."""
    _live: list[Generation] = attrs.field(factory=list)
    _replay: Replay = attrs.field(init=False)
    _last_id: int = 0

    def __attrs_post_init__(self) -> None:
        self.response_requests = ResponseRequests(self.effects, self.turns, self.events)
        self.truncation = TruncationLedger(self.playout, self.transcript, self.response_requests)
        self._replay = Replay(self.transcript.live, self.response_requests.next_event_id)
        self.transcript.on_turn = self._replay.turn

    # What others ask

    @property
    def live(self) -> tuple[Generation, ...]:
        """Generations that are not heard to their end, in speaking order."""
        return tuple(self._live)

    @property
    def idle(self) -> bool:
        """Whether nobody speaks, nothing is owed, and no answer is underway."""
        return not (self._live or self.policy.caller_speaking or self.turns.busy or self.turns.owes_answer)

    @property
    def unheard_voice_ms(self) -> int:
        """Voice of the caller, by our own ear, since the model was last heard from."""
        return (self.meter.voiced_total - self.unanswered_voice_from) * FRAME_MS

    def voiced(self, now: float) -> bool:
        """Whether our own ear hears the caller speak; it is deaf while the carrier sends nothing."""
        return self.meter.voiced and now - self.caller_heard_s < FRESH_S

    def caller_holds_the_floor(self, now: float) -> bool:
        """Whether the caller speaks, by the model's ear or ours. Steady noise does not count for ever."""
        since = self.policy.speaking_since
        return self.voiced(now) or (since is not None and now - since < NOISE_S)

    def greeting_heard_ms(self, now: float) -> int | None:
        """Heard of the greeting while it is the only thing live, else None."""
        if len(self._live) == 1 and self._live[0].purpose is Purpose.GREETING:
            return self.playout.heard_ms(self._live[0].id, now)
        return None

    # What we say

    def tell(self, text: str, now: float) -> None:
        """Tell the model something the caller did without words, and ask for an answer to it."""
        self.response_requests.tell(self._replay.told(text, now))
        self.response_requests.ask_when_free(Purpose.KEYS)

    def answer_tool(self, call: model.FunctionCallDone, output: str, now: float, *, answer: bool) -> None:
        """Give a tool's output to the session that asked for it, and have it go on if something is to be said."""
        self._replay.told(f"(You used the tool {call.name[:80]}; it answered: {output})", now)
        self.response_requests.tell(
            requests.encode_tool_output(call.call_id, output, self.response_requests.next_event_id())
        )
        if answer:
            self.response_requests.ask_when_free(Purpose.TOOL)

    def leave(self, outcome: Outcome, reason: str) -> Departure:
        """Begin to end the call; a speech start takes it back."""
        self.departure = Departure(outcome, reason)
        return self.departure

    def _stay(self) -> None:
        """The caller speaks: whoever is leaving stays."""
        if self.departure is not None and not self.departure.final:
            self.events.emit("LEAVING_TAKEN_BACK", reason=self.departure.reason)
            self.departure.taken_back = True
            self.departure = None

    def apologise(self, audio: bytes, reason: str, now: float) -> Departure:
        """The model is gone for good: say so in its stead. What it had begun is cut, unless it is nearly over."""
        self.departure = Departure(Outcome.MODEL_LOST, reason, final=True)
        if sum(generation.owed_frames for generation in self._live) * FRAME_MS > APOLOGY_WAITS_MS:
            self._interrupt(now, audible=False)
        for generation in self._live:
            self._complete(generation)
        self.say(audio, now)
        return self.departure

    def say(self, audio: bytes, now: float) -> Generation:
        """Speak bundled audio ourselves, without the model."""
        generation = self._new_generation(ResponseId(""), Purpose.PROMPT, now)
        generation.response_done = True
        generation.accept(ItemId("prompt"), 0, audio)
        self._complete(generation)
        return generation

    # What the model says

    def model_event(self, event: model.ModelEvent, now: float) -> None:
        """Take one event. Unknown ones are counted and ignored."""
        self.unanswered_voice_from = self.meter.voiced_total
        handle = _HANDLERS.get(type(event))
        if handle is None:
            return
        handle(self, event, now)

    def session_ready(self) -> None:
        """The provider confirmed the session's settings."""
        self.turns.session.ready = True

    def _speech_started(self, event: model.SpeechStarted, now: float) -> None:
        self._stay()
        self._unwanted_answer = False
        self.transcript.caller_started(event.item_id, now)
        self.turns.session.turn_open = True
        greeting_heard_ms = self.greeting_heard_ms(now)
        if self._greeting_is_new(greeting_heard_ms):
            self._greeted_turn = GreetedTurn(event.item_id, self.meter.voiced_total - self.meter.voiced_frames)
        audible = self.playout.audible(now)
        decision = self.policy.speech_started(
            now, speaking=bool(self._live) or self.turns.busy, greeting_heard_ms=greeting_heard_ms
        )
        self.events.emit(
            "SPEECH_STARTED", decision=decision.value, **self.playout.status(now), **self.meter.snapshot()
        )
        if decision is SpeechStart.INTERRUPT:
            self._interrupt(now, audible=audible)

    def _greeting_is_new(self, heard_ms: int | None) -> bool:
        """Whether the greeting is asked for or under way, and its protected part was not heard."""
        if self._greeting_done or self.transcript.any_caller_words:
            return False
        if heard_ms is not None:
            return heard_ms < self.policy.protect_ms
        return not self._live and any(
            response.purpose is Purpose.GREETING for response in self.turns.session.open
        )

    def due_interruption(self, now: float) -> float | None:
        """Decide what is due; returns when to look next, or None for not before the next event."""
        given_up, ready = self.response_requests.given_up, self.turns.session.ready
        if self._live and not (ready or given_up):
            return self._due_by_ear(now)
        if self.policy.protecting:
            decision = self.policy.due_interruption(
                greeting_heard_ms=self.greeting_heard_ms(now),
                voiced=self.voiced(now) and self.meter.voiced_now,
            )
            if decision is SpeechStart.INTERRUPT:
                self._interrupt(now, audible=True)
            if self.policy.protecting:
                return now + PROTECT_CHECK_S
        return None if given_up else self._due_answer(now)

    def _due_by_ear(self, now: float) -> float:
        """No session hears the caller: our own ear interrupts."""
        if self.voiced(now) and self.meter.voiced_frames * FRAME_MS >= OWN_EAR_MS:
            self._stay()
            self._interrupt(now, audible=self.playout.audible(now))
            self.turns.owe(Debt.NOW)
        return now + PROTECT_CHECK_S

    def _due_answer(self, now: float) -> float | None:
        turn = self._greeted_turn
        if turn is not None and turn.committed_s is not None:
            if now < turn.committed_s + WORDS_S:
                return turn.committed_s + WORDS_S
            self._settle_by_ear(turn, now)
        if self.turns.debt is Debt.NOW and self.turns.owed_at is not None and self.voiced(now):
            return now + PROTECT_CHECK_S  # the caller goes on, and the model has not heard it yet
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
        self._greeted_turn, self._greeting_done = None, True
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
        self.response_requests.tell(
            requests.encode_response_cancel(response_id, self.response_requests.next_event_id())
        )

    def _speech_stopped(self, event: model.SpeechStopped, now: float) -> None:
        self.policy.speech_stopped()
        spoken_ago_ms = max(self.turns.session.appended_ms - event.audio_end_ms, 0) + self.endpoint_ms
        self.caller_quiet_since = now - min(spoken_ago_ms / 1000, 5.0)
        self.transcript.caller_stopped(event.item_id, self.caller_quiet_since)

    def _committed(self, event: model.InputCommitted, now: float) -> None:
        self.policy.speech_stopped()
        self.turns.session.turn_open = False
        self.transcript.caller_committed(event.item_id, self.caller_quiet_since or now)
        turn = self._greeted_turn
        if turn is None or turn.item_id != event.item_id:
            self.turns.committed(now)
        else:
            turn.committed_s = now
            if not self.transcript.live:
                self._settle_by_ear(turn, now)
            # Else its words will say whether the greeting settles it.

    def _settle_by_ear(self, turn: GreetedTurn, now: float) -> None:
        self._settle_greeted(turn, now, substance=turn.has_substance(self.meter.voiced_total))

    def _not_transcribed(self, event: model.InputTranscriptionFailed, now: float) -> None:
        turn = self._greeted_turn
        if turn is not None and turn.item_id == event.item_id:
            self._settle_by_ear(turn, now)

    def _transcribed(self, event: model.InputTranscribed, now: float) -> None:
        self.transcript.caller_said(event.item_id, event.transcript, now)
        turn = self._greeted_turn
        if turn is not None and turn.item_id == event.item_id:
            self._settle_greeted(turn, now, substance=has_substance(event.transcript, self.language))

    def _settle_greeted(self, turn: GreetedTurn, now: float, *, substance: bool) -> None:
        """It is known whether a turn into the greeting wants an answer; one begun meanwhile may be withdrawn."""
        self._greeted_turn = None
        answer = turn.answer
        if substance:
            if answer is None:
                self.turns.committed(now)
            return
        self.events.emit("SETTLED_BY_GREETING")
        self._unwanted_answer = answer is None
        if answer is None:
            return
        if answer.id and self.turns.cancel(answer.id):
            self._cancel_response(answer.id)
        generation = answer.generation
        if generation is not None and generation.first_frame_s is None and generation in self._live:
            generation.cancel(now)
            self._live.remove(generation)
            self.effects.withdraw(generation)
            self.truncation.withdrawn(generation)

    def _created(self, event: model.ResponseCreated, now: float) -> None:
        purpose = _PURPOSES.get(event.purpose)
        response = self.turns.created(event.response_id, purpose, caller_speaking=self.policy.caller_speaking)
        if response is None:
            self.events.emit("DUPLICATE_RESPONSE", "warning", response_id=event.response_id)
            return
        if response.purpose is Purpose.ANSWER:
            if self._unwanted_answer:
                response.take(Step.CUT)
            elif self._greeted_turn is not None:
                self._greeted_turn.answer = response
            self._unwanted_answer = False
        if response.stage is Stage.CANCELLED:
            self.events.emit("CANCELLED_AT_BIRTH", response_id=event.response_id)
            self._cancel_response(event.response_id)
        else:
            response.generation = self._new_generation(event.response_id, response.purpose, now)

    def _new_generation(self, response_id: ResponseId, purpose: Purpose, now: float) -> Generation:
        self._last_id += 1
        generation = Generation(GenerationId(self._last_id), response_id, purpose, now)
        self._live.append(generation)
        self.effects.start_generation(generation)
        return generation

    def _complete(self, generation: Generation) -> None:
        generation.close()
        self.effects.audio_waits(generation)

    def _audio(self, event: model.AudioDelta, _now: float) -> None:
        generation = self._generation(event.response_id)
        if generation is None or not generation.live or (generation.closed and not generation.overflowed):
            self.events.count("STALE_DELTA")
            if generation is not None:
                self.truncation.came_late(generation, event.item_id, event.content_index)
            return
        if generation.overflowed:
            self.events.count("DELTA_OVER_LIMIT")
            return
        generation.accept(event.item_id, event.content_index, event.audio)
        self.effects.audio_waits(generation)
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
        generation = self._generation(event.response_id)
        if generation is not None and (generation.live or generation.parts):
            generation.part_of(event.item_id).text += event.text

    def _generation(self, response_id: ResponseId) -> Generation | None:
        response = self.turns.session.responses.get(response_id)
        return response.generation if response is not None else None

    def _item_added(self, event: model.OutputItemAdded, _now: float) -> None:
        if event.name:
            self.turns.session.tool_names[event.item_id] = event.name

    def _tool_called(self, event: model.FunctionCallDone, _now: float) -> None:
        response = self.turns.session.responses.get(event.response_id)
        if response is None or response.generation is None or not response.generation.live:
            self.events.emit("STALE_TOOL_CALL", "warning", tool=event.name)
            return
        name = event.name or self.turns.session.tool_names.get(event.item_id, "")
        call = attrs.evolve(event, name=name)
        if response.stage is Stage.OVER and response.generation.response_done:
            self.effects.call_tool(call)
        else:
            response.tool_calls.append(call)

    def _done(self, event: model.ResponseDone, now: float) -> None:
        response = self.turns.done(event.response_id, now)
        generation, completed = response.generation, event.status == "completed"
        if generation is not None:
            generation.response_done = completed
            if generation.live:
                self._complete(generation)
                self._run_tools(response, completed=completed)
        if event.status == "failed":
            self.response_requests.failed(response.purpose, event.reason, event.message, now)
            self._sound_busy(now)
        elif completed:
            self.response_requests.succeeded()
        elif event.status == "incomplete" and generation is not None and not generation.received_bytes:
            self.response_requests.failed(response.purpose, event.reason, "an answer without a sound", now)

    def _run_tools(self, response: Response, *, completed: bool) -> None:
        """Run what an answer wants done; one that was cut short by the provider did not mean to leave."""
        for call in response.tool_calls:
            if completed or call.name not in LEAVES:
                self.effects.call_tool(call)
            else:
                self.events.emit("INCOMPLETE_LEAVE_IGNORED", "warning", tool=call.name)

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
            self._sound_busy(now)

    def _sound_busy(self, now: float) -> None:
        """While the provider limits the rate, the caller hears a tone that asks to wait in any language."""
        wait_s = self.response_requests.wait_s
        speaks = any(generation.received_bytes for generation in self._live)
        if wait_s and not speaks and not self.response_requests.given_up:
            self.say(waiting_tone(round(wait_s * 1000)), now)

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
        self.turns.session_lost()
        if self.unheard_voice_ms >= VOICE_MS:
            self.turns.owe(Debt.NOW)
        for generation in self.live:
            self._complete(generation)
        self.truncation.session_lost(self._live)
        self.transcript.session_lost()
        self.policy.speech_stopped()
        self._greeted_turn = None

    def replay(self) -> list[str]:
        """What tells a new session all that was said and heard so far, and what is still to be heard."""
        retold = self.turns.session.retold
        live = []
        for generation in self._live:
            item_id = ItemId(f"still-heard-{generation.id}")
            if generation.received_text:
                retold[generation.id] = item_id
            live.append((generation.first_frame_s or generation.created_s, generation.received_text, item_id))
        return self._replay.messages(live)

    def end(self, now: float) -> None:
        """The call is over: what was still live ends as heard up to now."""
        for generation in self.live:
            generation.cancel(now)
            self.truncation.ended_with_call(generation, now)
        self._live.clear()
        self.truncation.cleared(now)


_HANDLERS: Final[Mapping[type, Callable[[Conversation, Any, float], None]]] = {
    model.AudioDelta: Conversation._audio,  # noqa: SLF001 - the class's own table
    model.OutputItemAdded: Conversation._item_added,  # noqa: SLF001
    model.InputTranscriptionFailed: Conversation._not_transcribed,  # noqa: SLF001
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

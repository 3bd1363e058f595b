"""One call's conversation: what each event means, and what is to be done about it.

Synchronous and without I/O: every method runs to its end before any other task looks, so there are no locks and
no half-made decisions. Time comes in; what is to be done goes out as values (see ``commands``).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from agent.audio.generation import Generation, Purpose
from agent.call.answers.answers import Answers
from agent.call.answers.response_requests import ResponseRequests
from agent.call.answers.responses import Debt, ResponseTracker
from agent.call.answers.truncation import TruncationLedger
from agent.call.bounds import TalkBounds
from agent.call.commands import Commands, Interrupt, RateLimited, decision
from agent.call.memory.replay import Replay
from agent.call.memory.transcript import Transcript
from agent.call.turns.barge_in import PROTECT_CHECK_S, BargeInDecision, BargeInPolicy
from agent.call.turns.dtmf import DtmfCollector
from agent.call.turns.greeted_turn import GreetedTurns, Verdict
from agent.call.turns.leaving import Departure, Move, Why
from agent.call.turns.own_ear import OwnEar
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.event_log import EventLog
from agent.core.records import Outcome
from agent.core.units import FRAME_MS, ItemId
from agent.model import events as model
from agent.model import requests
from agent.playout import MarkOutcome, PlayoutClock

APOLOGY_WAITS_MS: Final = 1500
"""What an answer may still have to say before an apology: one that has more is cut off."""
NOISE_S: Final = 20.0
"""Speech that the model hears for so long, and our own ear does not, is steady noise."""
MOST_LIMITED_S: Final = 60.0
"""A limit of the provider's is believed for so long: it counts tokens and requests by the minute."""
QUIET_AT_MOST_S: Final = 5.0
"""How long ago a turn that is reported now may have ended."""


@attrs.define(eq=False)
class Conversation:
    """The state of one call between the carrier's playback and the model's events."""

    commands: Commands
    playout: PlayoutClock
    events: EventLog
    policy: BargeInPolicy
    transcript: Transcript
    ear: OwnEar
    max_answer_ms: int
    bounds: TalkBounds = attrs.field(factory=TalkBounds)
    departure: Departure = attrs.field(factory=Departure)
    """Whether the call is about to end."""
    format: AudioFormat = ULAW_8K
    """Of the caller's leg and of the model's."""
    language: str = ""
    """Of the caller, a BCP 47 tag; empty: unknown."""
    endpoint_ms: int = 0
    """Silence the model waits for at the end of a turn: the ``audio_end_ms`` it reports includes it."""
    turns: ResponseTracker = attrs.field(factory=ResponseTracker)
    dtmf: DtmfCollector = attrs.field(factory=DtmfCollector)
    tools_at_work: int = 0
    """Uses of tools that the caller waits for."""
    barge_in_events: int = 0
    frames_dropped: int = 0
    turn_latencies_ms: list[int] = attrs.field(factory=list)
    caller_quiet_since: float | None = None
    """When the caller's last speech really ended, end-pointing silence taken off; None once it is answered."""
    barged_in_s: float = 0.0
    response_requests: ResponseRequests = attrs.field(init=False)
    truncation: TruncationLedger = attrs.field(init=False)
    answers: Answers = attrs.field(init=False)
    _greeted: GreetedTurns = attrs.field(init=False)
    _replay: Replay = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.response_requests = ResponseRequests(self.commands, self.turns, self.events, self.departure)
        self.truncation = TruncationLedger(self.playout, self.transcript, self.response_requests)
        self._greeted = GreetedTurns(self.ear.meter, self.language, self.transcript.live)
        self.answers = Answers(
            self.commands,
            self.turns,
            self.response_requests,
            self.truncation,
            self._greeted,
            self.events,
            self.format,
            self.max_answer_ms,
            self.bounds,
        )
        self._replay = Replay(self.transcript.live, self.response_requests.next_event_id)
        self.transcript.on_turn = self._replay.turn

    # What others ask

    @property
    def live(self) -> tuple[Generation, ...]:
        """Generations that are not heard to their end, in speaking order."""
        return tuple(self.answers.live)

    @property
    def idle(self) -> bool:
        """Whether nobody speaks, nothing is owed, and no answer is underway."""
        return not (self.answers.live or self.policy.caller_speaking or self.turns.busy or self.turns.owes_answer)

    @property
    def quiet(self) -> bool:
        """Whether it is idle, and no tool is at work for the caller."""
        return self.idle and not self.tools_at_work

    def caller_holds_the_floor(self, now: float) -> bool:
        """Whether the caller speaks, by the model's ear or ours. Steady noise does not count for ever."""
        since = self.policy.speaking_since
        return self.ear.voiced(now) or (since is not None and now - since < NOISE_S)

    def greeting_heard_ms(self, now: float) -> int | None:
        """Heard of the greeting while it is the only thing live, else None."""
        live = self.answers.live
        if len(live) == 1 and live[0].purpose is Purpose.GREETING:
            return self.playout.heard_ms(live[0].id, now)
        return None

    # What we say

    @decision
    def tell(self, text: str, now: float) -> None:
        """Tell the model something the caller did without words, and ask for an answer to it."""
        self.response_requests.tell(self._replay.told(text, now))
        self.response_requests.ask_when_free(Purpose.KEYS)

    @decision
    def answer_tool(self, call: model.FunctionCallDone, output: str, now: float, *, answer: bool) -> None:
        """Give a tool's output to the session that asked for it, and have it go on if something is to be said."""
        self._replay.told(f"(You used the tool {call.name[:80]}; it answered: {output})", now)
        self.response_requests.tell(
            requests.encode_tool_output(call.call_id, output, self.response_requests.next_event_id())
        )
        if answer:
            self.response_requests.ask_when_free(Purpose.TOOL)

    @decision
    def leave(self, outcome: Outcome, reason: str) -> Why:
        """Begin to end the call; a speech start takes it back. Returns the reason that counts."""
        why = Why(outcome, reason)
        self.departure.move(Move.LEAVE, why)
        return self.departure.why or why

    @decision
    def stay(self) -> None:
        """Who was leaving stays: the caller speaks, or there is nowhere to go."""
        why = self.departure.why
        if self.departure.move(Move.CALL_BACK) and why is not None:
            self.events.emit("LEAVING_TAKEN_BACK", reason=why.reason)

    @decision
    def apologise(self, audio: bytes, words: str, now: float) -> None:
        """The model is gone for good: say so in its stead, in ``audio`` that says ``words``.

        What it had begun is cut, unless it is nearly over.
        """
        if sum(generation.owed_frames for generation in self.answers.live) * FRAME_MS > APOLOGY_WAITS_MS:
            self._interrupt(now, audible=False)
        self.answers.session_lost()
        self.answers.say(audio, words, now)

    # What the caller does

    def caller_audio(self, audio: bytes, length_ms: int, now: float) -> None:
        """Audio of the caller came, and goes to the model untouched."""
        self.ear.feed(audio, now)
        self.turns.session.appended_ms += length_ms

    @property
    def caller_quiet(self) -> bool:
        """Whether the caller is in no turn, and was not heard in the last frame."""
        return self.ear.meter.quiet and not self.policy.caller_speaking

    @decision
    def silence_inserted(self, length_ms: int) -> None:
        """Silence went to the model where audio is missing."""
        self.events.count("CALLER_AUDIO_REPAIRED")
        self.turns.session.appended_ms += length_ms

    @decision
    def audio_late(self, by_ms: int) -> None:
        """Audio came after all, behind silence that was made in its stead: the model's clock is ahead by that."""
        self.events.emit("CALLER_AUDIO_LATE", ms=by_ms)

    @decision
    def key_pressed(self, key: str, now: float) -> bool:
        """A key of the caller's; False if it is none, or there are too many."""
        taken = self.dtmf.pressed(key, now)
        if taken:
            self.stay()
            self.events.emit("DTMF", digit=key)
        else:
            self.events.emit_first("DTMF_REFUSED", digit=key[:8])
        return taken

    # What the model says

    def audio(self, event: model.AudioDelta) -> Generation | None:
        """Audio of an answer went to its slicer: the generation that the pacer may have to be woken for."""
        self.ear.model_noticed()
        return self.answers.audio(event)

    def model_event(self, event: model.ModelEvent, now: float) -> None:
        """Take one event. Unknown ones are ignored; words change nothing that anybody waits for."""
        self.ear.model_noticed()
        if isinstance(event, model.TranscriptDelta):
            self.answers.text(event)
        elif (handle := _HANDLERS.get(type(event))) is not None:
            with self.commands.step():
                handle(self, event, now)

    @decision
    def session_ready(self) -> None:
        """The provider confirmed the session's settings."""
        self.turns.session.ready = True

    def _speech_started(self, event: model.SpeechStarted, now: float) -> None:
        self.stay()
        self.transcript.caller_started(event.item_id, now)
        self.turns.session.turn_open = True
        greeting_heard_ms = self.greeting_heard_ms(now)
        self._greeted.begins(event.item_id, in_greeting=self._greeting_is_new(greeting_heard_ms))
        audible = self.playout.audible(now)
        decided = self.policy.speech_started(
            now, speaking=bool(self.answers.live) or self.turns.busy, greeting_heard_ms=greeting_heard_ms
        )
        self.events.emit(
            "SPEECH_STARTED", decision=decided.value, **self.playout.status(now), **self.ear.meter.snapshot()
        )
        if decided is BargeInDecision.INTERRUPT:
            self._interrupt(now, audible=audible)

    def _greeting_is_new(self, heard_ms: int | None) -> bool:
        """Whether the greeting is asked for or under way, and its protected part was not heard."""
        if self.transcript.any_caller_words:
            return False
        if heard_ms is not None:
            return heard_ms < self.policy.protect_ms
        return not self.answers.live and any(
            response.purpose is Purpose.GREETING for response in self.turns.session.open
        )

    def _speech_stopped(self, event: model.SpeechStopped, now: float) -> None:
        self.policy.speech_stopped()
        spoken_ago_ms = max(self.turns.session.appended_ms - event.audio_end_ms, 0) + self.endpoint_ms
        self.caller_quiet_since = now - min(spoken_ago_ms / 1000, QUIET_AT_MOST_S)
        self.transcript.caller_stopped(event.item_id, self.caller_quiet_since)

    def _committed(self, event: model.InputCommitted, now: float) -> None:
        self.policy.speech_stopped()
        self.turns.session.turn_open = False
        self.transcript.caller_committed(event.item_id, self.caller_quiet_since or now)
        if self._greeted.has(event.item_id):
            self._settle(self._greeted.committed(event.item_id, now), now)
        else:
            self.turns.committed(now)

    def _not_transcribed(self, event: model.InputTranscriptionFailed, now: float) -> None:
        self._settle(self._greeted.wordless(event.item_id), now)

    def _transcribed(self, event: model.InputTranscribed, now: float) -> None:
        self.transcript.caller_said(event.item_id, self.bounds.keep(event.transcript), now)
        self._settle(self._greeted.said(event.item_id, event.transcript), now)

    def _settle(self, verdict: Verdict | None, now: float) -> None:
        """It is known whether a turn into the greeting wants an answer; one begun meanwhile may be taken back."""
        if verdict is None:
            return
        if not verdict.substance:
            self.events.emit("SETTLED_BY_GREETING")
            if verdict.answer is not None:
                self.answers.take_back(verdict.answer, now)
        elif verdict.answer is None:
            self.turns.committed(now)

    def _limits(self, event: model.RateLimits, _now: float) -> None:
        spent = [limit.reset_s or 0.0 for limit in event.limits if limit.remaining == 0]
        if spent:
            self.commands.add(RateLimited(min(max(spent), MOST_LIMITED_S)))

    def _created(self, event: model.ResponseCreated, now: float) -> None:
        self.answers.created(event, now, caller_speaking=self.policy.caller_speaking)

    # Interruptions, and what is due without an event

    @decision
    def due(self, now: float) -> float | None:
        """Decide what is due; returns when to look next, or None for not before the next event."""
        keys = self.dtmf.take(now)
        if keys:
            self.tell(f"The caller pressed these keys: {keys}", now)
        due = [at for at in (self._due_interruption(now), self.dtmf.due_s) if at is not None]
        return min(due, default=None)

    def _due_interruption(self, now: float) -> float | None:
        given_up = self.departure.final
        if self.answers.live and not (self.turns.session.ready or given_up):
            return self._due_by_ear(now)
        if self.policy.protecting:
            decided = self.policy.due_interruption(
                greeting_heard_ms=self.greeting_heard_ms(now), voiced=self.ear.voiced_now(now)
            )
            if decided is BargeInDecision.INTERRUPT:
                self._interrupt(now, audible=True)
            if self.policy.protecting:
                return now + PROTECT_CHECK_S
        return None if given_up else self._due_answer(now)

    def _due_by_ear(self, now: float) -> float:
        """No session hears the caller: our own ear interrupts."""
        if self.ear.interrupts(now):
            self.stay()
            self._interrupt(now, audible=self.playout.audible(now))
            self.turns.owe(Debt.NOW)
        return now + PROTECT_CHECK_S

    def _due_answer(self, now: float) -> float | None:
        self._settle(self._greeted.overdue(now), now)
        if self._greeted.due_s is not None:
            return self._greeted.due_s
        if self.turns.debt is Debt.NOW and self.turns.owed_at is not None and self.ear.voiced(now):
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
        self.answers.live.clear()
        self._greeted.drop()
        self._greeted.over = True
        self.truncation.cut_off(generations)
        self.playout.cancelled(now)
        if generations:
            self.barged_in_s = now
            self.commands.add(Interrupt(generations))
        cancelled = self.turns.barge_in()
        for response_id in cancelled:
            self.answers.cancel(response_id)
        # A second start while the first one's clear is under way finds nothing left to interrupt.
        barge_in = audible and bool(generations)
        self.barge_in_events += barge_in
        self.events.emit(
            "BARGE_IN" if barge_in else "ANSWER_WITHDRAWN",
            response_ids=cancelled,
            generations=[generation.id for generation in generations],
            frames_dropped=dropped,
            **self.ear.meter.snapshot(),
        )

    # What playback and the session say

    def first_frame(self, generation: Generation, now: float) -> int | None:
        """The first frame of an answer left; returns the latency of the turn it answers, if it answers one."""
        if generation.purpose not in (Purpose.ANSWER, Purpose.TURN) or self.caller_quiet_since is None:
            return None
        latency_ms = round((now - self.caller_quiet_since) * 1000)
        self.caller_quiet_since = None
        self.turn_latencies_ms.append(latency_ms)
        return latency_ms

    @decision
    def mark_returned(self, name: str, now: float) -> None:
        """The carrier sent a mark back."""
        if self.playout.mark_returned(name, now) is MarkOutcome.UNKNOWN:
            self.events.emit_first("UNKNOWN_MARK", name=name[:80])

    @decision
    def heard_to_end(self, generation: Generation) -> None:
        """The caller heard the last frame of a generation."""
        if generation in self.answers.live:
            self.answers.live.remove(generation)
        self.truncation.heard_to_end(generation)
        self.events.count("ANSWER_HEARD")

    @decision
    def session_lost(self) -> None:
        """The model's socket is gone: its answers end where they are; what the caller is owed stays owed."""
        self.turns.session_lost()
        if self.ear.unnoticed_words:
            self.turns.owe(Debt.NOW)
        self.answers.session_lost()
        self.transcript.session_lost()
        self.policy.speech_stopped()
        self._greeted.drop()

    def replay(self) -> list[str]:
        """What tells a new session all that was said and heard so far, and what is still to be heard."""
        retold = self.turns.session.retold
        live = []
        for generation in self.answers.live:
            item_id = ItemId(f"still-heard-{generation.id}")
            if generation.received_text:
                retold[generation.id] = item_id
            live.append((generation.first_frame_s or generation.created_s, generation.received_text, item_id))
        return self._replay.messages(live)

    @decision
    def end(self, now: float) -> None:
        """The call is over: what was still live ends as heard up to now."""
        for generation in self.live:
            generation.cancel(now)
            self.truncation.ended_with_call(generation, now)
        self.answers.live.clear()
        self.truncation.cleared(now)


_HANDLERS: Final[Mapping[type, Callable[[Conversation, Any, float], None]]] = {
    model.OutputItemAdded: lambda talk, event, _now: talk.answers.item_added(event),
    model.FunctionCallDone: lambda talk, event, _now: talk.answers.tool_called(event),
    model.ResponseDone: lambda talk, event, now: talk.answers.done(event, now),
    model.ErrorEvent: lambda talk, event, now: talk.answers.error(event, now),
    model.RateLimits: Conversation._limits,  # noqa: SLF001
    model.ResponseCreated: Conversation._created,  # noqa: SLF001 - the class's own table
    model.InputTranscriptionFailed: Conversation._not_transcribed,  # noqa: SLF001
    model.SpeechStarted: Conversation._speech_started,  # noqa: SLF001
    model.SpeechStopped: Conversation._speech_stopped,  # noqa: SLF001
    model.InputCommitted: Conversation._committed,  # noqa: SLF001
    model.InputTranscribed: Conversation._transcribed,  # noqa: SLF001
}

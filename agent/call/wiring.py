"""The parts of one call, wired together: what the conversation decides and the pacer tells is carried out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import attrs
import trio
from typing_extensions import override

from agent.audio.generation import Generation, Purpose
from agent.audio.pacer_metrics import PacerMetrics
from agent.call.barge_in import BargeInPolicy
from agent.call.call_clock import CallClock
from agent.call.conversation import VOICE_MS, Conversation, Effects
from agent.call.ending import CallEnding
from agent.call.generations import Generations
from agent.call.ingress import Ingress
from agent.call.state import CallState, run_guest
from agent.call.tool_calls import CallTools, tools_of
from agent.call.transcript import Transcript
from agent.call.watchdog import CallWatchdog
from agent.carrier.media_stream import OutboundEncoder
from agent.core.records import Outcome
from agent.model import events as model
from agent.model.outbox import ModelOutbox
from agent.model.session import ModelSessions
from agent.store.call_writer import CallWriter
from agent.store.sql.values import AnsweredCall
from agent.tx_scheduler import TxObserver, TxScheduler
from agent.wire.websocket import MessageSocket

GREETING_REQUEST: Final = "Say exactly, and nothing else: "


@attrs.define(eq=False)
class CallParts(Effects, TxObserver):
    """All that one call is made of. Whoever runs it sets ``nursery``, in which generations and guests run."""

    socket: MessageSocket
    state: CallState
    nursery: trio.Nursery = attrs.field(init=False)
    outbox: ModelOutbox = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)
    pacer: TxScheduler = attrs.field(init=False)
    generations: Generations = attrs.field(init=False)
    ingress: Ingress = attrs.field(init=False)
    leg: ModelSessions = attrs.field(init=False)
    watch: CallWatchdog = attrs.field(init=False)
    ending: CallEnding = attrs.field(init=False)
    tools: CallTools = attrs.field(init=False)
    _greeted: bool = False

    def __attrs_post_init__(self) -> None:
        state, services, events = self.state, self.state.services, self.state.events
        settings = services.settings
        self.outbox = ModelOutbox(lambda: events.count("CALLER_AUDIO_DROPPED"))
        self.conversation = Conversation(
            effects=self,
            playout=state.playout,
            events=events,
            policy=BargeInPolicy(settings.greeting_protect_ms),
            transcript=Transcript(state.answered_s, settings.transcribes_calls),
            meter=state.meter,
            max_answer_ms=int(settings.max_answer_s * 1000),
            language=state.tenant.language or settings.language,
            endpoint_ms=settings.vad_silence_ms if settings.turn_detection == "server_vad" else 0,
        )
        self.pacer = TxScheduler(
            socket=self.socket,
            encoder=OutboundEncoder(state.start.stream_sid),
            playout=state.playout,
            slot=services.metronome.attach(),
            observer=self,
            meter=PacerMetrics(self._report, events.telemetry.frame_lateness.observe),
            lead_ms=settings.lead_ms,
            comfort_silence=settings.comfort_silence,
        )
        self.generations = Generations(state, self.pacer, self.conversation.heard_to_end)
        self.leg = ModelSessions(
            connect=services.connect_model,
            outbox=self.outbox,
            events=events,
            settings=self._settings,
            on_ready=self._session_ready,
            on_event=self._model_event,
            on_lost=self._session_lost,
            quiet=lambda: self._idle,
            answer_due=lambda: self.conversation.turns.busy,
            unheard_voice=lambda: self.conversation.unheard_voice_ms >= VOICE_MS,
            next_event_id=self.conversation.response_requests.next_event_id,
        )
        clock = CallClock(state.answered_s, settings.idle_prompt_s, settings.idle_prompts, settings.max_call_s)
        self.ingress = Ingress(self.socket, state, self.conversation, self.outbox, clock)
        self.ending = CallEnding(state, self.conversation, self.leg, self.pacer.meter)
        self.tools = CallTools(
            state,
            self.conversation,
            tools_of(state.tenant, services.tools, can_transfer=services.rest is not None),
            self.ending,
        )
        self.watch = CallWatchdog(
            state, self.conversation, self.pacer, clock, self._start_farewell, lambda: self._idle
        )

    # What the model's side tells

    def _settings(self) -> dict[str, Any]:
        """What a session is told first, and must confirm."""
        session = self.state.services.session_of(self.state.tenant, self.tools.tools.values(), datetime.now(UTC))
        self.conversation.response_requests.instructions = session["instructions"]
        return session

    def _session_ready(self) -> list[str]:
        """What a session is told next: what was said so far, and the greeting if it is due."""
        conversation = self.conversation
        conversation.session_ready()
        said = conversation.replay()
        greeting = self.state.services.greeting_of(self.state.tenant)
        if greeting and not self._greeted and not said:
            said.append(conversation.response_requests.request(Purpose.GREETING, GREETING_REQUEST + greeting))
        self.state.changed.unpark_all()
        return said

    def _model_event(self, event: model.ModelEvent) -> None:
        self.conversation.model_event(event, trio.current_time())
        if not isinstance(event, model.AudioDelta | model.TranscriptDelta | model.OtherEvent):
            if isinstance(event, model.SpeechStarted):
                self.watch.clock.caller_spoke()
            self.state.changed.unpark_all()

    @property
    def _idle(self) -> bool:
        """Whether nothing goes on that anybody waits for."""
        return self.conversation.idle and not self.tools.busy

    def _session_lost(self) -> None:
        self.tools.session_lost()
        self.conversation.session_lost()
        self.state.changed.unpark_all()

    # Effects of the conversation's decisions (see Effects)

    @override
    def start_generation(self, generation: Generation) -> None:
        self.generations.start(self.nursery, generation)

    @override
    def audio_waits(self, generation: Generation) -> None:
        self._greeted = self._greeted or generation.purpose is Purpose.GREETING
        self.pacer.audio_waits(generation)

    @override
    def withdraw(self, generation: Generation) -> None:
        self.generations.cancel((generation,))

    @override
    def interrupt(self, generations: tuple[Generation, ...]) -> None:
        self.generations.cancel(generations)
        self.pacer.clear()
        self.state.changed.unpark_all()

    def to_model(self, message: str) -> None:
        """Send an event behind those before it."""
        self.outbox.put(message)

    def call_tool(self, call: model.FunctionCallDone) -> None:
        """Run a tool as a guest."""
        use = self.tools.begin(call)
        if use is not None:
            self._start_guest(f"tool {call.name}", partial(self.tools.run, use))

    def give_up(self, reason: str) -> None:
        """Apologise and hang up."""
        self.nursery.start_soon(self.ending.apologise, reason)

    def renew_session(self, reason: str) -> None:
        """Open another session."""
        self.leg.renew(reason)

    # What the pacer tells (see TxObserver)

    def first_frame(self, generation: Generation, now: float) -> None:
        """Measure how long the caller waited for this answer, and for the first of all."""
        state, telemetry = self.state, self.state.events.telemetry
        state.events.emit("SPEAKING", "debug", generation=generation.id, purpose=generation.purpose.value)
        latency_ms = self.conversation.first_frame(generation, now)
        if latency_ms is not None:
            telemetry.turn_latency.observe(latency_ms / 1000)
        if not state.first_frame_sent.is_set():
            state.first_frame_sent.set()
            state.first_audio_ms = round((now - state.answered_s) * 1000)
            telemetry.first_audio_latency.observe(now - state.answered_s)
            state.events.emit("FIRST_FRAME_SENT", after_ms=state.first_audio_ms)

    @override
    def all_sent(self, generation: Generation) -> None:
        self.generations.all_sent(generation)

    def cleared(self, now: float) -> None:
        """The old audio is gone from the carrier: tell the model what was heard of it."""
        latency_s = now - self.conversation.barged_in_s
        self.state.events.telemetry.barge_in_latency.observe(latency_s)
        self.state.events.emit("CLEARED", latency_ms=round(latency_s * 1000, 1))
        self.conversation.truncation.cleared(now)

    def violation(self, generation: Generation) -> None:
        """Say loudly that the proof failed (PL-5)."""
        self.state.events.emit("POST_CANCEL_AUDIO_VIOLATION", "error", generation=generation.id)

    def _report(self, event: str, seconds: float) -> None:
        self.state.events.emit_sparsely(event, ms=round(seconds * 1000))

    # Guests

    def start_guests(self) -> None:
        """What runs beside every call, and never ends it: its recording, and what is kept of it meanwhile."""
        self._start_guest("recording", self.ending.record_call)
        if self.state.services.keeper is not None:
            self._start_guest("keeping", partial(self._keep, self.state.services.keeper))

    async def _keep(self, keeper: CallWriter) -> None:
        """Keep the call's row once the first frame is out (TX-9), and from then on each turn (NB-5)."""
        state, transcript = self.state, self.conversation.transcript
        await state.first_frame_sent.wait()
        ticket = state.ticket
        keeper.answered(
            AnsweredCall(
                ticket.call_sid,
                state.tenant.id,
                ticket.direction,
                ticket.caller,
                ticket.called,
                state.answered_at,
            )
        )
        transcript.listen(partial(keeper.turn, ticket.call_sid))

    def _start_guest(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        self.nursery.start_soon(run_guest, self.state.events, name, run, name=name)

    def _start_farewell(self, instructions: str, outcome: Outcome) -> None:
        departure = self.conversation.leave(outcome, "the agent said goodbye")
        self.nursery.start_soon(self.ending.say_farewell, instructions, departure)

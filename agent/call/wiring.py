"""The parts of one call, wired together: what the conversation decides and the pacer tells is carried out."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import attrs
import trio
from typing_extensions import override

from agent.audio.generation import Generation
from agent.audio.level_meter import LevelMeter
from agent.audio.pacer_metrics import PacerMetrics
from agent.audio.uplink import Uplink
from agent.call.bounds import TalkBounds
from agent.call.call_clock import CallClock
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
from agent.call.ending import CallEnding
from agent.call.generations import Generations
from agent.call.ingress import Ingress
from agent.call.memory.transcript import Transcript
from agent.call.model_leg import ModelLeg
from agent.call.screen import run_screen
from agent.call.state import CallState, run_guest
from agent.call.tool_calls import CallTools, tools_of
from agent.call.turns.barge_in import BargeInPolicy
from agent.call.turns.own_ear import OwnEar
from agent.call.watchdog import CallWatchdog
from agent.core.records import Outcome
from agent.model.events import FunctionCallDone
from agent.model.outbox import ModelOutbox
from agent.model.session import ModelSessions
from agent.store.call_writer import CallWriter
from agent.store.sql.values import AnsweredCall
from agent.tx_scheduler import TxObserver, TxScheduler
from agent.wire.websocket import MessageSocket


@attrs.define(eq=False)
class CallParts(TxObserver):
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

    def __attrs_post_init__(self) -> None:
        state, services, events = self.state, self.state.services, self.state.events
        settings = services.settings
        self.outbox = ModelOutbox(lambda: events.count("CALLER_AUDIO_DROPPED"))
        self.conversation = Conversation(
            Commands(self._carry_out),
            state.playout,
            events,
            BargeInPolicy(settings.greeting_protect_ms),
            Transcript(state.answered_s, settings.transcribes_calls),
            OwnEar(LevelMeter(state.leg.format)),
            max_answer_ms=int(settings.max_answer_s * 1000),
            bounds=TalkBounds(settings.bounds),
            departure=state.departure,
            format=state.leg.format,
            language=state.tenant.language or settings.language,
            endpoint_ms=settings.vad_silence_ms if settings.turn_detection == "server_vad" else 0,
        )
        self.pacer = TxScheduler(
            socket=self.socket,
            encoder=state.leg.encoder,
            playout=state.playout,
            slot=services.metronome.attach(),
            observer=self,
            meter=PacerMetrics(self._report, services.tick_ran),
            lead_ms=settings.lead_ms,
            comfort_silence=settings.comfort_silence,
            format=state.leg.format,
        )
        self.generations = Generations(state, self.pacer, self.conversation.heard_to_end)
        clock = CallClock(state.answered_s, settings.idle_prompt_s, settings.idle_prompts, settings.max_call_s)
        uplink = Uplink(settings.uplink_ms * state.leg.format.bytes_per_ms)
        self.ingress = Ingress(self.socket, state, self.conversation, self.outbox, clock, uplink)
        tools = tools_of(
            state.tenant,
            services.tools,
            can_transfer=state.leg.rest is not None,
            most_transfers=settings.max_transfers,
        )
        user = ModelLeg(state, self.conversation, self.pacer, tuple(tools.values()), clock)
        self.leg = ModelSessions(services.connect_model, self.outbox, events, user)
        self.ending = CallEnding(state, self.conversation, self.leg, self.pacer.meter)
        self.tools = CallTools(state, self.conversation, tools, self.ending)
        self.watch = CallWatchdog(state, self.conversation, self.pacer, clock, self._start_farewell)

    # What the conversation decides

    def _carry_out(self, commands: Sequence[Command]) -> None:  # noqa: C901 - a case for each command
        """Do what one step of the conversation decided, and wake whoever waits for it to move on."""
        for command in commands:
            match command:
                case ToModel(message):
                    self.outbox.put(message)
                case Speak(generation):
                    self.generations.start(self.nursery, generation)
                case Complete(generation):
                    self.pacer.audio_waits(generation)
                case Interrupt(generations):
                    self.generations.cancel(generations)
                    self.pacer.clear()
                case Withdraw(generation):
                    self.generations.cancel((generation,))
                case CallTool(call):
                    self._start_tool(call)
                case GiveUp(reason):
                    self.nursery.start_soon(self.ending.apologise, reason)
                case RateLimited(wait_s):
                    self.state.services.admission.limited(trio.current_time() + wait_s)
                case RenewSession(reason):
                    self.leg.renew(reason)
        self.state.changed.unpark_all()

    def _start_tool(self, call: FunctionCallDone) -> None:
        use = self.tools.begin(call)
        if use is not None:
            self._start_guest(f"tool {call.name}", partial(self.tools.run, use))

    # What the pacer tells (see TxObserver)

    def first_frame(self, generation: Generation, now: float) -> None:
        """Measure how long the caller waited for this answer, and for the first of all."""
        state, telemetry = self.state, self.state.events.telemetry
        state.events.emit("SPEAKING", "debug", generation=generation.id, purpose=generation.purpose.value)
        latency_ms = self.conversation.first_frame(generation, now)
        if latency_ms is not None:
            telemetry.turn_latency.observe(latency_ms / 1000)
            if state.leg.screen is not None:
                voice_ms = min(round((now - generation.created_s) * 1000), latency_ms)
                state.leg.screen.latency(latency_ms - voice_ms, voice_ms)
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
        if self.state.leg.screen is not None:
            self._start_guest("screen", partial(run_screen, self.conversation, self.state.leg.screen))
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
        why = self.conversation.leave(outcome, "the agent said goodbye")
        self.nursery.start_soon(self.ending.say_farewell, instructions, why)

"""One call is one nursery; one answer is one cancel scope (ST-1, ST-2).

The children of a call's nursery: the ingress (caller to model), the realtime leg (model to generations), the TX
pacer (generations to caller), the barge-in monitor (what is due without an event), the watch and the keepalive.
Generations and guests come and go beside them. Whatever ends the call says so once, to ``CallState.end``: the
call's scope is cancelled, the two writers finish the message they are writing, and the ending, shielded and
bounded, hangs up, makes the record durable and hands it over.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import trio

from agent.audio.generation import Generation, Purpose
from agent.audio.pacer_metrics import PacerMetrics
from agent.call.barge_in import BargeInPolicy
from agent.call.call_clock import CallClock
from agent.call.conversation import Conversation
from agent.call.ending import CallEnding
from agent.call.ingress import Ingress
from agent.call.services import CallServices
from agent.call.state import CallState, run_guest
from agent.call.tool_calls import CallTools, tools_of
from agent.call.transcript import Transcript
from agent.call.watchdog import CallWatchdog
from agent.carrier.media_stream import OutboundEncoder, Start
from agent.carrier.stream_token import CallTicket
from agent.core.errors import ModelUnavailableError, SocketClosedError
from agent.core.graceful import run_until_stopped
from agent.core.records import CallRecord, Outcome
from agent.core.tenant import Tenant
from agent.core.units import GenerationId
from agent.model import events as model
from agent.model import requests
from agent.model.outbox import ModelOutbox
from agent.model.session import ModelSessions
from agent.store.call_writer import CallWriter
from agent.store.sql.values import AnsweredCall
from agent.tx_scheduler import TxScheduler
from agent.wire.websocket import MessageSocket

WRITER_GRACE_S: Final = 0.5
"""How long the pacer may take to finish a message when the call ends."""
GREETING_REQUEST: Final = "Say exactly, and nothing else: "


@attrs.frozen
class Speech:
    """What the call keeps of a generation in progress: its scope, its audio's way in, its end's news."""

    scope: trio.CancelScope
    feed: trio.MemorySendChannel[bytes]
    all_sent: trio.Event


@attrs.define(eq=False)
class Call:
    """One call: its parts wired together, its nursery, and the effects of the conversation's decisions."""

    socket: MessageSocket
    state: CallState
    nursery: trio.Nursery = attrs.field(init=False)
    outbox: ModelOutbox = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)
    pacer: TxScheduler = attrs.field(init=False)
    ingress: Ingress = attrs.field(init=False)
    leg: ModelSessions = attrs.field(init=False)
    watch: CallWatchdog = attrs.field(init=False)
    ending: CallEnding = attrs.field(init=False)
    tools: CallTools = attrs.field(init=False)
    _speeches: dict[GenerationId, Speech] = attrs.field(factory=dict)
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
        self.leg = ModelSessions(
            connect=services.connect_model,
            outbox=self.outbox,
            events=events,
            opening=self._opening,
            on_event=self._model_event,
            on_lost=self._session_lost,
            quiet=lambda: self._idle,
            answer_due=lambda: self.conversation.turns.busy,
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

    # The nursery

    async def run(self) -> None:
        """Run all children until one ends the call. Raises what the essential ones raise, as a group."""
        pace = partial(run_until_stopped, self.pacer.run, self.pacer.stop, grace_s=WRITER_GRACE_S)
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.ingress.run, name="ingress")
            self.nursery.start_soon(self._run_realtime, name="realtime")
            self.nursery.start_soon(pace, name="TX pacer")
            self.nursery.start_soon(self._run_monitor, name="barge-in monitor")
            self.nursery.start_soon(self.watch.run, name="watch")
            self.nursery.start_soon(self.watch.run_keepalive, self.socket, name="keepalive")
            self._start_guest("recording", self.ending.record_call)
            if self.state.services.keeper is not None:
                self._start_guest("keeping", partial(self._keep, self.state.services.keeper))

    async def _run_realtime(self) -> None:
        """Keep the model connected; without one, apologise and hang up."""
        try:
            await self.leg.run()
        except ModelUnavailableError as error:
            self.conversation.response_requests.give_up(str(error))

    async def _run_monitor(self) -> None:
        """Do what is due; sleep until the next thing is, or until an event changes it."""
        while True:
            now = trio.current_time()
            due = (
                self.conversation.due_interruption(now),
                self.ingress.fill_gap(now),
                self.ingress.flush_dtmf(now),
            )
            with trio.move_on_at(min((at for at in due if at is not None), default=math.inf)):
                await self.state.changed.park()

    async def _run_generation(
        self, generation: Generation, speech: Speech, chunks: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        """Slice one answer into frames until the caller heard the last; a cancel takes the rest with it.

        The scope holds the producer of frames only: no write to a socket is ever inside it (DESIGN D4).
        """
        try:
            with speech.scope, chunks:
                async for audio in chunks:
                    generation.slicer.push(audio)
                    self.pacer.audio_waits(generation)
                generation.slicer.finish()
                self.pacer.audio_waits(generation)
                await speech.all_sent.wait()
                await self._until_heard(generation)
                self.conversation.heard_to_end(generation)
        finally:
            self.pacer.withdraw(generation)
            generation.slicer.drop()
            speech.feed.close()
            del self._speeches[generation.id]
            self.state.changed.unpark_all()

    async def _until_heard(self, generation: Generation) -> None:
        """Wait for the mark behind the last frame, or for the clock and its grace if none comes (D6)."""
        playout = self.state.playout
        sent_ms = playout.sent_ms(generation.id)
        while not playout.proved(generation.id, sent_ms):
            latest = playout.end_of(generation.id) + playout.grace_s
            if trio.current_time() >= latest:
                return
            with trio.move_on_at(latest):
                await self.state.changed.park()

    # What the model's side tells

    def _opening(self) -> list[str]:
        """What a session begins with: its settings, what was said so far, and the greeting if it is due."""
        conversation, services = self.conversation, self.state.services
        session = services.session_of(self.state.tenant, self.tools.tools.values(), datetime.now(UTC))
        messages = [requests.encode_session_update(session, conversation.response_requests.next_event_id())]
        said = conversation.replay()
        messages += said
        greeting = services.greeting_of(self.state.tenant)
        if greeting and not self._greeted and not said:
            messages.append(conversation.response_requests.request(Purpose.GREETING, GREETING_REQUEST + greeting))
        return messages

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

    def start_generation(self, generation: Generation) -> None:
        """Register the scope, then start its task: a cancel in between is not missed."""
        # Unbounded in chunks: the conversation bounds it in milliseconds of audio (TX-7).
        feed, chunks = trio.open_memory_channel[bytes](math.inf)
        speech = Speech(trio.CancelScope(), feed, trio.Event())
        self._speeches[generation.id] = speech
        self.pacer.queue(generation)
        name = f"generation {generation.id}"
        self.nursery.start_soon(self._run_generation, generation, speech, chunks, name=name)

    def feed(self, generation: Generation, audio: bytes) -> None:
        """Hand audio to the generation's task."""
        self._greeted = self._greeted or generation.purpose is Purpose.GREETING
        self._speeches[generation.id].feed.send_nowait(audio)

    def complete(self, generation: Generation) -> None:
        """No more audio comes."""
        speech = self._speeches.get(generation.id)
        if speech is not None:
            speech.feed.close()

    def interrupt(self, generations: tuple[Generation, ...]) -> None:
        """Cancel the generations' scopes: the only place that does, and nothing is flushed."""
        for generation in generations:
            self._speeches[generation.id].scope.cancel(reason="barge-in")
        self.ending.leaving = False
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

    def all_sent(self, generation: Generation) -> None:
        """Let the generation's task wait for the ear; at the end of the call it may be gone before the pacer."""
        speech = self._speeches.get(generation.id)
        if speech is not None:
            speech.all_sent.set()

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
        self.state.events.emit(event, "warning", ms=round(seconds * 1000))

    # Guests

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
        self.nursery.start_soon(self.ending.say_farewell, instructions, outcome)


async def run_call(
    socket: MessageSocket, start: Start, ticket: CallTicket, tenant: Tenant, services: CallServices
) -> CallRecord:
    """Serve one call from its ``start`` message to its durable record.

    No error of the call leaves this function; each becomes its outcome. A cancel, from inside or outside, ends
    the call within its graces: the writers stop between two messages, the caller's leg is hung up, the record
    is kept and handed over. The socket stays open: closing it is the business of whoever opened it.
    """
    events = services.events.bind(call=ticket.call_sid)
    state = CallState(services, start, ticket, tenant, events, trio.current_time(), datetime.now(UTC))
    call = Call(socket, state)
    services.active[ticket.call_sid] = state.scope
    events.telemetry.active_calls.inc()
    events.emit("CALL_STARTED", direction=ticket.direction)
    try:
        with state.scope:
            try:
                await call.run()
            except* SocketClosedError as closed:
                state.end(Outcome.CARRIER_LOST, str(closed.exceptions[0]))
            # The boundary of the call: what escapes its children is its outcome, never another call's problem.
            except* Exception as group:  # noqa: BLE001
                state.end(Outcome.ERROR, repr(group.exceptions[0]))
                events.exception("CALL_ERROR", group)
    finally:
        call.pacer.slot.leave()
        try:
            with trio.CancelScope(shield=True):
                record = await call.ending.finish()
        finally:
            del services.active[ticket.call_sid]
            events.telemetry.active_calls.dec()
        events.telemetry.calls.labels(outcome=record.outcome.value).inc()
        events.emit("CALL_METRICS", outcome=record.outcome.value, **attrs.asdict(record.metrics))
    return record

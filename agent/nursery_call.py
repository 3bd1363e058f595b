"""One call is one nursery; one answer is one cancel scope (ST-1, ST-2).

``run_call`` is the whole life of a call. Its children are the ingress (caller to model), the realtime leg (model
to generations), the TX pacer (generations to caller), the barge-in monitor (what is due without an event) and a
watch; generations and guests come and go beside them. Any of them ends the call by saying so once, to ``end``;
then the nursery is cancelled, the two writers finish the message they are writing, and the ending, shielded and
bounded, hangs up, makes the record durable and hands it over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import attrs
import trio

from agent import realtime_events as model
from agent import twilio_stream as carrier
from agent.barge_in import BargeInPolicy
from agent.call_clock import CallClock, Due
from agent.call_house import CallHouse, silence_payload
from agent.caller_meter import CallerMeter
from agent.conversation import Conversation
from agent.dtmf import DtmfCollector
from agent.errors import AdmissionError, MalformedMessageError, ModelUnavailableError, SocketClosedError
from agent.eventlog import EventLog
from agent.finishing import run_until_asked
from agent.generation import Generation, Purpose
from agent.input_repair import InputRepair
from agent.model_leg import ModelLeg
from agent.model_outbox import ModelOutbox
from agent.playout import MarkOutcome, PlayoutClock
from agent.records import CallMetrics, CallRecord, Outcome, TimelineEvent
from agent.tickets import CallTicket
from agent.tools import END_CALL
from agent.transcript import Transcript
from agent.tx_meter import FRESH_GAP_S, TxMeter
from agent.tx_scheduler import TxScheduler
from agent.units import GenerationId, RecordingSid
from agent.websocket import MessageSocket

START_S: Final = 10.0
EARLY_MESSAGES: Final = 50
"""Messages before ``start`` that are ignored; Twilio sends one, ``connected``."""
POLICY_VIOLATION: Final = 1008
LOOK_S: Final = 0.1
"""How often missing caller audio is looked for while the caller speaks."""
WATCH_S: Final = 1.0
HEARTBEAT_S: Final = 5.0
CARRIER_STUCK_S: Final = 10.0
"""A write to the carrier that takes this long: it does not read any more."""
CARRIER_PING_S: Final = 20.0
"""A carrier that neither answers a ping nor sends anything for so long is gone; one that is busy is not."""
WRITER_GRACE_S: Final = 0.5
DRAIN_EXTRA_S: Final = 0.4
"""Waited after the last word was heard, before hanging up (PL-6)."""
DRAIN_BOUND_S: Final = 30.0
FAREWELL_BOUND_S: Final = 15.0
ENDING_STEP_S: Final = 6.0
"""Each step of the ending is bounded by this; they run side by side."""
BACKLOG_SHARE: Final = 0.7
TIMELINE_LIMIT: Final = 20_000
GREETING_REQUEST: Final = "Say exactly, and nothing else: "
IDLE_REQUEST: Final = "The caller has been silent for a while. Ask briefly whether they are still there."
IDLE_FAREWELL: Final = "The caller does not answer. Say a brief goodbye; the call ends after it."
LIMIT_FAREWELL: Final = (
    "The call has reached its time limit. Say so and say a brief goodbye; the call ends after it."
)


@attrs.define(eq=False)
class Call:
    """One call in progress: the state its tasks share, and the effects of the conversation's decisions."""

    house: CallHouse
    socket: MessageSocket
    start: carrier.Start
    ticket: CallTicket
    events: EventLog
    answered_s: float
    answered_at: datetime
    nursery: trio.Nursery = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    outcome: Outcome | None = None
    reason: str = ""
    first_frame_sent: trio.Event = attrs.field(factory=trio.Event)
    recording_sid: RecordingSid | None = None
    frames_in: int = 0
    last_rx_s: float = 0.0
    greeted: bool = False
    ending: bool = False
    first_audio_ms: int | None = None
    timeline: list[TimelineEvent] = attrs.field(factory=list)
    meter: CallerMeter = attrs.field(factory=CallerMeter)
    repair: InputRepair = attrs.field(factory=InputRepair)
    dtmf: DtmfCollector = attrs.field(factory=DtmfCollector)
    playout: PlayoutClock = attrs.field(factory=PlayoutClock)
    turned: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Where tasks wait for the conversation to move: woken by every event that can change what is due."""
    outbox: ModelOutbox = attrs.field(init=False)
    conversation: Conversation = attrs.field(init=False)
    pacer: TxScheduler = attrs.field(init=False)
    leg: ModelLeg = attrs.field(init=False)
    clock: CallClock = attrs.field(init=False)
    _scopes: dict[GenerationId, trio.CancelScope] = attrs.field(factory=dict)
    _feeds: dict[GenerationId, trio.MemorySendChannel[bytes]] = attrs.field(factory=dict)
    _sent: dict[GenerationId, trio.Event] = attrs.field(factory=dict)
    _counted: list[int] = attrs.field(factory=lambda: [0, 0])

    def __attrs_post_init__(self) -> None:
        settings, telemetry = self.house.settings, self.events.telemetry
        self.events.listener = self._note
        self.last_rx_s = self.answered_s
        self.outbox = ModelOutbox(lambda: self.events.count("CALLER_AUDIO_DROPPED"))
        self.conversation = Conversation(
            effects=self,
            playout=self.playout,
            events=self.events,
            policy=BargeInPolicy(settings.greeting_protect_ms),
            transcript=Transcript(self.answered_s),
            meter=self.meter,
            max_answer_ms=int(settings.max_answer_s * 1000),
        )
        self.pacer = TxScheduler(
            socket=self.socket,
            encoder=carrier.OutboundEncoder(self.start.stream_sid),
            playout=self.playout,
            seat=self.house.metronome.take_seat(),
            observer=self,
            meter=TxMeter(self._report, telemetry.frame_lateness.observe),
            lead_ms=settings.lead_ms,
            comfort_silence=settings.comfort_silence,
        )
        self.leg = ModelLeg(
            connect=self.house.connect_model,
            outbox=self.outbox,
            events=self.events,
            opening=self._opening,
            on_event=self._model_event,
            on_lost=self._session_lost,
            quiet=lambda: self.conversation.idle,
        )
        self.clock = CallClock(
            self.answered_s, settings.idle_prompt_s, settings.idle_prompts, settings.max_call_s
        )

    def end(self, outcome: Outcome, reason: str) -> None:
        """The call is over; only the first reason counts. Cancels everything in the call's nursery."""
        if self.outcome is None:
            self.outcome, self.reason = outcome, reason
            self.scope.cancel(reason=f"{outcome.value}: {reason}")

    # Ingress: the caller's audio and the carrier's messages

    async def run_ingress(self) -> None:
        """Read the carrier; never waits for anything downstream (DESIGN D8). Raises SocketClosedError."""
        while True:
            raw = await self.socket.receive()
            try:
                message = carrier.decode_message(raw)
            except MalformedMessageError as error:
                self.events.emit_first(error.kind.upper(), detail=error.detail[:200])
                continue
            if type(message) is carrier.Media:
                self._caller_audio(message)
            else:
                self._carrier_message(message)

    def _caller_audio(self, media: carrier.Media) -> None:
        length_ms = len(media.audio) // 8
        if not length_ms:
            self.events.count("EMPTY_MEDIA")
            return
        now = self.last_rx_s = trio.current_time()
        self.frames_in += 1
        missing_ms = self.repair.media(media.timestamp_ms, length_ms, now)
        if missing_ms:
            self._insert_silence(missing_ms)
        self.meter.feed(media.audio)
        self.conversation.appended_ms += length_ms
        self.outbox.put_audio(model.encode_append(media.payload))

    def _insert_silence(self, length_ms: int) -> None:
        self.events.count("CALLER_AUDIO_REPAIRED")
        self.conversation.appended_ms += length_ms
        self.outbox.put_audio(model.encode_append(silence_payload(length_ms)))

    def _carrier_message(self, message: carrier.CarrierMessage) -> None:
        now = trio.current_time()
        if isinstance(message, carrier.MarkReturned):
            if self.playout.mark_returned(message.name, now) is MarkOutcome.UNKNOWN:
                self.events.emit_first("UNKNOWN_MARK", name=message.name[:80])
            self.turned.unpark_all()
        elif isinstance(message, carrier.Dtmf):
            if self.dtmf.pressed(message.digit, now):
                self.events.emit("DTMF", digit=message.digit)
                self.clock.caller_spoke()
            else:
                self.events.emit_first("DTMF_REFUSED", digit=message.digit[:8])
            self.turned.unpark_all()
        elif isinstance(message, carrier.Stop):
            self.end(Outcome.CALLER_HUNG_UP, "the carrier stopped the stream")
        elif isinstance(message, carrier.UnknownMessage):
            self.events.emit_first("UNKNOWN_CARRIER_EVENT", event_name=message.event[:80])
        else:
            self.events.emit_first("REPEATED_START", message=type(message).__name__)

    # Realtime: the model's events

    async def run_realtime(self) -> None:
        """Keep the model connected; without one, apologise and hang up."""
        try:
            await self.leg.run()
        except ModelUnavailableError as error:
            self.give_up(str(error))

    def _opening(self) -> list[str]:
        """What a new session begins with: its settings, then what was said so far, or the greeting."""
        conversation = self.conversation
        messages = [model.encode_session_update(self.house.session, conversation.next_event_id())]
        messages += conversation.replay()
        if not self.greeted and self.house.settings.greeting:
            messages.append(
                conversation.request(Purpose.GREETING, GREETING_REQUEST + self.house.settings.greeting)
            )
        return messages

    def _model_event(self, event: model.ModelEvent) -> None:
        now = trio.current_time()
        self.conversation.model_event(event, now)
        kind = type(event)
        if kind is model.AudioDelta or kind is model.TranscriptDelta:
            return
        if kind is model.SpeechStarted:
            self.clock.caller_spoke()
        elif kind is model.OtherEvent:
            return
        self.turned.unpark_all()

    def _session_lost(self) -> None:
        self.conversation.session_lost()
        self.turned.unpark_all()

    # Effects of the conversation's decisions

    def start_generation(self, generation: Generation) -> None:
        """See Effects: the scope is registered before the task can run."""
        scope = trio.CancelScope()
        # Bounded in milliseconds of audio, by the conversation (TX-7), not in chunks.
        feed, chunks = trio.open_memory_channel[bytes](float("inf"))
        self._scopes[generation.id] = scope
        self._feeds[generation.id] = feed
        self._sent[generation.id] = trio.Event()
        if generation.purpose is Purpose.GREETING:
            self.greeted = True
        self.pacer.queue(generation)
        self.nursery.start_soon(
            self._run_generation, generation, scope, chunks, name=f"generation {generation.id}"
        )

    def feed(self, generation: Generation, audio: bytes) -> None:
        """See Effects."""
        self._feeds[generation.id].send_nowait(audio)

    def complete(self, generation: Generation) -> None:
        """See Effects."""
        feed = self._feeds.get(generation.id)
        if feed is not None:
            feed.close()

    def interrupt(self, generations: tuple[Generation, ...]) -> None:
        """See Effects: the one place where generation scopes are cancelled, and nothing is flushed."""
        for generation in generations:
            self._scopes[generation.id].cancel(reason="barge-in")
        self.ending = False
        self.pacer.clear()

    def to_model(self, message: str) -> None:
        """See Effects."""
        self.outbox.put(message)

    def call_tool(self, call: model.FunctionCallDone) -> None:
        """See Effects."""
        self.nursery.start_soon(self._guest, f"tool {call.name}", partial(self._run_tool, call))

    def give_up(self, reason: str) -> None:
        """See Effects."""
        self.nursery.start_soon(self._apologise, reason)

    def renew_session(self, reason: str) -> None:
        """See Effects."""
        self.leg.renew(reason)

    # Generations

    async def _run_generation(
        self, generation: Generation, scope: trio.CancelScope, chunks: trio.MemoryReceiveChannel[bytes]
    ) -> None:
        """Slice an answer into frames until the caller heard the last; a cancel takes what is left with it."""
        try:
            with scope, chunks:
                async for audio in chunks:
                    generation.slicer.push(audio)
                    self.pacer.audio_waits(generation)
                generation.slicer.finish()
                self.pacer.audio_waits(generation)
                await self._sent[generation.id].wait()
                await self._until_heard(generation)
                self.conversation.heard_to_end(generation)
        finally:
            self.pacer.withdraw(generation)
            self._feeds.pop(generation.id).close()
            del self._scopes[generation.id], self._sent[generation.id]
            self.turned.unpark_all()

    async def _until_heard(self, generation: Generation) -> None:
        """Wait for the mark behind the last frame, or for the clock and its grace if none comes (D6)."""
        sent_ms = self.playout.sent_ms(generation.id)
        while not self.playout.proved(generation.id, sent_ms):
            latest = self.playout.end_of(generation.id) + self.playout.grace_s
            if trio.current_time() >= latest:
                return
            with trio.move_on_at(latest):
                await self.turned.park()

    # What the pacer tells

    def first_frame(self, generation: Generation, now: float) -> None:
        """See TxObserver."""
        latency_ms = self.conversation.first_frame(generation, now)
        telemetry = self.events.telemetry
        if latency_ms is not None:
            telemetry.turn_latency.observe(latency_ms / 1000)
        if not self.first_frame_sent.is_set():
            self.first_frame_sent.set()
            self.first_audio_ms = round((now - self.answered_s) * 1000)
            telemetry.first_audio_latency.observe(now - self.answered_s)
            self.events.emit("FIRST_FRAME_SENT", after_ms=self.first_audio_ms)
        self.events.emit("SPEAKING", "debug", generation=generation.id, purpose=generation.purpose.value)

    def all_sent(self, generation: Generation) -> None:
        """See TxObserver."""
        self._sent[generation.id].set()

    def cleared(self, now: float) -> None:
        """See TxObserver."""
        latency_s = now - self.conversation.barged_in_s
        self.events.telemetry.barge_in_latency.observe(latency_s)
        self.events.emit("CLEARED", latency_ms=round(latency_s * 1000, 1))
        self.conversation.cleared(now)

    def violation(self, generation: Generation) -> None:
        """See TxObserver."""
        self.events.emit("POST_CANCEL_AUDIO_VIOLATION", "error", generation=generation.id)

    def _report(self, event: str, seconds: float) -> None:
        self.events.emit(event, "warning", ms=round(seconds * 1000))

    # The barge-in monitor: what is due without an event

    async def run_monitor(self) -> None:
        """Look at what is due, sleep until the next thing is, or until an event changes it."""
        while True:
            due = self._look(trio.current_time())
            with trio.move_on_at(due):
                await self.turned.park()

    def _look(self, now: float) -> float:
        due = [self.conversation.look_again(now), self._look_for_audio(now), self._look_for_keys(now)]
        return min((at for at in due if at is not None), default=float("inf"))

    def _look_for_audio(self, now: float) -> float | None:
        if not self.conversation.policy.caller_speaking:
            return None
        missing_ms = self.repair.silence_due(now)
        if missing_ms:
            self._insert_silence(missing_ms)
        return now + LOOK_S

    def _look_for_keys(self, now: float) -> float | None:
        keys = self.dtmf.take(now)
        if keys:
            self.conversation.tell(f"The caller pressed these keys: {keys}")
        return self.dtmf.due_s

    # The watch

    async def run_watch(self) -> None:
        """Once a second: stuck writes, silence, the time limit, the pacer's figures."""
        beat = 0.0
        while True:
            await trio.sleep(WATCH_S)
            now = trio.current_time()
            since = self.pacer.sending_since
            if since is not None and now - since > CARRIER_STUCK_S:
                self.end(Outcome.CARRIER_STUCK, f"the carrier read nothing for {CARRIER_STUCK_S:.0f} s")
            self._watch_clock(now)
            self._count_frames()
            self._log_tx()
            if self.house.settings.debug_tx and now - beat >= HEARTBEAT_S:
                beat = now
                self.events.emit("TX_HEARTBEAT", frames_out=self.pacer.meter.frames, frames_in=self.frames_in)

    def _watch_clock(self, now: float) -> None:
        idle = self.conversation.idle and not self.playout.audible(now)
        match self.clock.look(now, idle=idle, audible_until=self.playout.audible_until):
            case Due.PROMPT:
                self.events.emit("IDLE_PROMPT")
                self.conversation.ask(Purpose.IDLE, IDLE_REQUEST)
            case Due.IDLE:
                self.nursery.start_soon(self._say_farewell, IDLE_FAREWELL, Outcome.IDLE)
            case Due.TIME_LIMIT:
                self.nursery.start_soon(self._say_farewell, LIMIT_FAREWELL, Outcome.TIME_LIMIT)
            case Due.NOTHING:
                pass

    def _count_frames(self) -> None:
        frames = self.events.telemetry.frames
        rx, tx = self.frames_in, self.pacer.meter.frames
        frames.labels(direction="rx").inc(rx - self._counted[0])
        frames.labels(direction="tx").inc(tx - self._counted[1])
        self._counted[:] = rx, tx

    def _log_tx(self) -> None:
        meter = self.pacer.meter
        gap_s, owed = meter.take_recent_gap_s(), self.pacer.owed_frames
        limit = self.conversation.max_answer_ms / 20
        if gap_s > FRESH_GAP_S or owed > BACKLOG_SHARE * limit or self.house.settings.debug_tx:
            fps = round(meter.fps, 2) if meter.fps is not None else None
            self.events.emit("TX_METRICS", fps=fps, max_gap_ms=round(gap_s * 1000, 1), queued_frames=owed)

    async def run_keepalive(self) -> None:
        """Ping the carrier; only a peer that is silent in every way is gone (WB-2)."""
        while True:
            await trio.sleep(CARRIER_PING_S)
            asked = trio.current_time()
            with trio.move_on_after(CARRIER_PING_S) as waiting:
                await self.socket.ping()
            if waiting.cancelled_caught and self.last_rx_s < asked:
                self.end(Outcome.CARRIER_LOST, f"nothing came from the carrier for {CARRIER_PING_S:.0f} s")

    # Guests: their failure never ends the call (DESIGN D11)

    async def _guest(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        try:
            await run()
        # The boundary of a guest: contained, counted and logged; Cancelled is no Exception and passes.
        except Exception as error:  # noqa: BLE001
            self.events.exception("GUEST_FAILED", error, guest=name)

    async def _record(self) -> None:
        """Have the carrier record, once the first frame is out (TX-9)."""
        rest = self.house.rest
        if rest is None or not self.house.settings.record_calls:
            return
        await self.first_frame_sent.wait()
        self.recording_sid = await rest.start_recording(self.ticket.call_sid)
        self.events.emit("RECORDING_STARTED", recording_sid=self.recording_sid)

    async def _run_tool(self, call: model.FunctionCallDone) -> None:
        if call.name != END_CALL.name:
            self.events.emit("UNKNOWN_TOOL", "warning", tool=call.name[:80])
            self.conversation.answer_tool(call.call_id, '{"error": "there is no such tool"}', answer=True)
            return
        self.events.emit("END_CALL_ASKED")
        self.ending = True
        with trio.move_on_after(DRAIN_BOUND_S):
            await self._until_quiet(while_=lambda: self.ending)
            await trio.sleep(DRAIN_EXTRA_S)
        if not self.ending:
            output = '{"ended": false, "reason": "the caller spoke again"}'
            self.conversation.answer_tool(call.call_id, output, answer=False)
            return
        self.playout.drained()
        self.end(Outcome.AGENT_HUNG_UP, "the agent ended the call")

    # Ways to end

    async def _until_quiet(self, while_: Callable[[], bool] = lambda: True) -> None:
        """AUDIO_DRAIN: until all that was said was heard (PL-6). Bound it from outside."""
        while while_() and (self.conversation.live or self.conversation.turns.busy):
            await self.turned.park()

    async def _say_farewell(self, instructions: str, outcome: Outcome) -> None:
        with trio.move_on_after(FAREWELL_BOUND_S):
            self.conversation.ask(Purpose.FAREWELL, instructions)
            await self._until_quiet()
            await trio.sleep(DRAIN_EXTRA_S)
        self.end(outcome, "the agent said goodbye")

    async def _apologise(self, reason: str) -> None:
        """The model is gone: say so with the bundled prompt, and hang up."""
        self.events.emit("MODEL_GIVEN_UP", "error", reason=reason)
        outcome = Outcome.MODEL_LOST if self.leg.sessions else Outcome.MODEL_UNAVAILABLE
        with trio.move_on_after(FAREWELL_BOUND_S):
            self.conversation.say(self.house.apology, trio.current_time())
            await self._until_quiet()
            await trio.sleep(DRAIN_EXTRA_S)
        self.end(outcome, reason)

    # The whole call

    async def run(self) -> None:
        """Run all children until one ends the call. Raises what the essential ones raise, as a group."""
        async with trio.open_nursery() as self.nursery:
            start = self.nursery.start_soon
            start(self.run_ingress)
            start(self.run_realtime)
            start(partial(run_until_asked, self.pacer.run, self.pacer.stop, grace_s=WRITER_GRACE_S), name="pacer")
            start(self.run_monitor)
            start(self.run_watch)
            start(self.run_keepalive)
            start(self._guest, "recording", self._record)

    async def finish(self) -> CallRecord:
        """End the call everywhere: the carrier's leg, the record, the hand-over. Run it shielded."""
        self.pacer.seat.leave()
        self.conversation.end(trio.current_time())
        record = self.make_record()
        async with trio.open_nursery() as steps:
            steps.start_soon(self._guest, "hang up", self._hang_up)
            steps.start_soon(self._guest, "record", partial(self._keep, record))
        return record

    async def _hang_up(self) -> None:
        """A closed stream is not an ended call (D11): only REST ends it, unless the caller did."""
        if self.house.rest is not None and self.outcome is not Outcome.CALLER_HUNG_UP:
            with trio.fail_after(ENDING_STEP_S):
                await self.house.rest.hang_up(self.ticket.call_sid)

    async def _keep(self, record: CallRecord) -> None:
        """Make the record durable, then let post-call work hear of it (ST-4)."""
        try:
            with trio.fail_after(ENDING_STEP_S):
                await self.house.records.save(record)
        except (OSError, trio.TooSlowError) as error:
            # The log is then the only place that has it: all of it goes there, and nobody is told it is safe.
            self.events.emit("RECORD_NOT_KEPT", "error", error=str(error), record=attrs.asdict(record))
            return
        self.house.hand_over.send_nowait(record)

    def make_record(self) -> CallRecord:
        """The record of the call up to now."""
        duration_s = trio.current_time() - self.answered_s
        meter = self.pacer.meter
        metrics = CallMetrics(
            duration_ms=round(duration_s * 1000),
            barge_in_events=self.conversation.barge_in_events,
            fps=round(meter.fps, 2) if meter.fps is not None else None,
            max_gap_ms=round(meter.max_gap_s * 1000, 1) if meter.frames else None,
            first_audio_ms=self.first_audio_ms,
            turn_latencies_ms=tuple(self.conversation.turn_latencies_ms),
            frames_in=self.frames_in,
            frames_out=meter.frames,
            frames_dropped=self.conversation.frames_dropped,
            reconnects=self.leg.reconnects,
            stalls=meter.stalls,
            events=dict(self.events.counts),
        )
        return CallRecord(
            call_sid=self.ticket.call_sid,
            stream_sid=self.start.stream_sid,
            direction=self.ticket.direction,
            caller=self.ticket.caller,
            called=self.ticket.called,
            answered_at=self.answered_at,
            ended_at=self.answered_at + timedelta(seconds=duration_s),
            outcome=self.outcome or Outcome.SERVER_STOPPED,
            reason=self.reason,
            turns=self.conversation.transcript.turns(),
            metrics=metrics,
            recording_sid=self.recording_sid,
            dtmf=self.dtmf.all_keys,
            timeline=tuple(self.timeline),
        )

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        if len(self.timeline) < TIMELINE_LIMIT:
            t_ms = round((trio.current_time() - self.answered_s) * 1000)
            self.timeline.append(TimelineEvent(t_ms, event, fields))


async def run_call(
    socket: MessageSocket, start: carrier.Start, ticket: CallTicket, house: CallHouse
) -> CallRecord:
    """Serve one call from its ``start`` message to its durable record.

    No error of the call leaves this function; each becomes its outcome. A cancel, from inside or outside, ends
    the call within its graces: the writers stop between two messages, the caller's leg is hung up, the record
    is kept and handed over. The socket stays open: closing it is the business of whoever opened it.
    """
    events = house.events.bind(call=ticket.call_sid)
    call = Call(house, socket, start, ticket, events, trio.current_time(), datetime.now(UTC))
    house.active[ticket.call_sid] = call.scope
    events.telemetry.active_calls.inc()
    events.emit("CALL_STARTED", direction=ticket.direction)
    try:
        with call.scope:
            try:
                await call.run()
            except* SocketClosedError as closed:
                call.end(Outcome.CARRIER_LOST, str(closed.exceptions[0]))
            # The boundary of the call: what escapes its children is its outcome, never another call's problem.
            except* Exception as group:  # noqa: BLE001
                call.end(Outcome.ERROR, repr(group.exceptions[0]))
                events.exception("CALL_ERROR", group)
    finally:
        with trio.CancelScope(shield=True):
            record = await call.finish()
        del house.active[ticket.call_sid]
        events.telemetry.active_calls.dec()
        events.telemetry.calls.labels(outcome=record.outcome.value).inc()
        events.emit("CALL_METRICS", outcome=record.outcome.value, **attrs.asdict(record.metrics))
    return record


async def answer(socket: MessageSocket, house: CallHouse, admit: Callable[[carrier.Start], CallTicket]) -> None:
    """Serve one carrier stream: admit it by its ``start`` message, then run its call.

    ``admit`` raises AdmissionError for a stream that is not to be served. Raises nothing but Cancelled; the
    socket is closed in every case.
    """
    try:
        start = await receive_start(socket, house.events)
        ticket = admit(start)
        if ticket.call_sid in house.active:
            raise AdmissionError("second_stream", "this call has a stream already")
    except AdmissionError as error:
        house.events.emit("STREAM_REFUSED", "warning", kind=error.kind, detail=error.detail)
        await socket.aclose(POLICY_VIOLATION, error.detail[:120])
    except SocketClosedError as closed:
        house.events.emit("STREAM_LEFT", code=closed.code)
    else:
        await run_call(socket, start, ticket, house)
        await socket.aclose()


async def receive_start(socket: MessageSocket, events: EventLog) -> carrier.Start:
    """Read up to the ``start`` message.

    Raises AdmissionError if it does not come within START_S or EARLY_MESSAGES, or for audio that is not 8 kHz
    mono mu-law; SocketClosedError if the peer leaves.
    """
    early = 0
    with trio.move_on_after(START_S):
        while early < EARLY_MESSAGES:
            raw = await socket.receive()
            try:
                message = carrier.decode_message(raw)
            except MalformedMessageError as error:
                events.emit_first(error.kind.upper(), detail=error.detail[:200])
                early += 1
                continue
            if isinstance(message, carrier.Start):
                return _checked(message)
            if not isinstance(message, carrier.Connected):
                events.emit_first("MESSAGE_BEFORE_START", message=type(message).__name__)
                early += 1
        raise AdmissionError("no_start", f"{EARLY_MESSAGES} messages and none of them a start")
    raise AdmissionError("no_start", f"no start message within {START_S:.0f} s")


def _checked(start: carrier.Start) -> carrier.Start:
    if (start.encoding, start.sample_rate, start.channels) != ("audio/x-mulaw", 8000, 1):
        audio = f"{start.encoding} at {start.sample_rate} Hz, {start.channels} channels"
        raise AdmissionError("audio_format", f"{audio}; only mono audio/x-mulaw at 8000 Hz is served")
    return start

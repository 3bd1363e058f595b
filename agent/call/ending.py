"""How a call ends: with its last word heard, and with nothing lost.

While the call still runs: the model's ``end_call``, a spoken farewell, the apology for a model that is gone; each
waits until what was said was heard (AUDIO_DRAIN, PL-6), within a bound. Afterwards, shielded: hang up, make the
record durable, hand it over.
"""

from datetime import timedelta
from functools import partial
from typing import Final

import attrs
import trio

from agent.audio.generation import Purpose
from agent.audio.pacer_metrics import PacerMetrics
from agent.call.conversation import Conversation
from agent.call.prompts import APOLOGY, UNAVAILABLE, prompt, say_unavailable
from agent.call.state import CallState, run_guest
from agent.call.turns.leaving import Why
from agent.core.errors import CarrierError
from agent.core.records import CallMetrics, CallRecord, Outcome
from agent.core.units import FRAME_S
from agent.model.session import ModelSessions

DRAIN_EXTRA_S: Final = 0.4
"""Waited after the last word was heard, before hanging up (PL-6)."""
DRAIN_BOUND_S: Final = 30.0
LAST_LOOK_S: Final = 2.0
"""How long voice in the last moment may keep the line open until the model calls it speech."""
FAREWELL_BOUND_S: Final = 15.0
STEP_S: Final = 6.0
"""Bound of the whole ending, whose steps run side by side; and of the carrier's answer to a transfer."""
REQUEST_GRACE_S: Final = 2.0
"""How long the carrier's answer to what was asked of it is still waited for when the call has ended."""
TRANSFER: Final = "transfer"


@attrs.define(eq=False)
class CallEnding:
    """The ways one call ends."""

    state: CallState
    conversation: Conversation
    leg: ModelSessions
    meter: PacerMetrics
    _transferring: int = 0
    """Transfers under way: who is asked to hang up, too, leaves it to them."""

    # While the call runs

    def leave(self, outcome: Outcome, reason: str) -> Why:
        """Decide to end the call, in the step in which the model asks for it; a speech start takes it back."""
        asked = "TRANSFER_ASKED" if outcome is Outcome.TRANSFERRED else "END_CALL_ASKED"
        self.state.events.emit(asked, reason=reason)
        return self.conversation.leave(outcome, reason)

    async def hang_up(self, why: Why) -> bool:
        """The model's ``end_call``: hang up when its last word was heard; False if the caller speaks again."""
        let_go = await self._until_let_go(why)
        if let_go and not self._transferring:
            self.state.end(why.outcome, why.reason)
        return let_go

    async def transfer(self, why: Why, number: str) -> bool:
        """The model's ``transfer_call``: as ``hang_up``, but the carrier connects the caller to ``number``.

        It takes the call from us, so the stream may end before the carrier's answer is here, which counts all the
        same. Raises CarrierError and trio.TooSlowError; the call goes on then.
        """
        state, rest = self.state, self.state.leg.rest
        if rest is None:
            return False

        async def dial() -> None:
            await rest.transfer(state.ticket.call_sid, number)
            # That, and no hang-up, is why its stream ended or will end.
            state.taken_over(Outcome.TRANSFERRED, f"transferred to {number}")

        self._transferring += 1
        try:
            if not await self._until_let_go(why):
                return False
            with trio.fail_after(STEP_S):
                await state.guests.run(TRANSFER, dial, grace_s=REQUEST_GRACE_S)
        except (CarrierError, trio.TooSlowError) as error:
            self.conversation.stay()
            state.events.emit("TRANSFER_FAILED", "error", error=str(error) or "the carrier does not answer")
            raise
        finally:
            self._transferring -= 1
        return True

    async def say_farewell(self, instructions: str, why: Why) -> None:
        """Have the model say goodbye, then end the call; what the caller says meanwhile takes that back."""
        with trio.move_on_after(FAREWELL_BOUND_S):
            while self.conversation.turns.busy and self._leaves(why):
                await self.state.changed.park()
            if self._leaves(why):
                self.conversation.response_requests.ask(Purpose.FAREWELL, instructions)
                await self._drain(why)
        if self._leaves(why):
            self.state.end(why.outcome, why.reason)

    async def apologise(self, reason: str) -> None:
        """The model is of no use any more: have it said in the tenant's language, or say it; the call ends."""
        state, why = self.state, self.state.departure.why
        state.events.emit("MODEL_GIVEN_UP", "error", reason=reason)
        outcome = Outcome.MODEL_LOST if self.leg.sessions else Outcome.MODEL_UNAVAILABLE
        if await say_unavailable(state.leg.rest, state.ticket.call_sid, state.tenant.language, state.events):
            state.taken_over(outcome, reason)
            return
        with trio.move_on_after(FAREWELL_BOUND_S):
            apology = prompt(UNAVAILABLE, state.leg.format)
            self.conversation.apologise(apology, APOLOGY, trio.current_time())
            await self._drain(why)
        state.end(outcome, reason)

    def _leaves(self, why: Why | None) -> bool:
        """Whether the call is still about to end for this reason."""
        return self.state.departure.why is why

    async def _until_let_go(self, why: Why) -> bool:
        """Wait until what was said was heard, within a bound; whether the caller let us go."""
        with trio.move_on_after(DRAIN_BOUND_S):
            await self._drain(why)
        return self._leaves(why)

    async def _drain(self, why: Why | None) -> None:
        """Wait until all that was said was heard, and a little longer; return early if it is taken back.

        Who begins to speak in the last moment is heard by our own ear before the model says so.
        """
        conversation, changed, final = self.conversation, self.state.changed, self.state.departure.final
        while self._leaves(why) and (conversation.live or (conversation.turns.busy and not final)):
            await changed.park()
        with trio.move_on_after(DRAIN_EXTRA_S):
            while self._leaves(why):
                await changed.park()
        with trio.move_on_after(LAST_LOOK_S):
            while self._leaves(why) and not final and conversation.ear.voiced(trio.current_time()):  # noqa: ASYNC110
                await trio.sleep(FRAME_S)
        if self._leaves(why):
            self.state.playout.drained()

    async def record_call(self) -> None:
        """Have the carrier record, once the first frame is out (TX-9)."""
        state, rest = self.state, self.state.leg.rest
        if rest is None or not state.services.settings.record_calls:
            return

        async def start() -> None:
            state.recording_sid = await rest.start_recording(state.ticket.call_sid)
            state.events.emit("RECORDING_STARTED", recording_sid=state.recording_sid)

        await state.first_frame_sent.wait()
        await state.guests.run("recording", start, grace_s=REQUEST_GRACE_S)

    # Afterwards

    async def finish(self) -> CallRecord:
        """Hang up at once, keep the record and hand it over, all within STEP_S. Run it shielded.

        The record waits for what was begun for the caller (a tool that writes, a request to the carrier), within
        its grace, because it tells what came of it; for nothing else.
        """
        state = self.state
        until_s = trio.current_time() + STEP_S
        ended_s = state.ended_s if state.ended_s is not None else trio.current_time()
        try:
            self.conversation.end(ended_s)
        # Still the boundary of the call: without its last words the record is kept all the same.
        except Exception as error:  # noqa: BLE001
            state.events.exception("CALL_ERROR", error)
        async with trio.open_nursery() as steps:
            steps.start_soon(run_guest, state.events, "hang up", partial(self._hang_up, until_s))
            for guest in await state.guests.until_ended():
                state.events.emit("GUEST_LEFT_BEHIND", "warning", guest=guest)
            record = self.make_record(ended_s)
            await self._keep(record, until_s)
        return record

    async def _hang_up(self, until_s: float) -> None:
        """A closed stream is not an ended call (D11): only REST ends it, unless the caller did, or a transfer."""
        state, rest = self.state, self.state.leg.rest
        await state.guests.until_ended(TRANSFER)
        ended = state.departure.ended
        hung_up = ended is not None and ended.outcome is Outcome.CALLER_HUNG_UP
        if rest is not None and not hung_up and not state.carrier_goes_on:
            with trio.fail_at(until_s):
                await state.guests.run("hang up", partial(rest.hang_up, state.ticket.call_sid))

    async def _keep(self, record: CallRecord, until_s: float) -> None:
        """Make the record durable, then let post-call work hear of it (ST-4)."""
        state = self.state
        try:
            with trio.fail_at(until_s):
                await state.guests.run("record", partial(state.services.records.save, record))
            durable = True
        # Whatever the store raises: it has the record and tries again (DO-3). Nobody is told that it is safe.
        except Exception as error:  # noqa: BLE001
            state.events.emit("RECORD_NOT_KEPT", "error", error=repr(error))
            durable = False
        state.events.emit(
            "CALL_ENDED",
            outcome=record.outcome.value,
            reason=record.reason,
            duration_ms=record.metrics.duration_ms,
            turns=len(record.turns),
            barge_in_events=record.metrics.barge_in_events,
        )
        if not durable:
            return
        try:
            state.services.hand_over.send_nowait(record.call_sid)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # It is durable: whoever looks through the records later finds it.
            state.events.emit("RECORD_NOT_HANDED_OVER", "error", error=repr(error))

    def make_record(self, ended_s: float) -> CallRecord:
        """The record of the call as it was at ``ended_s``."""
        state, ticket, conversation = self.state, self.state.ticket, self.conversation
        duration_s = ended_s - state.answered_s
        ended = state.departure.ended or Why(Outcome.SERVER_STOPPED, "")
        return CallRecord(
            call_sid=ticket.call_sid,
            stream_sid=state.leg.stream_sid,
            direction=ticket.direction,
            caller=ticket.caller,
            called=ticket.called,
            answered_at=state.answered_at,
            ended_at=state.answered_at + timedelta(seconds=duration_s),
            outcome=ended.outcome,
            reason=ended.reason,
            turns=conversation.transcript.turns(),
            metrics=self._metrics(duration_s),
            recording_sid=state.recording_sid,
            dtmf=conversation.dtmf.all_keys,
            timeline=tuple(state.timeline),
            tenant_id=state.tenant.id,
        )

    def _metrics(self, duration_s: float) -> CallMetrics:
        state, meter = self.state, self.meter
        return CallMetrics(
            duration_ms=round(duration_s * 1000),
            barge_in_events=self.conversation.barge_in_events,
            fps=round(meter.fps, 2) if meter.fps is not None else None,
            max_gap_ms=round(meter.max_gap_s * 1000, 1) if meter.frames else None,
            first_audio_ms=state.first_audio_ms,
            turn_latencies_ms=tuple(self.conversation.turn_latencies_ms),
            frames_in=state.frames_in,
            frames_out=meter.frames,
            frames_dropped=self.conversation.frames_dropped,
            reconnects=self.leg.reconnects,
            stalls=meter.stalls,
            events=dict(state.events.counts),
        )

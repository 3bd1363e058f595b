"""The watch over one call: stuck writes, silence, the time limit, a vanished carrier, the pacer's figures."""

from collections.abc import Callable
from typing import Final

import attrs
import trio

from agent.audio.generation import Purpose
from agent.audio.pacer_metrics import FRESH_GAP_S
from agent.call.call_clock import CallClock, Due
from agent.call.conversation import Conversation
from agent.call.state import CallState
from agent.core.records import Outcome
from agent.core.units import FRAME_MS
from agent.tx_scheduler import TxScheduler
from agent.wire.websocket import MessageSocket

WATCH_S: Final = 1.0
HEARTBEAT_S: Final = 5.0
BACKLOG_SHARE: Final = 0.7
"""Of the audio one answer may have; a backlog over this is worth a TX_METRICS line (TX-8)."""
IDLE_REQUEST: Final = "The caller has been silent for a while. Ask briefly whether they are still there."
IDLE_FAREWELL: Final = "The caller does not answer. Say a brief goodbye; the call ends after it."
LIMIT_FAREWELL: Final = (
    "The call has reached its time limit. Say so and say a brief goodbye; the call ends after it."
)


@attrs.define(eq=False)
class CallWatchdog:
    """Looks once a second; ``farewell(instructions, outcome)`` starts the spoken end of the call."""

    state: CallState
    conversation: Conversation
    pacer: TxScheduler
    clock: CallClock
    farewell: Callable[[str, Outcome], None]
    _counted_rx: int = 0
    _counted_tx: int = 0
    _beat_s: float = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await trio.sleep(WATCH_S)
            now = trio.current_time()
            self._watch_writes(now)
            self._watch_clock(now)
            self._count_frames()
            self._log_tx(now)

    async def run_keepalive(self, socket: MessageSocket) -> None:
        """Ping the carrier; only a peer that is silent in every way is gone, a busy one is not (WB-2)."""
        every_s = self.state.services.settings.ping_s
        while every_s:
            await trio.sleep(every_s)
            asked_s = trio.current_time()
            with trio.move_on_after(every_s) as waiting:
                await socket.ping()
            if waiting.cancelled_caught and self.state.last_rx_s < asked_s:
                self.state.end(Outcome.CARRIER_LOST, f"nothing came from the carrier for {every_s:.0f} s")

    def _watch_writes(self, now: float) -> None:
        since, stuck_s = self.pacer.sending_since, self.state.leg.stuck_s
        if since is not None and now - since > stuck_s:
            self.state.end(Outcome.CARRIER_STUCK, f"the carrier read nothing for {stuck_s:.0f} s")

    def _watch_clock(self, now: float) -> None:
        playout, reached = self.state.playout, self.conversation.bounds.reached
        if reached and self.clock.cut_short(now):
            self.state.events.emit("BOUND_REACHED", "warning", bound=reached)
        idle = self.conversation.quiet and not playout.audible(now)
        held = not self.state.departure.staying or self.conversation.caller_holds_the_floor(now)
        match self.clock.look(now, idle=idle, audible_until=playout.audible_until):
            case Due.OVERDUE:
                self.state.end(Outcome.TIME_LIMIT, "the caller went on past the time limit")
            case Due.IDLE | Due.TIME_LIMIT if held:
                pass
            case Due.PROMPT:
                self.state.events.emit("IDLE_PROMPT")
                self.conversation.response_requests.ask(Purpose.IDLE, IDLE_REQUEST)
            case Due.IDLE:
                self.farewell(IDLE_FAREWELL, Outcome.IDLE)
            case Due.TIME_LIMIT:
                self.farewell(LIMIT_FAREWELL, Outcome.TIME_LIMIT)
            case Due.NOTHING:
                pass

    def _count_frames(self) -> None:
        frames = self.state.events.telemetry.frames
        rx, tx = self.state.frames_in, self.pacer.meter.frames
        frames.labels(direction="rx").inc(rx - self._counted_rx)
        frames.labels(direction="tx").inc(tx - self._counted_tx)
        self._counted_rx, self._counted_tx = rx, tx

    def _log_tx(self, now: float) -> None:
        events, debug = self.state.events, self.state.services.settings.debug_tx
        meter = self.pacer.meter
        gap_s, owed_frames = meter.take_recent_gap_s(), self.pacer.owed_frames
        most_frames = self.conversation.max_answer_ms / FRAME_MS
        if debug or gap_s > FRESH_GAP_S or owed_frames > BACKLOG_SHARE * most_frames:
            fps = round(meter.fps, 2) if meter.fps is not None else None
            events.emit("TX_METRICS", fps=fps, max_gap_ms=round(gap_s * 1000, 1), queued_frames=owed_frames)
        if debug and now - self._beat_s >= HEARTBEAT_S:
            self._beat_s = now
            events.emit("TX_HEARTBEAT", frames_out=meter.frames, frames_in=self.state.frames_in)

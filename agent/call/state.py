"""What the tasks of one call share, and the one way a call ends."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

import attrs
import trio

from agent.call.guests import Guests
from agent.call.leg import CallerLeg
from agent.call.services import CallServices
from agent.call.turns.leaving import Departure, Move, Why
from agent.carrier.stream_token import CallTicket
from agent.core.errors import sole_error
from agent.core.event_log import EventLog
from agent.core.records import Outcome, TimelineEvent
from agent.core.tenant import Tenant
from agent.core.units import RecordingSid
from agent.playout import PlayoutClock

TIMELINE_LIMIT: Final = 20_000
"""Events kept of one call: hours of a lively one."""


@attrs.define(eq=False)
class CallState:
    """One call in progress. Its tasks change it between two checkpoints, so it is never seen half-changed."""

    services: CallServices
    leg: CallerLeg
    ticket: CallTicket
    tenant: Tenant
    events: EventLog
    answered_s: float
    """When the call was answered, on the monotonic clock."""
    answered_at: datetime
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around everything the call does; cancelled by ``end``, or by a server that stops."""
    departure: Departure = attrs.field(factory=Departure)
    ended_s: float | None = None
    carrier_goes_on: bool = False
    """The carrier has the call and ends it: a hang-up of ours would cut it off."""
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Where tasks wait for the conversation to move on: woken at the end of each of its steps, and only there."""
    playout: PlayoutClock = attrs.field(factory=PlayoutClock)
    frames_in: int = 0
    last_rx_s: float = attrs.field(init=False)
    """When the carrier was last heard from."""
    first_frame_sent: trio.Event = attrs.field(factory=trio.Event)
    """FIRST_FRAME_SENT: REST calls of the set-up wait for it (TX-9)."""
    first_audio_ms: int | None = None
    recording_sid: RecordingSid | None = None
    timeline: list[TimelineEvent] = attrs.field(factory=list)
    guests: Guests = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.last_rx_s = self.answered_s
        self.guests = Guests(self.services.guests, self.events)
        self.events.listener = self._note

    def end(self, outcome: Outcome, reason: str) -> None:
        """The call is over; only the first reason counts. Cancels everything the call does."""
        if self.departure.move(Move.END, Why(outcome, reason)):
            self.ended_s = trio.current_time()
            self.scope.cancel(reason=f"{outcome.value}: {reason}")

    def taken_over(self, outcome: Outcome, reason: str) -> None:
        """The carrier goes on with the call without us, and ends it; its stream ended or will end by that."""
        self.carrier_goes_on = True
        ended = self.departure.ended
        if ended is not None and ended.outcome in (Outcome.CALLER_HUNG_UP, Outcome.CARRIER_LOST):
            self.departure.why = Why(outcome, reason)
        self.end(outcome, reason)

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        if len(self.timeline) < TIMELINE_LIMIT:
            t_ms = round((trio.current_time() - self.answered_s) * 1000)
            self.timeline.append(TimelineEvent(t_ms, event, fields))


async def run_guest(events: EventLog, name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a guest of the call: its failure is logged and counted, and never ends the call (DESIGN D11)."""
    try:
        await run()
    # The boundary of a guest; Cancelled is no Exception and passes, also from beside an error.
    except* Exception as group:  # noqa: BLE001
        events.exception("GUEST_FAILED", sole_error(group), guest=name)

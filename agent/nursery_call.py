"""One call is one nursery; one answer is one cancel scope (ST-1, ST-2).

The children of a call's nursery: the ingress (caller to model), the realtime leg (model to generations), the TX
pacer (generations to caller), the barge-in monitor (what is due without an event), the watch and the keepalive.
Generations (``call/generations.py``) and guests (``call/wiring.py``) come and go beside them. Whatever ends the
call says so once, to ``CallState.end``: the call's scope is cancelled, the two writers finish the message they
are writing, and the ending, shielded and bounded, hangs up, makes the record durable and hands it over.
"""

import math
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import trio

from agent.call.leg import CallerLeg
from agent.call.services import CallServices
from agent.call.state import CallState
from agent.call.wiring import CallParts
from agent.carrier.stream_token import CallTicket
from agent.core.errors import ModelUnavailableError, SocketClosedError
from agent.core.graceful import run_until_stopped
from agent.core.records import CallRecord, Outcome
from agent.core.tenant import Tenant
from agent.wire.websocket import MessageSocket

WRITER_GRACE_S: Final = 0.5
"""How long the pacer may take to finish a message when the call ends."""


async def _run_children(call: CallParts) -> None:
    """Run all children until one ends the call. Raises what the essential ones raise, as a group."""
    pace = partial(run_until_stopped, call.pacer.run, call.pacer.stop, grace_s=WRITER_GRACE_S)
    async with trio.open_nursery() as call.nursery:
        call.nursery.start_soon(call.ingress.run, name="ingress")
        call.nursery.start_soon(_run_realtime, call, name="realtime")
        call.nursery.start_soon(pace, name="TX pacer")
        call.nursery.start_soon(_run_monitor, call, name="barge-in monitor")
        call.nursery.start_soon(call.watch.run, name="watch")
        call.nursery.start_soon(call.watch.run_keepalive, call.socket, name="keepalive")
        call.start_guests()


async def _run_realtime(call: CallParts) -> None:
    """Keep the model connected; without one, apologise and hang up."""
    try:
        await call.leg.run()
    except ModelUnavailableError as error:
        call.conversation.response_requests.give_up(str(error))


async def _run_monitor(call: CallParts) -> None:
    """Do what is due; sleep until the next thing is, or until an event changes it."""
    while True:
        now = trio.current_time()
        due = (call.conversation.due(now), call.ingress.fill_gap(now))
        with trio.move_on_at(min((at for at in due if at is not None), default=math.inf)):
            await call.state.changed.park()


async def run_call(
    socket: MessageSocket, leg: CallerLeg, ticket: CallTicket, tenant: Tenant, services: CallServices
) -> CallRecord:
    """Serve one call from its answer to its durable record.

    No error of the call leaves this function; each becomes its outcome. A cancel, from inside or outside, ends
    the call within its graces: the writers stop between two messages, the caller's leg is hung up, the record
    is kept and handed over. The socket stays open: closing it is the business of whoever opened it.
    """
    events = services.events.bind(call=ticket.call_sid)
    state = CallState(services, leg, ticket, tenant, events, trio.current_time(), datetime.now(UTC))
    call = CallParts(socket, state)
    services.active[ticket.call_sid] = state.scope
    events.telemetry.active_calls.inc()
    events.emit("CALL_STARTED", direction=ticket.direction)
    try:
        with state.scope:
            try:
                await _run_children(call)
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

"""From a carrier stream to its call: who is admitted, and what becomes of the rest."""

from collections.abc import Awaitable, Callable
from typing import Final

from agent.call.ingress import receive_start
from agent.call.leg import phone_leg
from agent.call.services import CallServices
from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.errors import AdmissionError, SocketClosedError
from agent.nursery_call import run_call
from agent.wire.websocket import MessageSocket

POLICY_VIOLATION: Final = 1008


async def answer(
    socket: MessageSocket, services: CallServices, admit: Callable[[Start], Awaitable[CallTicket]]
) -> None:
    """Serve one carrier stream: admit it by its ``start`` message, then run its call.

    ``admit`` raises AdmissionError for a stream that is not to be served. Raises nothing but Cancelled; the
    socket is closed in every case.
    """
    code, reason = 1000, ""
    try:
        start = await receive_start(socket, services.events)
        ticket = await admit(start)
        if ticket.call_sid in services.active:
            raise AdmissionError("second_stream", "this call has a stream already")  # noqa: TRY301
        tenant = services.tenants.of_call(ticket.direction, ticket.caller, ticket.called)
        if tenant is None:
            raise AdmissionError("unknown_number", "the number that was called belongs to nobody")  # noqa: TRY301
        await run_call(socket, phone_leg(start, services.rest), ticket, tenant, services)
    except AdmissionError as error:
        services.events.emit("STREAM_REFUSED", "warning", kind=error.kind, detail=error.detail)
        code, reason = POLICY_VIOLATION, error.detail[:120]
    except SocketClosedError as closed:
        services.events.emit("STREAM_LEFT", code=closed.code)
    finally:
        await socket.aclose(code, reason)  # noqa: ASYNC102 - it shields and bounds itself

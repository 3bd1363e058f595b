"""Running psycopg's protocol generators on Trio.

The generators do everything but wait: they yield what they wait for (the socket readable, writable, or either)
and are sent back what became ready. psycopg ships loops for threads and for one other event loop; these are the
ones for Trio.
"""

import select
import time
from typing import TypeVar

import psycopg
import trio
from psycopg.abc import PQGen, PQGenConn
from psycopg.waiting import Ready, Wait

RV = TypeVar("RV")

NEAR_S = 25e-6
"""How long a query gives way to other tasks again and again before it lies down to sleep. A server on the same
machine answers in that time: to be woken from sleep costs more than the answer takes (benchmarks: half as much
again for a short query). It costs a far server's client this much CPU a round trip."""

_WAIT_R = int(Wait.R)
_WAIT_W = int(Wait.W)
_READY_R = int(Ready.R)
_READY_W = int(Ready.W)


async def drive(gen: PQGen[RV], fd: int) -> RV:
    """Run ``gen`` to its end, waiting for ``fd`` whenever it asks; returns what it returns.

    A cancel leaves the generator where it waits: ``drive`` it again to go on, or drop it.

    Raises:
        psycopg.OperationalError: the socket was closed while waiting. Besides, whatever ``gen`` raises.
    """
    try:
        state = next(gen)
        while True:
            if state == _WAIT_R:  # nearly always: the answer to a query
                await _until_readable(fd)
                state = gen.send(_READY_R)
            else:
                state = gen.send(await _ready(fd, state))
    except StopIteration as end:
        result: RV = end.value
        return result
    except (trio.ClosedResourceError, OSError) as error:
        raise psycopg.OperationalError("the connection was closed while waiting for the server") from error


async def drive_connecting(gen: PQGenConn[RV]) -> RV:
    """As :func:`drive`, for generators whose socket changes on the way: connecting, and cancelling.

    However it ends, ``gen`` is closed, and the half-made connection with it.
    """
    try:
        fd, state = next(gen)
        while True:
            if state == _WAIT_R:
                await trio.lowlevel.wait_readable(fd)
                fd, state = gen.send(_READY_R)
            else:
                await trio.lowlevel.wait_writable(fd)
                fd, state = gen.send(_READY_W)
    except StopIteration as end:
        result: RV = end.value
        return result
    except OSError as error:
        raise psycopg.OperationalError(f"the connection failed while waiting: {error}") from error
    finally:
        gen.close()


async def _until_readable(fd: int) -> None:
    until_s = time.perf_counter() + NEAR_S
    while time.perf_counter() < until_s:
        await trio.lowlevel.checkpoint()
        if is_readable(fd):
            return
    await trio.lowlevel.wait_readable(fd)


async def _ready(fd: int, state: int) -> int:
    """What of ``state`` is ready. A socket is nearly always writable, so it is asked before it is waited for."""
    if found := _ready_now(fd, state):
        await trio.lowlevel.checkpoint()  # a long parameter must not keep the others waiting
        return found
    if state == _WAIT_W:
        await trio.lowlevel.wait_writable(fd)
        return _READY_W
    return await _either(fd)


def is_readable(fd: int) -> bool:
    """Whether something has arrived on ``fd``, an end or an error included; does not wait."""
    return bool(_ready_now(fd, _WAIT_R))


def _ready_now(fd: int, state: int) -> int:
    """What of ``state`` is ready this moment; an error or a hang-up counts as all of it, as it does for Trio."""
    poll = select.poll()
    poll.register(fd, (select.POLLIN if state & _WAIT_R else 0) | (select.POLLOUT if state & _WAIT_W else 0))
    found = 0
    for _, events in poll.poll(0):
        if events & ~select.POLLOUT:
            found |= _READY_R & state
        if events & ~select.POLLIN:
            found |= _READY_W & state
    return found


async def _either(fd: int) -> int:
    """Wait until ``fd`` is readable or writable, whichever comes first; both if both came.

    Two tasks, because Trio waits for one thing at a time. Only reached when the socket's send buffer is full.
    """
    found, failed = 0, None
    try:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _readable() -> None:
                nonlocal found
                await trio.lowlevel.wait_readable(fd)
                found |= _READY_R
                nursery.cancel_scope.cancel(reason="readable")

            await trio.lowlevel.wait_writable(fd)
            found |= _READY_W
            nursery.cancel_scope.cancel(reason="writable")
    except* (trio.ClosedResourceError, OSError) as errors:
        failed = errors
    if failed is not None:
        raise OSError(f"the socket was closed: {failed.exceptions[0]}") from failed
    return found

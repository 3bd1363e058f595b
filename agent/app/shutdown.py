"""Stopping in order: no new calls, then the running ones end by themselves, then they are ended."""

import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from agent.core.event_log import EventLog
from agent.core.task_nursery import open_task_nursery
from agent.core.units import CallSid

ENDING_S: Final = 15.0
"""How long cancelled calls may take to end: drained writes, the hang-up by REST, the record on disk."""

GUESTS_S: Final = 3.0
"""How long guests that their calls left behind may still take when all else has ended."""


@asynccontextmanager
async def open_guests() -> AsyncIterator[trio.Nursery]:
    """The nursery of the calls' guests (see agent.call.guests), which must be around all else of the process.

    A task of Trio cannot be given up, not even one whose thread hangs. So if some are left GUESTS_S after the
    body, the process ends under them, with status 0, or with 1 and the traceback if the body failed.
    """
    async with open_task_nursery() as guests:
        try:
            yield guests
        finally:
            with trio.move_on_after(GUESTS_S, shield=True):
                while guests.child_tasks:  # noqa: ASYNC110 - a nursery tells nobody that it is empty
                    await trio.sleep(0.05)
            if guests.child_tasks:
                failed = sys.exc_info()[0] is not None
                if failed:
                    traceback.print_exc()
                sys.stdout.flush()
                os._exit(failed)


@attrs.define(eq=False)
class StopSignals:
    """SIGTERM and SIGINT: the first asks to stop, the second not to wait for the calls, the third for nothing."""

    events: EventLog
    stop: trio.Event = attrs.field(factory=trio.Event)
    hurry: trio.Event = attrs.field(factory=trio.Event)

    async def watch(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        """Follow ``signals`` until cancelled; the third cancels ``everything``."""
        async for number in signals:
            self.events.emit("SIGNAL", signal=signal.Signals(number).name)
            if not self.stop.is_set():
                self.stop.set()
            elif not self.hurry.is_set():
                self.hurry.set()
            else:
                everything.cancel(reason="a third signal")


async def drain(
    calls: Mapping[CallSid, trio.CancelScope],
    wait_empty: Callable[[], Awaitable[None]],
    hurry: trio.Event,
    *,
    drain_s: float,
    events: EventLog,
) -> None:
    """Let ``calls`` go on for ``drain_s`` or until ``hurry``, then cancel them and wait for their endings.

    Returns at the latest ENDING_S after the cancel, with a CALLS_ABANDONED event if some have not ended.
    """
    events.emit("DRAINING", calls=len(calls))
    with trio.move_on_after(drain_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, hurry.wait, nursery.cancel_scope)
            await wait_empty()
            nursery.cancel_scope.cancel()
    for scope in list(calls.values()):
        scope.cancel(reason="the server stops")
    with trio.move_on_after(ENDING_S) as ending:
        await wait_empty()
    if ending.cancelled_caught:
        events.emit("CALLS_ABANDONED", "error", calls=len(calls))


async def _cancel_when(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()

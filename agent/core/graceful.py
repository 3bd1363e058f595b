"""End a writer between two messages, never in the middle of one.

A cancel that lands inside a socket write leaves half a WebSocket frame on the wire and costs the connection.
The writers of a call therefore never feel the call's cancel: they are asked to stop, finish the message they are
writing, and only then, after a bound, are cut off.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

_T = TypeVar("_T")


async def run_until_stopped(
    run: Callable[[], Awaitable[None]], ask_to_stop: Callable[[], None], *, grace_s: float
) -> None:
    """Run ``run()`` to its end; a cancel from outside becomes ``ask_to_stop()`` and a bound of ``grace_s``.

    ``ask_to_stop`` is synchronous and must make ``run`` return at its next boundary. Errors of ``run`` pass
    bare. After a cancel this raises Cancelled as usual, once ``run`` is over.
    """
    shield = trio.CancelScope(shield=True)

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            shield.deadline = trio.current_time() + grace_s
            ask_to_stop()

    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with shield:
            try:
                await run()
            except Exception as raised:  # noqa: BLE001 - carried past the nursery, raised below
                error = raised
        nursery.cancel_scope.cancel(reason="the writer is done")
    if error is not None:
        raise error
    await trio.lowlevel.checkpoint_if_cancelled()


async def run_in_thread(work: Callable[[], _T], *, limiter: trio.CapacityLimiter, grace_s: float) -> _T:
    """``work()`` in a thread. A cancel waits for it, ``grace_s`` at most, and then leaves it to its thread.

    For what may hang and can be done again: a disk, not a request to somebody.
    """
    done: list[_T] = []

    async def run() -> None:
        done.append(await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True))

    await run_until_stopped(run, lambda: None, grace_s=grace_s)
    return done[0]

"""Code of others that a call waits for: a tool's function, a request to the carrier, a write to the disk.

It may fail, ignore a cancel, or hang in a thread. So it runs in a nursery that outlives the call, and who waits
for it can always leave: the call, its tool's limit and its ending are never held by it.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

import attrs
import trio

from agent.core.errors import sole_error
from agent.core.event_log import EventLog

CLEAN_UP_S: Final = 0.1
"""How long what was cancelled may take to clean up before it counts as left behind."""


@attrs.define(eq=False)
class _Work:
    name: str
    failed: str
    scope: trio.CancelScope = attrs.field(factory=lambda: trio.CancelScope(shield=True))
    """Its deadline is set when nobody waits any more; nothing else cancels the work."""
    done: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None


@attrs.define(eq=False)
class Guests:
    """The code of others that is at work for one call; ``nursery`` is the server's."""

    nursery: trio.Nursery
    events: EventLog
    _at_work: list[_Work] = attrs.field(factory=list)

    async def run(
        self,
        name: str,
        run: Callable[[], Awaitable[object]],
        *,
        grace_s: float = 0.0,
        failed: str = "GUEST_FAILED",
    ) -> None:
        """Wait for ``run()``; raises what it raises.

        A cancel ends the wait at once, and ``run()`` after ``grace_s`` more, or later if it does not obey. What
        it raises then is logged as ``failed``.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        work = _Work(name, failed)
        self._at_work.append(work)
        self.nursery.start_soon(self._run, work, run, name=name)
        try:
            await work.done.wait()
        except trio.Cancelled:
            work.scope.deadline = trio.current_time() + grace_s
            self._log_error(work)
            raise
        if work.error is not None:
            raise work.error

    async def until_ended(self, name: str = "") -> list[str]:
        """Wait, within its graces, for what nobody waits for (of it, for ``name``); returns what is left."""
        left = [work for work in self._at_work if work.scope.deadline < inf and name in ("", work.name)]
        for work in left:
            with trio.move_on_at(work.scope.deadline + CLEAN_UP_S):
                await work.done.wait()
        return [work.name for work in left if not work.done.is_set()]

    async def _run(self, work: _Work, run: Callable[[], Awaitable[object]]) -> None:
        try:
            with work.scope:
                await run()
        # The boundary of a guest: what it raises is for whoever waits, or for the log.
        except* Exception as group:  # noqa: BLE001
            work.error = sole_error(group)
        finally:
            self._at_work.remove(work)
            work.done.set()
        if work.scope.deadline < inf:
            self._log_error(work)

    def _log_error(self, work: _Work) -> None:
        if work.error is not None:
            self.events.exception(work.failed, work.error, guest=work.name)

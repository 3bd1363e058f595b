"""The lock of a connection."""

from types import TracebackType

import attrs
import trio


@attrs.define(eq=False)
class Lock:
    """A ``trio.Lock`` that does not give way when it is free: it only sees whether the task is cancelled.

    What is done under it waits for the server, which is checkpoint enough, and a pass of the scheduler is a tenth
    of a short query. Served in the order of asking, and owned by a task, like Trio's: to ask for it twice is a
    RuntimeError, not a deadlock.
    """

    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    async def acquire(self) -> None:
        """Wait for it; a cancel leaves it as it was."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    def release(self) -> None:
        """Let the next task have it. Raises RuntimeError if it is not this task's."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether a task has it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._lock.release()

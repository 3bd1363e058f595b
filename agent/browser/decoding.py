"""The chunks of one call on their way through its decoder, off the event loop (ST-3, WB-4)."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, Protocol

import attrs
import trio

MOST_CHUNK_BYTES: Final = 64 * 1024
"""Of one message: a second of Opus at its highest rate, of speech 20."""
MOST_WAITING_BYTES: Final = 512 * 1024
"""Of chunks that are not decoded yet."""
_threads: Final = trio.CapacityLimiter(1)
"""For all calls: 100 need a quarter of a core, and a second thread decodes no faster on the one there is."""

Job = Callable[[], list[bytes]]
RunJob = Callable[[Job], Awaitable[list[bytes]]]


class ChunkDecoder(Protocol):
    """Chunks of one call to frames of its audio. Used by one thread at a time."""

    def decode(self, chunk: bytes, most_ms: float) -> list[bytes]:
        """The frames that are complete with ``chunk``.

        Raises UnreadableAudioError; also if the call's audio is longer than ``most_ms`` with it.
        """


class DecodingObserver(Protocol):
    """Told what decoding costs (WB-8), synchronously."""

    def decoded(self, cpu_s: float, lag_s: float) -> None:
        """A chunk was decoded: the thread's CPU time for it, and the time from its coming to its frames."""


async def run_in_thread(job: Job) -> list[bytes]:
    """Run ``job`` in the decoders' thread. A cancel waits for its end, a millisecond."""
    return await trio.to_thread.run_sync(job, limiter=_threads)


@attrs.define(eq=False)
class Decoding:
    """The way of one call's chunks through its decoder, in order."""

    decoder: ChunkDecoder
    observer: DecodingObserver
    run_job: RunJob = run_in_thread
    _waiting: deque[tuple[float, bytes]] = attrs.field(factory=deque)
    _waiting_bytes: int = 0
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put(self, chunk: bytes) -> bool:
        """Take a chunk; False: there is too much of it."""
        if len(chunk) > MOST_CHUNK_BYTES or self._waiting_bytes > MOST_WAITING_BYTES:
            return False
        self._waiting.append((trio.current_time(), chunk))
        self._waiting_bytes += len(chunk)
        self._came.unpark()
        return True

    async def run(self, take: Callable[[bytes], None], most_ms: Callable[[], float]) -> NoReturn:
        """Give all frames to ``take``, as they are ready. ``most_ms`` is how long the call's audio may be by now.

        Raises UnreadableAudioError. A cancel loses what is not decoded.
        """
        while True:
            while not self._waiting:
                await self._came.park()
            came_s, chunk = self._waiting[0]
            cpu_s = 0.0

            def job(chunk: bytes = chunk, most: float = most_ms()) -> list[bytes]:
                nonlocal cpu_s
                began_s = time.thread_time()
                try:
                    return self.decoder.decode(chunk, most)
                finally:
                    cpu_s = time.thread_time() - began_s

            frames = await self.run_job(job)
            self._waiting.popleft()
            self._waiting_bytes -= len(chunk)
            for frame in frames:
                take(frame)
            self.observer.decoded(cpu_s, trio.current_time() - came_s)

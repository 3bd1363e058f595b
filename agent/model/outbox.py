"""What waits to be written to the model, in order; it outlives a lost socket.

The receive loops put messages here without waiting (DESIGN D8); one task writes them. While there is no session,
caller audio is kept, newest first to stay: the words said during a reconnection are answered afterwards.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from agent.wire.websocket import MessageSocket

KEEP_AUDIO_MESSAGES: Final = 750
"""Caller audio kept while there is no session: 15 s of 20 ms frames."""

GIVE_WAY_EVERY: Final = 32
"""Messages written one after the other: less than a millisecond."""


@attrs.define(eq=False)
class ModelOutbox:
    """The queue in front of the model's socket. Everything but ``run`` is synchronous."""

    audio_dropped: Callable[[], None]
    connected: bool = False
    _queue: deque[tuple[bool, str]] = attrs.field(factory=deque)
    _settings: list[str] = attrs.field(factory=list)
    _audio_waiting: int = 0
    _stopping: bool = False
    _socket: MessageSocket | None = None
    """That of ``run``."""
    _parked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def put_audio(self, message: str) -> None:
        """Caller audio, encoded. The oldest gives way while there is no session for too long."""
        if self._sent_now(message):
            return
        if not self.connected and self._audio_waiting >= KEEP_AUDIO_MESSAGES:
            self._drop_oldest_audio()
        self._audio_waiting += 1
        self._put((True, message))

    def put(self, message: str) -> None:
        """Any other event: never dropped while its session lives."""
        if not self._sent_now(message):
            self._put((False, message))

    def open_session(self, settings: str) -> None:
        """A session is open: ``settings`` goes out, and nothing else until ``begin``."""
        self._settings.append(settings)
        self._stopping = False
        self._parked.unpark()

    def begin(self, first: list[str]) -> None:
        """The session is as we want it: ``first`` goes out before everything that waits."""
        self.connected = True
        self._queue.extendleft((False, message) for message in reversed(first))
        self._parked.unpark()

    def lose_session(self) -> None:
        """The session is gone, and with it the meaning of all that waits but the caller's audio."""
        self.connected = False
        self._settings.clear()
        self._queue = deque(entry for entry in self._queue if entry[0])

    def stop(self) -> None:
        """Return from ``run`` at the next boundary between messages."""
        self._stopping = True
        self._parked.unpark()

    async def run(self, socket: MessageSocket) -> None:
        """Write until ``stop``. Raises SocketClosedError. Run it under ``run_until_stopped``.

        While it waits and nothing else does, whoever puts a message writes it in this task's stead; a long queue
        gives way to others each GIVE_WAY_EVERY messages.
        """
        self._socket, written = socket, 0
        while not self._stopping:
            written += 1
            if written > GIVE_WAY_EVERY:
                await trio.lowlevel.checkpoint()
                written = 0
            elif self._settings:
                await socket.send(self._settings.pop(0))
            elif self.connected and self._queue:
                is_audio, message = self._queue.popleft()
                self._audio_waiting -= is_audio
                await socket.send(message)
            else:
                written = 0
                await self._parked.park()

    def _sent_now(self, message: str) -> bool:
        """Whether ``run`` waits for something to do, and the socket took ``message`` at once."""
        ready = self.connected and not self._queue and self._parked and not self._stopping
        return bool(ready) and self._socket is not None and self._socket.send_now(message)

    def _put(self, entry: tuple[bool, str]) -> None:
        self._queue.append(entry)
        if self._parked:
            self._parked.unpark()

    def _drop_oldest_audio(self) -> None:
        for index, (is_audio, _) in enumerate(self._queue):
            if is_audio:
                del self._queue[index]
                self._audio_waiting -= 1
                self.audio_dropped()
                return

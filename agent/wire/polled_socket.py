"""The engine for real sockets: frames are read by the poller, tasks are woken, writes go straight to the socket.

A receive that finds a message there, and a send that the socket takes, cost no pass of the scheduler. What the
socket does not take is flushed by the poller: a writer that is cancelled leaves no half frame behind.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio
from typing_extensions import override

from agent.core.errors import SocketClosedError
from agent.wire.frames import PING, PONG, Closed, FrameReader, FrameWriter, Ping, Received, Violation
from agent.wire.links import Link
from agent.wire.message_socket import (
    CANCELLED_CLOSE_GRACE_S,
    CLOSE_GRACE_S,
    MAX_MESSAGE_BYTES,
    QUEUED_BYTES,
    QUEUED_MESSAGES,
    EngineSocket,
    SendCheck,
    Sink,
)
from agent.wire.poller import READ, WRITE, Polled, Poller

UNSENT_CONTROL_BYTES: Final = 16 * 1024
"""With more than this waiting to be written, pings are not answered: who only sends them costs no memory."""
_BROKEN: Final = 1006


@attrs.define(eq=False)
class PolledWebSocket(EngineSocket, Polled):
    """``MessageSocket`` on a link of our own. Whoever opened it calls ``drop`` at the end."""

    _link: Link
    _poller: Poller
    _reader: FrameReader
    _writer: FrameWriter
    _queue: deque[str | bytes] = attrs.field(factory=deque)
    _queued: int = 0
    """Characters and bytes in the queue."""
    _receiver: trio.lowlevel.Task | None = None
    """Who waits for a message; nobody does while there is one in the queue."""
    _sink: Sink | None = None
    _flushed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Where those wait whose message is not all written, and the closing for the peer's close."""
    _pongs: dict[bytes, trio.Event] = attrs.field(factory=dict)
    _end: SocketClosedError | None = None
    """How the connection ended; there is nothing to read or to send any more."""
    _failure: Exception | None = None
    _close_sent: bool = False
    _reading: bool = True
    _dropped: bool = False

    @classmethod
    def over(cls, link: Link, poller: Poller, *, client: bool, unread: bytes = b"") -> PolledWebSocket:
        """On a connection whose handshake is done; ``unread`` came behind it."""
        made = cls(link, poller, FrameReader(client, MAX_MESSAGE_BYTES), FrameWriter(client))
        poller.add(link.fileno(), made)
        made._take(unread)
        return made

    # For the call's tasks

    @override
    async def receive(self) -> str | bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        queue = self._queue
        while not queue:
            if self._failure is not None:
                raise self._failure
            if self._end is not None:
                raise SocketClosedError(self._end.code, self._end.reason)
            if self._receiver is not None:
                raise trio.BusyResourceError("another task receives")
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort_receive)
        message = queue.popleft()
        self._queued -= len(message)
        if not self._reading and len(queue) < QUEUED_MESSAGES // 2 and self._queued < QUEUED_BYTES // 2:
            self._reading = True
            self._watch()
        return message

    def _abort_receive(self, _raise_cancel: Callable[[], None]) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    @override
    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._link.unsent:
            await self._until_written()
        self._check_open()
        if may_send is not None and not may_send():
            return False
        self._write(self._writer.message(message))
        if self._link.unsent:
            await self._until_written()
        if self._end is not None:
            self._check_open()
        return True

    @property
    @override
    def takes_now(self) -> bool:
        return self._end is None and not self._close_sent and not self._link.unsent

    @override
    def send_now(self, *messages: str | bytes) -> bool:
        link = self._link
        if self._end is not None or self._close_sent or link.unsent:
            return False
        framed = self._writer.message
        self._write(framed(messages[0]) if len(messages) == 1 else b"".join(map(framed, messages)))
        return True

    @override
    def serve_by(self, sink: Sink) -> None:
        self._sink = sink

    @override
    async def ping(self) -> None:
        self._check_open()
        payload = os.urandom(8)
        answered = self._pongs[payload] = trio.Event()
        self._write(self._writer.frame(PING, payload))
        try:
            await answered.wait()
        finally:
            self._pongs.pop(payload, None)
        if self._end is not None:
            self._check_open()

    @override
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        cancelled = trio.current_effective_deadline() == float("-inf")
        with trio.move_on_after(CANCELLED_CLOSE_GRACE_S if cancelled else CLOSE_GRACE_S, shield=True):
            self._send_close(code, reason)
            while not self._dropped and (self._end is None or self._link.unsent):
                await self._flushed.park()
        self.drop()

    @override
    async def abort(self) -> None:
        self.drop()
        await trio.lowlevel.checkpoint()

    def drop(self) -> None:
        """Close the connection at once; may be repeated."""
        self._finish(_BROKEN)
        if not self._dropped:
            self._dropped = True
            self._poller.remove(self._link.fileno())
            self._link.close()
            self._flushed.unpark_all()

    async def _until_written(self) -> None:
        while self._link.unsent and not self._dropped and self._end is None:
            await self._flushed.park()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._end is not None:
            raise SocketClosedError(self._end.code, self._end.reason)
        if self._close_sent:
            raise SocketClosedError(_BROKEN, "closed by us")

    # For the poller

    @override
    def on_readable(self) -> None:
        link = self._link
        try:
            data = link.read()
        except OSError:
            self.drop()
            return
        if self._end is None:
            self._take(data)
        if link.ended:
            self.drop()

    @override
    def on_writable(self) -> None:
        try:
            self._link.flush()
        except OSError:
            self.drop()
            return
        if not self._link.unsent:
            self._watch()
            self._flushed.unpark_all()

    @override
    def on_error(self, error: Exception) -> None:
        self._failure = error
        self._finish(_BROKEN)

    def _take(self, data: bytes) -> None:
        queue, sink = self._queue, self._sink
        for event in self._reader.feed(data):
            if type(event) is str or type(event) is bytes:
                if sink is not None and self._receiver is not None:
                    sink(event)
                else:
                    queue.append(event)
                    self._queued += len(event)
                    self._wake_receiver()
            else:
                self._handle(event)
        if self._reading and (len(queue) >= QUEUED_MESSAGES or self._queued >= QUEUED_BYTES):
            self._reading = False
            self._watch()

    def _handle(self, event: Received) -> None:
        if isinstance(event, Ping):
            if self._link.unsent <= UNSENT_CONTROL_BYTES and not self._close_sent:
                self._write(self._writer.frame(PONG, event.payload))
        elif isinstance(event, Closed):
            self._send_close(event.code, "")
            self._finish(event.code, event.reason)
        elif isinstance(event, Violation):
            self._send_close(event.code, event.reason)
            self._finish(event.code, event.reason)
        elif event.payload in self._pongs:  # type: ignore[union-attr]  # a Pong; it answers all pings before it
            for payload in tuple(self._pongs):
                self._pongs.pop(payload).set()
                if payload == event.payload:  # type: ignore[union-attr]
                    break

    def _send_close(self, code: int, reason: str) -> None:
        if not self._close_sent and self._end is None:
            self._close_sent = True
            self._write(self._writer.close(code, reason))

    def _write(self, frame: bytes) -> None:
        try:
            began = self._link.write(frame)
        except OSError:
            self.drop()
        else:
            if began:
                self._watch()

    def _watch(self) -> None:
        reads = READ if self._reading and self._end is None else 0
        self._poller.watch(self._link.fileno(), reads | (WRITE if self._link.unsent else 0))

    def _finish(self, code: int, reason: str = "") -> None:
        """The connection is over: everybody who waits is told. What was read before is still given out."""
        if self._end is not None:
            return
        self._end = SocketClosedError(code, reason)
        self._watch()
        self._wake_receiver()
        self._flushed.unpark_all()
        for answered in self._pongs.values():
            answered.set()

    def _wake_receiver(self) -> None:
        task, self._receiver = self._receiver, None
        if task is not None:
            trio.lowlevel.reschedule(task)

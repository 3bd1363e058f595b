"""Between trio-websocket and the stream it runs over: the last look, two shortcuts, and a home for its reader."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import attrs
import h11
import trio
import trio_websocket as tws
from wsproto.events import BytesMessage, Event, TextMessage
from wsproto.utilities import LocalProtocolError

from agent.core.errors import HandshakeRejectedError, SocketClosedError
from agent.core.task_nursery import open_task_nursery
from agent.wire.message_socket import SendCheck

_MESSAGES: Final = (0x1, 0x2)
"""Opcodes: text, binary."""
_OPCODE: Final = 0x0F


@attrs.define(eq=False)
class SendGuard(trio.abc.Stream):
    """The stream under the engine: asks ``may_send`` about a message just before it is written.

    The engine takes a lock between being asked to send and writing, and other tasks run meanwhile. A whole
    unfragmented, uncompressed WebSocket frame that is left out here leaves a valid stream behind.
    """

    inner: trio.abc.Stream
    ahead: bytes = b""
    """Read already, by whoever looked at the handshake; read again before the stream."""
    may_send: SendCheck | None = None
    refused: bool = False
    on_end: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, unless it is a message that is not wanted any more."""
        if self.may_send is not None and data[0] & _OPCODE in _MESSAGES and not self.may_send():
            self.refused = True
            await trio.lowlevel.checkpoint()
            return
        try:
            await self.inner.send_all(data)
        except trio.BrokenResourceError:
            self._tell_end()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream; the end is told to ``on_end``, too."""
        if self.ahead:
            await trio.lowlevel.checkpoint()
            taken = self.ahead[:max_bytes]
            self.ahead = self.ahead[len(taken) :]
            return taken
        try:
            data = await self.inner.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._tell_end()
            raise
        if not data:
            self._tell_end()
        return data

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self.inner.aclose()

    def _tell_end(self) -> None:
        """A connection that was reset is over like one that was closed."""
        if self.on_end is not None:
            self.on_end()


class QuickConnection(tws.WebSocketConnection):
    """trio-websocket's connection, with two shortcuts past checkpoints it does not need.

    A call sends and receives two hundred messages a second; measured in docs/decisions.md. Both methods are
    the library's own but for that; its version is pinned.
    """

    async def _send(self, event: Event) -> None:
        """As inherited, but an uncontended lock is taken without giving way to the scheduler."""
        data = self._wsproto.send(event)
        if self._stream_lock.locked():
            await self._stream_lock.acquire()
        else:
            self._stream_lock.acquire_nowait()
        broken = False
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            broken = True
        finally:
            self._stream_lock.release()
        if broken:
            await self._abort_web_socket()
            raise tws.ConnectionClosed(self._close_reason)

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        """As inherited, but a whole message that has room in the queue is put there at once."""
        whole = event.message_finished and not self._message_parts
        if whole and len(event.data) <= self._max_message_size:
            with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
                self._send_channel.send_nowait(cast("bytes | str", event.data))
                return
        await super()._handle_message_event(event)


async def drop(stream: trio.abc.AsyncResource) -> None:
    """Close at once and without a goodbye. Raises no Cancelled, which would hide an error on its way out."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def closed_error(closed: tws.ConnectionClosed) -> SocketClosedError:
    """The engine's word for an end, in ours."""
    reason = closed.reason
    return SocketClosedError(1006) if reason is None else SocketClosedError(reason.code, reason.reason or "")


@attrs.frozen
class _ReaderHome:
    """Where a connection's reader task runs."""

    nursery: trio.Nursery

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self.nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[None]]) -> None:
        # A ping that arrives when our close frame is out, or an answer to a client that is no HTTP: the engine
        # tries to answer, and may not (any more).
        with suppress(LocalProtocolError, h11.LocalProtocolError):
            await reader()


@asynccontextmanager
async def open_reader_nursery(stream: SendGuard) -> AsyncIterator[_ReaderHome]:
    """A home for the engine's reader task: ended, and the stream dropped, however the body ends.

    The reader itself only fails during the handshake, so a group of one is the body's own error, or the
    peer's refusal, and is raised bare.
    """
    try:
        async with open_task_nursery() as nursery:
            yield _ReaderHome(nursery)
    except tws.ConnectionRejected as error:
        body = (error.body or b"").decode(errors="replace")
        raise HandshakeRejectedError(error.status_code, body[:200]) from None
    except tws.ConnectionClosed as error:
        raise closed_error(error) from None
    finally:
        await drop(stream)  # noqa: ASYNC102 - it does not wait

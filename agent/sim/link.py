"""A connection that can be held up and cut, underneath a WebSocket.

A WebSocket engine reads ahead and answers pings and close frames on its own; a peer that is really stuck does
not. To simulate one, hold its end of the connection here.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio
from trio.testing import memory_stream_pair

_OPCODE: Final = 0x0F
_CLOSE: Final = 0x8


@attrs.define(eq=False)
class HeldStream(trio.abc.Stream):
    """A stream under a WebSocket engine that can be made deaf, or made never to close."""

    inner: trio.abc.Stream
    _let_go: trio.Event | None = None
    _never_closes: bool = False
    _peer_gone: trio.Event = attrs.field(factory=trio.Event)

    def hold(self) -> None:
        """Read nothing from now on, not even pings and close frames; what is sent still goes out."""
        if self._let_go is None:
            self._let_go = trio.Event()

    def let_go(self) -> None:
        """Read on."""
        if self._let_go is not None:
            self._let_go.set()
            self._let_go = None

    def never_close(self) -> None:
        """Send no close frame from now on, and close only when the peer has: a Realtime server's manners."""
        self._never_closes = True

    async def until_peer_gone(self) -> None:
        """Wait until the peer has closed the connection (or we have closed it after all)."""
        await self._peer_gone.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream. What was being read when the hold began is held back, not lost."""
        data = await self.inner.receive_some(max_bytes)
        while self._let_go is not None:
            await self._let_go.wait()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See trio.abc.SendStream."""
        if self._never_closes and data[0] & _OPCODE == _CLOSE:
            await trio.lowlevel.checkpoint()
            return
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource; lets a held reader go, to find the stream closed."""
        self.let_go()
        try:
            while self._never_closes and await self.inner.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone as well
        finally:
            self._peer_gone.set()
            await self.inner.aclose()


@attrs.define(eq=False)
class _Pipe:
    """How much is on its way in one direction; a full pipe makes the sender wait, as TCP does."""

    capacity_bytes: int
    on_the_way_bytes: int = 0
    closed: bool = False
    _lot: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def until_room(self) -> None:
        while self.on_the_way_bytes >= self.capacity_bytes and not self.closed:
            await self._lot.park()

    def taken(self, length: int) -> None:
        self.on_the_way_bytes -= length
        self._lot.unpark_all()

    def close(self) -> None:
        self.closed = True
        self._lot.unpark_all()


@attrs.define(eq=False)
class _BoundedStream(trio.abc.Stream):
    """One end of a memory connection whose pipes hold only so much."""

    inner: trio.abc.Stream
    outgoing: _Pipe
    incoming: _Pipe

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.outgoing.until_room()
        await self.inner.send_all(data)
        self.outgoing.on_the_way_bytes += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.outgoing.until_room()
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.inner.receive_some(max_bytes)
        self.incoming.taken(len(data))
        return data

    async def aclose(self) -> None:
        self.outgoing.close()
        self.incoming.close()
        await self.inner.aclose()


PIPE_BYTES: Final = 64 * 1024
"""What a memory connection holds in each direction by default: about a socket buffer."""


def memory_link(capacity_bytes: int = PIPE_BYTES) -> tuple[HeldStream, HeldStream]:
    """Two ends of a connection in memory; a sender waits while ``capacity_bytes`` are unread."""
    one, other = memory_stream_pair()
    there, back = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return HeldStream(_BoundedStream(one, there, back)), HeldStream(_BoundedStream(other, back, there))

"""A connection that can be held up and cut, underneath a WebSocket.

A WebSocket engine reads ahead and answers pings and close frames on its own; a peer that is really stuck does
not. To simulate one, hold its end of the connection here.
"""

from typing import Final

import attrs
import trio

from agent.sim.tasks import Parker

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
        """Send no close frame from now on, and close only after the peer, as OpenAI's Realtime server does."""
        self._never_closes = True

    async def until_peer_gone(self) -> None:
        """Wait until the peer has closed the connection (or we have closed it after all)."""
        await self._peer_gone.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream. What was being read when the hold began is held back, not lost."""
        data = await self.inner.receive_some(max_bytes)
        if not data:
            self._peer_gone.set()
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
            await trio.lowlevel.checkpoint_if_cancelled()  # closed forcefully, it must not be in a reader's way
            while self._never_closes and await self.inner.receive_some():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone as well
        except trio.BusyResourceError:  # who reads finds the end
            await self._peer_gone.wait()
        finally:
            self._peer_gone.set()
            await self.inner.aclose()


@attrs.define(eq=False)
class _Pipe:
    """One direction of a memory connection: a buffer that holds so much, as a socket's does."""

    capacity_bytes: int
    _data: bytearray = attrs.field(factory=bytearray)
    _ended: bool = False
    _broken: bool = False
    _reader: Parker = attrs.field(factory=Parker)
    _writer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def write(self, data: memoryview) -> int:
        """Take what there is room for; returns how much. Raises BrokenResourceError if nobody reads any more."""
        if self._broken:
            raise trio.BrokenResourceError("the peer closed the connection")
        taken = min(len(data), max(self.capacity_bytes - len(self._data), 0))
        self._data += data[:taken]
        self._reader.wake()
        return taken

    def read(self, max_bytes: int) -> bytes | None:
        """What has arrived; empty at the end, None if nothing is there yet."""
        if not self._data:
            return b"" if self._ended else None
        data = bytes(self._data[:max_bytes])
        del self._data[:max_bytes]
        if self._writer:
            self._writer.unpark_all()
        return data

    async def until_room(self) -> None:
        while len(self._data) >= self.capacity_bytes and not self._broken:
            await self._writer.park()

    async def until_data(self) -> None:
        while not self._data and not self._ended:
            await self._reader.park()

    def end(self) -> None:
        """The sender closed: what is on its way still arrives."""
        self._ended = True
        self._reader.wake()

    def break_off(self) -> None:
        """The reader closed: what is on its way is lost, and writing fails."""
        self._broken = self._ended = True
        self._data.clear()
        self._writer.unpark_all()
        self._reader.wake()


@attrs.define(eq=False)
class _MemoryStream(trio.abc.Stream):
    """One end of a memory connection; it blocks, fails and closes as a socket does.

    A write hands over what fits before it gives way to the scheduler, so a cancel in a full pipe leaves half
    a message on the wire, as it would on TCP. (Trio's own memory streams write all or nothing, and only after
    two checkpoints.) Raises what a SocketStream raises.
    """

    outgoing: _Pipe
    incoming: _Pipe
    _closed: bool = False
    _sending: bool = False
    _receiving: bool = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            left = memoryview(data)
            while left:
                self._check_open()
                left = left[self.outgoing.write(left) :]
                if left:
                    await self.outgoing.until_room()
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_open()
        await self.outgoing.until_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check_open()
            data = self.incoming.read(max_bytes or PIPE_BYTES)
            if data is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            await self.incoming.until_data()
            self._check_open()
            return self.incoming.read(max_bytes or PIPE_BYTES) or b""
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        self._closed = True
        self.outgoing.end()
        self.incoming.break_off()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")


PIPE_BYTES: Final = 64 * 1024
"""What a memory connection holds in each direction by default: about a socket buffer."""


def memory_link(capacity_bytes: int = PIPE_BYTES) -> tuple[HeldStream, HeldStream]:
    """Two ends of a connection in memory; a sender waits while ``capacity_bytes`` are unread."""
    there, back = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return HeldStream(_MemoryStream(there, back)), HeldStream(_MemoryStream(back, there))

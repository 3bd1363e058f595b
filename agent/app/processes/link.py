"""A socket between parent and child that carries messages, and descriptors with them."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Final

import attrs
import msgspec
import trio

from agent.app.processes.messages import Message
from agent.core.errors import AgentError

BUFFER_BYTES: Final = 1024 * 1024
"""What the system is asked to buffer; Linux gives 208 KB unless it is told otherwise, a message has 100."""
MOST_DESCRIPTORS: Final = 16
_decoder: Final = msgspec.msgpack.Decoder(Message)
_ancillary: Final = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
GONE: Final = (OSError, trio.ClosedResourceError)
"""What sending raises when the other end is not there any more, or the message is too long."""


class NoSeveralError(AgentError):
    """This system has no sockets that keep messages apart and tell of their end."""


@attrs.define(eq=False)
class Link:
    """One end. One task receives; any may send."""

    _socket: trio.socket.SocketType
    _sending: trio.Lock = attrs.field(factory=trio.Lock)

    @classmethod
    def over(cls, end: socket.socket) -> Link:
        """The link of one end of ``open_pair``."""
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        return cls(trio.socket.from_stdlib_socket(end))

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message, and duplicates of ``descriptors``. All or nothing, also when cancelled. Raises GONE."""
        data = msgspec.msgpack.encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        async with self._sending:
            await self._socket.sendmsg([data], rights)

    async def receive(self) -> tuple[Message, list[int]] | None:
        """The next message with its descriptors, which are ours to close; None: the other end is gone."""
        try:
            data, ancillary, _, _ = await self._socket.recvmsg(BUFFER_BYTES, _ancillary, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None
        if not data:
            return None
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        return _decoder.decode(data), list(descriptors)

    def close(self) -> None:
        """Close it; whoever waits is told by ClosedResourceError."""
        self._socket.close()


def open_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends. Raises NoSeveralError."""
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        raise NoSeveralError(f"several processes need Linux, set AGENT_PROCESSES=1: {error}") from None


def close_all(descriptors: Sequence[int]) -> None:
    """Close what came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)

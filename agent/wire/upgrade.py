"""A WebSocket's opening handshake as it is handed to an engine: the head is read, everything behind it is not.

Whoever reads requests (the front door) and whoever speaks WebSocket meet here; any engine can take it.
"""

from typing import Final

import attrs
import trio

from agent.core.errors import SocketClosedError

MAX_HEAD_BYTES: Final = 16 * 1024
"""Longest head taken. Twilio's are under 2 KB."""
_END: Final = b"\r\n\r\n"


@attrs.frozen
class Upgrade:
    """A request for a WebSocket that nobody has answered yet."""

    stream: trio.abc.Stream
    """The connection; whoever takes the upgrade closes it."""
    head: bytes
    """The request's head as it came, with its blank line."""
    unread: bytes
    """What came behind the head; to be read before the stream."""


async def receive_upgrade(stream: trio.abc.Stream) -> Upgrade:
    """Read the first request's head from ``stream``; whether it is a good one is for the engine to say.

    Raises SocketClosedError when the peer leaves before its end, or when it is longer than MAX_HEAD_BYTES.
    """
    raw = bytearray()
    while _END not in raw:
        if len(raw) > MAX_HEAD_BYTES:
            raise SocketClosedError(1006, "the handshake's head is too long")
        try:
            data = await stream.receive_some(MAX_HEAD_BYTES)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise SocketClosedError(1006, "during the handshake")
        raw += data
    head, end, unread = bytes(raw).partition(_END)
    return Upgrade(stream, head + end, unread)

"""The seam: what the rest of the system knows of a WebSocket, whichever engine carries its frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

MAX_MESSAGE_BYTES: Final = 2 * 1024 * 1024
"""Largest message taken from a peer (WB-6); a larger one closes the connection with 1009."""
QUEUED_MESSAGES: Final = 512
"""Messages read ahead of ``receive``: ten seconds of a call's frames. A full queue stops reading (and
answering pings), so the receive loops never wait for anything downstream."""
QUEUED_BYTES: Final = 4 * 1024 * 1024
"""The same in bytes, for the engine on real sockets: 512 messages of 2 MB would be a gigabyte."""
RECEIVE_BUFFER_BYTES: Final = 16 * 1024
CLOSE_GRACE_S: Final = 1.0
"""How long a peer may take to answer our close frame; OpenAI never answers it."""
CANCELLED_CLOSE_GRACE_S: Final = 0.1
"""The same in a cancelled scope, where nobody wants to wait: our frame is sent."""
HANDSHAKE_S: Final = 5.0
"""How long the opening handshake may take, name look-up, TCP and TLS included."""

SendCheck = Callable[[], bool]
Sink = Callable[[str | bytes], None]
"""Takes a message."""


class MessageSocket(Protocol):
    """A WebSocket as the rest of the system knows it. One task receives, one task sends."""

    async def receive(self) -> str | bytes:
        """Wait for the next message. Raises SocketClosedError at the end. A cancel loses no message.

        What has arrived is given out without giving way to other tasks.
        """

    async def send(self, message: str | bytes, may_send: SendCheck | None = None) -> bool:
        """Write one message, text or binary; False if ``may_send()`` said no at the very last moment.

        ``may_send`` is called with no checkpoint between it and the write to the operating system, so what it
        allows is on the wire before any other task can run. Raises SocketClosedError. A cancel before the
        write sends nothing; one during it may break the connection, so only the end of a call may do that.
        """

    @property
    def takes_now(self) -> bool:
        """Whether ``send_now`` would write. False of an engine that always has to wait."""
        return False

    def send_now(self, *messages: str | bytes) -> bool:
        """Write messages without waiting, in one go; False: it would have to, and nothing was done. Never raises.

        What goes wrong is raised by the next ``send`` or ``receive``.
        """
        del messages
        return False

    def serve_by(self, sink: Sink) -> None:
        """Messages that come while a task waits in ``receive`` may be taken by ``sink``, in the task's stead.

        What it raises is raised by ``receive``, and the connection is over. An engine need not call it.
        """
        del sink

    async def ping(self) -> None:
        """Send a ping and wait for its pong. Raises SocketClosedError."""

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with a close frame, wait at most CLOSE_GRACE_S for the answer, then drop the connection.

        Never raises, may be repeated, and is shielded: it does the same in a cancelled scope.
        """


class EngineSocket(MessageSocket, Protocol):
    """A socket for whoever opened it."""

    async def abort(self) -> None:
        """Drop the connection with no close frame, as a broken network does; the peer sees 1006."""


class Handshake(Protocol):
    """A WebSocket handshake waiting for our answer; call ``accept`` or ``reject`` once."""

    @property
    def target(self) -> str:
        """Path and query as the peer sent them."""

    @property
    def headers(self) -> dict[str, str]:
        """Header fields, names in lower case; the last one wins."""

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """Subprotocols the peer offers, in its order of preference."""

    async def accept(self) -> EngineSocket:
        """Answer 101 with the first subprotocol offered, or none if none was (WB-1)."""

    async def reject(self, status: int, body: str) -> None:
        """Answer with an HTTP error and a plain-text body saying why."""

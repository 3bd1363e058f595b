"""One request and its answer, on h11: which bytes mean what, and whether another may follow. No I/O."""

from collections.abc import Iterable

import attrs
import h11

from agent.web.head import MAX_HEAD_BYTES, RefusedError, RequestHead

_NO_BODY = (204, 304)
Fields = Iterable[tuple[bytes, bytes]]


@attrs.define(eq=False)
class Exchange:
    """A request, first; then the answer to it.

    A connection is used again only if both are whole and the request's length was a number: behind a body in
    chunks a proxy and we might disagree where the next request begins.
    """

    head: RequestHead
    max_body_bytes: int
    is_last: bool = False
    """Whether the connection is closed after this one in any case."""
    body: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    is_whole: bool = attrs.field(default=False, init=False)
    """Whether all of the request is there."""
    has_begun: bool = attrs.field(default=False, init=False)
    """Whether the answer's head was made."""
    is_over: bool = attrs.field(default=False, init=False)
    """Whether all of the answer was made."""
    _status: int = attrs.field(default=0, init=False)
    _protocol: h11.Connection = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        if self.head.body_bytes > self.max_body_bytes:
            raise self._too_large()
        self.feed(self.head.raw)

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client sends its body only when it is told to."""
        return bool(self._protocol.they_are_waiting_for_100_continue)

    def encode_continue(self) -> bytes:
        """What tells it to."""
        return self._protocol.send(h11.InformationalResponse(status_code=100, headers=[])) or b""

    def feed(self, data: bytes | bytearray) -> None:
        """Take some of the request; empty at the client's end.

        Raises RefusedError: 413 for more than ``max_body_bytes``, 400 for what is no body, or half of one.
        """
        try:
            self._protocol.receive_data(bytes(data))
            while not self.is_whole:
                event = self._protocol.next_event()
                if isinstance(event, h11.Data):
                    self.body += event.data
                    if len(self.body) > self.max_body_bytes:
                        raise self._too_large()
                elif isinstance(event, h11.EndOfMessage):
                    self.is_whole = True
                elif event in (h11.NEED_DATA, h11.PAUSED):
                    return
        except h11.RemoteProtocolError:
            raise RefusedError(400, "the request's body is not what its head says") from None

    @property
    def unread(self) -> bytes:
        """What came behind the request."""
        return bytes(self._protocol.trailing_data[0])

    @property
    def is_reusable(self) -> bool:
        """Whether the connection may bring another request."""
        ours, theirs = self._protocol.our_state, self._protocol.their_state
        return bool(ours is h11.DONE and theirs is h11.DONE)

    def encode_head(self, status: int, fields: Fields) -> bytes:
        """The answer's head. Raises h11.LocalProtocolError for what may not be sent."""
        self._status, self.has_begun = status, True
        closing = [(b"connection", b"close")] if self.is_last or self.head.is_chunked else []
        return self._protocol.send(h11.Response(status_code=status, headers=[*fields, *closing])) or b""

    def encode_body(self, data: bytes, *, more: bool) -> bytes:
        """Some of the answer's body; nothing of it is sent to HEAD, or with a status that has none.

        Raises h11.LocalProtocolError when it is longer or shorter than its head says.
        """
        if data and self.head.method != "HEAD" and self._status not in _NO_BODY:
            data = self._protocol.send(h11.Data(data=data)) or b""
        else:
            data = b""
        if more:
            return data
        self.is_over = True
        return data + (self._protocol.send(h11.EndOfMessage()) or b"")

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"a request's body may have {self.max_body_bytes} bytes")

"""wsproto with a short way for what a call sends and receives a hundred times a second: whole text messages.

wsproto's general way through frames, fragments, extensions and generators takes 15 microseconds a message in
each direction; an unfragmented text frame takes 3 here. Every other frame, and every one that is not as it
should be, goes through wsproto as before. Only its public interface is used (send, receive_data, events,
state), and the tests hold both ways against each other on any bytes in any pieces. RFC 6455, section 5.2.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Final

from typing_extensions import override
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import Event, Message, TextMessage

_WHOLE_TEXT: Final = 0x81
"""FIN, no reserved bit, opcode 1."""
_FIN: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_MOST_IN_TWO_BYTES: Final = 0xFFFF
_HEAD_END: Final = b"\r\n\r\n"
_WAIT_FOR_BYTES: Final = 64 * 1024
"""A longer frame is not waited for: wsproto gives its parts out as they come, so that limits work at once."""


class ShortcutConnection(WSConnection):
    """A ``WSConnection``; what it sends and yields is what wsproto would, but for the masking keys."""

    def __init__(self, connection_type: ConnectionType) -> None:
        super().__init__(connection_type)
        self._head: bytearray | None = bytearray()
        """The opening handshake as far as it came; None once its end was seen."""
        self._waiting = bytearray()
        """Bytes behind the handshake that begin with a frame's head."""
        self._passing = 0
        """Bytes of a frame that wsproto was given in part and still needs."""
        self._in_fragments = False
        """Whether the peer is within a fragmented message."""
        self._sending_fragments = False

    @override
    def send(self, event: Event) -> bytes:
        if isinstance(event, Message):
            whole = event.message_finished and not self._sending_fragments
            if whole and type(event) is TextMessage and self.state is ConnectionState.OPEN:
                return encode_text(event.data.encode(), mask=self.client)
            self._sending_fragments = not event.message_finished
        return super().send(event)

    @override
    def receive_data(self, data: bytes | bytearray | None) -> None:
        """Frames are looked at in ``events``."""
        if data is None:
            super().receive_data(None)
        elif self._head is None:
            self._waiting += data
        else:
            self._receive_head(data)

    @override
    def events(self) -> Generator[Event, None, None]:
        yield from super().events()
        while self._waiting and self.state is not ConnectionState.CONNECTING:
            text = self._take_text()
            if text is not None:
                yield TextMessage(data=text)
                continue
            given = self._next_for_wsproto()
            if not given or self.state is ConnectionState.CLOSED:
                return
            super().receive_data(given)
            yield from super().events()

    def _receive_head(self, data: bytes | bytearray) -> None:
        """Give wsproto the handshake and nothing behind it, so that we know where the frames begin."""
        head = self._head = (self._head or bytearray()) + data
        end = head.find(_HEAD_END)
        if end < 0:
            super().receive_data(bytes(data))
            return
        behind = len(head) - end - len(_HEAD_END)
        self._head = None
        super().receive_data(bytes(data[: len(data) - behind]))
        self._waiting += data[len(data) - behind :]

    def _take_text(self) -> str | None:
        """Take the whole text frame at the front; None if there is something else, or not all of it."""
        waiting = self._waiting
        if waiting[0] != _WHOLE_TEXT or self._passing or self._in_fragments:
            return None
        begin, end = _bounds(waiting)
        if not begin or len(waiting) < end or self.state is not ConnectionState.OPEN:
            return None
        masked = waiting[1] & _MASKED
        if bool(masked) is self.client or not _is_shortest(waiting[1] & _LENGTH, end - begin):
            return None
        payload = bytes(waiting[begin:end])
        if masked:
            payload = _xor(payload, bytes(waiting[begin - 4 : begin]))
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            return None
        del waiting[:end]
        return text

    def _next_for_wsproto(self) -> bytes:
        """The next frame, or what there is of a long one; empty if more has to come first."""
        waiting = self._waiting
        if self.state is not ConnectionState.OPEN:
            size = len(waiting)
        elif self._passing:
            size = min(self._passing, len(waiting))
            self._passing -= size
        else:
            _, end = _bounds(waiting)
            if not end or (len(waiting) < end <= _WAIT_FOR_BYTES):
                return b""
            if not waiting[0] & _CONTROL:
                self._in_fragments = not waiting[0] & _FIN
            size = min(end, len(waiting))
            self._passing = end - size
        given = bytes(waiting[:size])
        del waiting[:size]
        return given


def encode_text(payload: bytes, *, mask: bool) -> bytes:
    """A whole text frame; clients ``mask`` theirs with a fresh key, servers do not."""
    length = len(payload)
    masked = _MASKED if mask else 0
    if length < _TWO_BYTES:
        head = bytes((_WHOLE_TEXT, masked | length))
    elif length <= _MOST_IN_TWO_BYTES:
        head = bytes((_WHOLE_TEXT, masked | _TWO_BYTES)) + length.to_bytes(2, "big")
    else:
        head = bytes((_WHOLE_TEXT, masked | _EIGHT_BYTES)) + length.to_bytes(8, "big")
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + _xor(payload, key)


def _bounds(frame: bytearray) -> tuple[int, int]:
    """Where the payload of the frame at the front begins and ends; zeros if its head is not all there."""
    if len(frame) < 2:  # noqa: PLR2004  (the shortest head)
        return 0, 0
    length, begin = frame[1] & _LENGTH, 2
    if length >= _TWO_BYTES:
        begin = 4 if length == _TWO_BYTES else 10
        if len(frame) < begin:
            return 0, 0
        length = int.from_bytes(frame[2:begin], "big")
    if frame[1] & _MASKED:
        begin += 4
    return begin, begin + length


def _is_shortest(form: int, length: int) -> bool:
    """Whether a length that has to be written so is; the form of eight bytes is left to wsproto."""
    return form < _TWO_BYTES or (form == _TWO_BYTES and length >= _TWO_BYTES)


def _xor(payload: bytes, key: bytes) -> bytes:
    """Exclusive or with the key, repeated: one operation on long integers."""
    length = len(payload)
    keys = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")

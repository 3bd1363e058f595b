"""The frames of an open WebSocket, both roles, without I/O: bytes in, messages out. RFC 6455, section 5.

Bytes may come in any pieces, at linear cost. What is against the protocol ends the stream of messages with a
``Violation`` that names the close code; nothing behind it is read, and no text that is not UTF-8 is given out.
No extensions. Masking is C where ``websockets`` has it.
"""

from __future__ import annotations

import os
from codecs import IncrementalDecoder, getincrementaldecoder
from io import BytesIO, StringIO
from typing import Final

import attrs

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where the wheel has no compiled part
    from websockets.utils import apply_mask

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1002, 1007, 1009
NO_CODE: Final = 1005
"""Stands for a close frame that names no code; never on the wire."""

_FIN, _CONTROL, _OPCODE, _RESERVED = 0x80, 0x08, 0x0F, 0x70
_WHOLE_TEXT: Final = _FIN | TEXT
_MASKED: Final = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_MOST_IN_ONE, _MOST_IN_TWO = 125, 0xFFFF
_KEYS: Final = 256
"""Masking keys that are taken from the system at once: a call to it costs more than a mask."""
_REASON_BYTES: Final = _MOST_IN_ONE - 2


@attrs.frozen
class Ping:
    """To be answered with a pong of the same payload."""

    payload: bytes


@attrs.frozen
class Pong:
    """The answer to a ping of ours, or to none."""

    payload: bytes


@attrs.frozen
class Closed:
    """The peer's close frame; NO_CODE if it named none. The last event."""

    code: int
    reason: str


@attrs.frozen
class Violation(Exception):  # noqa: N818 - it is an event; raised only within this module
    """The peer broke the protocol: ``code`` is what to close with. The last event."""

    code: int
    reason: str


Received = str | bytes | Ping | Pong | Closed | Violation
"""Text and binary messages are given out as themselves."""


@attrs.define(eq=False)
class FrameReader:
    """What comes from the peer. ``client``: we are the client, so the peer's frames are not masked."""

    client: bool
    max_message_bytes: int
    _waiting: bytearray = attrs.field(factory=bytearray, repr=False)
    """A frame that is not all there."""
    _needed: int = 0
    """Bytes of it without which looking again is of no use."""
    _message: StringIO | BytesIO | None = None
    """What came of a fragmented message."""
    _message_bytes: int = 0
    _utf8: IncrementalDecoder = attrs.field(factory=getincrementaldecoder("utf-8"), repr=False)
    _over: bool = False

    def feed(self, data: bytes) -> list[Received]:
        """Take bytes and give out what is complete, in order; nothing behind a Closed or a Violation."""
        if self._over:
            return []
        if self._waiting:
            self._waiting += data
            if len(self._waiting) < self._needed:
                return []
            data = bytes(self._waiting)
            self._waiting.clear()
        events: list[Received] = []
        try:
            read = self._read(data, events)
        except Violation as violation:
            self._over = True
            events.append(violation)
        else:
            if read < len(data) and not self._over:
                self._waiting += data[read:]
        return events

    def _read(self, data: bytes, events: list[Received]) -> int:  # noqa: C901, PLR0912 - a call costs a tenth of it
        """Append what is complete to ``events`` and return where the rest begins. Raises Violation."""
        at, end, wrong = 0, len(data), 0 if self.client else _MASKED
        while True:
            if end - at < 2:  # noqa: PLR2004 - the shortest head
                self._needed = 2
                return at
            first = data[at]
            length = data[at + 1] ^ wrong
            begin = at + 2
            if length >= _MASKED:
                raise Violation(PROTOCOL_ERROR, "masked by a server" if self.client else "not masked by a client")
            if first != _WHOLE_TEXT or self._message is not None:
                self._check(first, length)
            if length >= _TWO_BYTES:
                begin += 2 if length == _TWO_BYTES else 8
                if begin > end:
                    self._needed = begin - at
                    return at
                length = _long(length, data[at + 2 : begin])
            if length > self.max_message_bytes - self._message_bytes:
                raise Violation(TOO_BIG, f"over {self.max_message_bytes} bytes")
            if wrong:
                begin += 4
            stop = begin + length
            if stop > end:
                self._needed = stop - at
                return at
            payload = data[begin:stop]
            if wrong:
                payload = apply_mask(payload, data[begin - 4 : begin])
            at = stop
            if first == _WHOLE_TEXT:
                events.append(_text(payload))
            elif first & _CONTROL:
                events.append(_control(first & _OPCODE, payload))
                if first & _OPCODE == CLOSE:
                    self._over = True
                    return at
            else:
                self._take(first, payload, events)

    def _check(self, first: int, length: int) -> None:
        """Whether a frame may begin so, here."""
        opcode = first & _OPCODE
        if first & _RESERVED:
            raise Violation(PROTOCOL_ERROR, "a reserved bit")
        if opcode & _CONTROL:
            if opcode > PONG or not first & _FIN or length > _MOST_IN_ONE:
                raise Violation(PROTOCOL_ERROR, "a control frame that none can be")
        elif opcode > BINARY or (opcode == 0) is (self._message is None):
            raise Violation(PROTOCOL_ERROR, "a data frame out of turn")

    def _take(self, first: int, payload: bytes, events: list[Received]) -> None:
        """A binary frame, or a part of a message. Parts are put together as they come, the UTF-8 checked."""
        opcode, finished = first & _OPCODE, bool(first & _FIN)
        if opcode == BINARY and finished:
            events.append(payload)
            return
        if opcode:
            self._message = StringIO() if opcode == TEXT else BytesIO()
        message = self._message
        self._message_bytes += len(payload)
        if isinstance(message, StringIO):
            try:
                message.write(self._utf8.decode(payload, finished))
            except UnicodeDecodeError:
                raise Violation(INVALID_DATA, "not UTF-8") from None
        elif message is not None:
            message.write(payload)
        if finished and message is not None:
            self._message, self._message_bytes = None, 0
            events.append(message.getvalue())


@attrs.define(eq=False)
class FrameWriter:
    """What goes to the peer. ``client``: our frames are masked, each with a fresh key (section 5.3)."""

    client: bool
    _keys: bytes = b""
    _next_key: int = 0

    def message(self, message: str | bytes) -> bytes:
        """A whole message, text or binary."""
        return self.frame(TEXT, message.encode()) if isinstance(message, str) else self.frame(BINARY, message)

    def close(self, code: int, reason: str) -> bytes:
        """A close frame; NO_CODE names none. A reason that is too long is cut between two characters."""
        if code == NO_CODE:
            return self.frame(CLOSE, b"")
        text = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        return self.frame(CLOSE, code.to_bytes(2, "big") + text.encode())

    def frame(self, opcode: int, payload: bytes) -> bytes:
        """A whole frame."""
        length = len(payload)
        first = _FIN | opcode
        masked = _MASKED if self.client else 0
        if length < _TWO_BYTES:
            head = bytes((first, masked | length))
        elif length <= _MOST_IN_TWO:
            head = bytes((first, masked | _TWO_BYTES, length >> 8, length & 0xFF))
        else:
            head = bytes((first, masked | _EIGHT_BYTES)) + length.to_bytes(8, "big")
        if not masked:
            return head + payload
        at = self._next_key
        if at >= len(self._keys):
            self._keys, at = os.urandom(4 * _KEYS), 0
        self._next_key = at + 4
        key = self._keys[at : at + 4]
        return head + key + apply_mask(payload, key)


def _long(form: int, written: bytes) -> int:
    """A length of two or eight bytes. Raises Violation where a shorter form would have done, or none can be."""
    length = int.from_bytes(written, "big")
    if length <= (_MOST_IN_ONE if form == _TWO_BYTES else _MOST_IN_TWO) or length >> 63:
        raise Violation(PROTOCOL_ERROR, "a length in the wrong form")
    return length


def _text(payload: bytes) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError:
        raise Violation(INVALID_DATA, "not UTF-8") from None


def _control(opcode: int, payload: bytes) -> Ping | Pong | Closed:
    if opcode == PING:
        return Ping(payload)
    if opcode == PONG:
        return Pong(payload)
    if not payload:
        return Closed(NO_CODE, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_close_with(code):
        raise Violation(PROTOCOL_ERROR, "no close code")
    return Closed(code, _text(payload[2:]))


def may_close_with(code: int) -> bool:
    """Whether ``code`` may be in a close frame (section 7.4, and what was registered since)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999  # noqa: PLR2004

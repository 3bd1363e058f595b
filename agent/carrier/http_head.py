"""The head of an HTTP request, read byte by byte as it comes, and whether it asks for a WebSocket. No I/O.

Two servers share one port (DESIGN D1); this decides which of them gets the connection. h11, the parser inside
both of them, judges the head, so that all three agree on what a request is.
"""

import re
from collections.abc import Mapping
from typing import Final

import attrs
import h11

MAX_HEAD_BYTES: Final = 16 * 1024
"""Twilio's heads are under 2 KB; hypercorn takes 16 KB too."""
WEBSOCKET_VERSION: Final = "13"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")


class BadHeadError(Exception):
    """The head cannot be served: answer ``status`` with the plain-text ``reason`` and close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


@attrs.frozen
class RequestHead:
    """Request line and headers. Header names are in lower case; of a repeated one the values are joined."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def wants_websocket(self) -> bool:
        """Whether this is a WebSocket opening handshake (RFC 6455, 4.2.1), complete or not."""
        return "websocket" in _tokens(self.headers.get("upgrade", ""))

    def check_websocket(self) -> None:
        """Raise BadHeadError unless the WebSocket handshake is complete."""
        if self.method != "GET":
            raise BadHeadError(405, "a WebSocket is opened by GET")
        if "upgrade" not in _tokens(self.headers.get("connection", "")):
            raise BadHeadError(400, "a WebSocket handshake needs the header Connection: Upgrade")
        if self.headers.get("sec-websocket-version") != WEBSOCKET_VERSION:
            raise BadHeadError(426, "this server speaks WebSocket version 13")
        if not _KEY.fullmatch(self.headers.get("sec-websocket-key", "")):
            raise BadHeadError(
                400, "a WebSocket handshake needs the header Sec-WebSocket-Key, base64 of 16 bytes"
            )


@attrs.define(eq=False)
class HeadReader:
    """Collects the first bytes of a connection until they are a whole head.

    ``raw`` is everything that was fed, for whoever serves the connection to read again.
    """

    raw: bytearray = attrs.field(factory=bytearray)
    _parser: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES), repr=False
    )

    @property
    def room_bytes(self) -> int:
        """How much more may be read before the head is too large."""
        return MAX_HEAD_BYTES + 1 - len(self.raw)

    def split(self) -> tuple[bytes, bytes]:
        """The head that was read, and what came behind it."""
        unread, _ = self._parser.trailing_data
        return bytes(self.raw[: len(self.raw) - len(unread)]), unread

    def feed(self, data: bytes | bytearray) -> RequestHead | None:
        """Take what was read; the head once it is whole, None before.

        Raises BadHeadError: 400 for what is not HTTP, 431 for more than MAX_HEAD_BYTES, 505 for HTTP/2.
        """
        self.raw += data
        try:
            self._parser.receive_data(bytes(data))
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:  # noqa: PLR2004  (Request Header Fields Too Large)
                raise BadHeadError(431, f"the request's head has more than {MAX_HEAD_BYTES} bytes") from None
            raise BadHeadError(400, "this is not an HTTP request") from None
        if not isinstance(event, h11.Request):
            return None
        if event.http_version not in (b"1.0", b"1.1"):
            raise BadHeadError(505, "this server speaks HTTP/1.1")
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return RequestHead(event.method.decode("latin-1"), event.target.decode("latin-1"), headers)


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]

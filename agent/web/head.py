"""The head of an HTTP/1.1 request, read strictly: what two programs could read in two ways is refused. No I/O.

h11, which parses what passes here, and the proxies in front of us take more than this: bare line feeds, folded
lines, a length that is given twice. Each is a way to hide one request in another. Source: RFC 9112.
"""

import re
from collections.abc import Mapping
from typing import Final

import attrs

MAX_HEAD_BYTES: Final = 16 * 1024
"""Twilio's heads are under 2 KB."""
MAX_FIELDS: Final = 100
WEBSOCKET_VERSION: Final = "13"
_END: Final = b"\r\n\r\n"
_NEVER: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What no head may have: a bare line feed, a bare carriage return, a control character."""
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/(\d)\.(\d)" % _TOKEN)
_FIELD: Final = re.compile(rb"(%s):[ \t]*(.*?)[ \t]*" % _TOKEN, re.DOTALL)
_HOST: Final = re.compile(r"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
_LENGTH: Final = re.compile(r"\d{1,15}")
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_ONCE: Final = ("host", "content-length", "transfer-encoding", "expect")
"""Of these a second one is refused; other repeated fields are joined."""


class RefusedError(Exception):
    """The request is not served: answer ``status`` with the plain-text ``reason`` and close the connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


@attrs.frozen
class RequestHead:
    """Request line and fields. Names are in lower case; the values of a repeated field are joined."""

    method: str
    target: str
    headers: Mapping[str, str]
    raw: bytes = attrs.field(repr=False)
    """The head as it came, with its blank line."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def is_chunked(self) -> bool:
        """Whether a body follows in chunks."""
        return "transfer-encoding" in self.headers

    @property
    def body_bytes(self) -> int:
        """The body's length as it is announced; 0 also for one in chunks."""
        return int(self.headers.get("content-length", 0))

    @property
    def wants_websocket(self) -> bool:
        """Whether this is a WebSocket opening handshake (RFC 6455, 4.2.1), complete or not."""
        return "websocket" in _tokens(self.headers.get("upgrade", ""))

    def check_websocket(self) -> None:
        """Raise RefusedError unless the WebSocket handshake is complete."""
        if self.method != "GET":
            raise RefusedError(405, "a WebSocket is opened by GET")
        if "upgrade" not in _tokens(self.headers.get("connection", "")):
            raise RefusedError(400, "a WebSocket handshake needs the header Connection: Upgrade")
        if self.headers.get("sec-websocket-version") != WEBSOCKET_VERSION:
            raise RefusedError(426, "this server speaks WebSocket version 13")
        if not _KEY.fullmatch(self.headers.get("sec-websocket-key", "")):
            raise RefusedError(
                400, "a WebSocket handshake needs the header Sec-WebSocket-Key, base64 of 16 bytes"
            )


@attrs.define(eq=False)
class HeadReader:
    """Finds one head after the other in what a connection brings; ``unread`` is what nobody has used yet."""

    unread: bytearray = attrs.field(factory=bytearray)
    _looked: int = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Take what was read."""
        self.unread += data

    def next_head(self) -> RequestHead | None:
        """The next request's head, taken off ``unread``; None while it is not whole.

        Raises RefusedError: 400 for what is no request or an ambiguous one, 417, 431, 501, 505.
        """
        raw = self.unread
        found = raw.find(_END, max(0, self._looked - len(_END)))
        end = found + len(_END) if found >= 0 else len(raw)
        if never := _NEVER.search(raw, max(0, self._looked - 1), end):
            raise RefusedError(400, f"a request's head has no byte {never[0]!r} there")
        if end > MAX_HEAD_BYTES:
            raise RefusedError(431, f"the request's head has more than {MAX_HEAD_BYTES} bytes")
        self._looked = end
        if found < 0:
            return None
        taken = bytes(raw[:end])
        del raw[:end]
        self._looked = 0
        return read_head(taken)


def read_head(raw: bytes) -> RequestHead:
    """The meaning of a whole head without control characters. Raises RefusedError."""
    first, *lines = raw[: -len(_END)].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise RefusedError(400, "this is not an HTTP request")
    if (line[3], line[4]) not in ((b"1", b"1"), (b"1", b"0")):
        raise RefusedError(505, "this server speaks HTTP/1.1")
    if len(lines) > MAX_FIELDS:
        raise RefusedError(431, f"the request's head has more than {MAX_FIELDS} fields")
    headers: dict[str, str] = {}
    for field in lines:
        match = _FIELD.fullmatch(field)
        if match is None:
            raise RefusedError(400, "the request's head has a line that is no field")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        if name in headers and name in _ONCE:
            raise RefusedError(400, f"the request has {name} twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    head = RequestHead(line[1].decode(), line[2].decode(), headers, raw)
    _check(head, is_old=line[4] == b"0")
    return head


def _check(head: RequestHead, *, is_old: bool) -> None:
    """Raise RefusedError for what could be read in two ways; ``is_old``: HTTP/1.0."""
    headers = head.headers
    # Of the four forms of a target only a path is for an origin server; the others name a host beside Host.
    if not head.target.startswith("/") and (head.method, head.target) != ("OPTIONS", "*"):
        raise RefusedError(400, "the request's target is not a path")
    if "#" in head.target:
        raise RefusedError(400, "the request's target has a fragment")
    if not (is_old and "host" not in headers) and not _HOST.fullmatch(headers.get("host", "")):
        raise RefusedError(400, "the request needs one Host, a name or an address")
    if "content-length" in headers and not _LENGTH.fullmatch(headers["content-length"]):
        raise RefusedError(400, "Content-Length is not one number")
    if "transfer-encoding" in headers:
        if is_old or "content-length" in headers:
            raise RefusedError(400, "the request's length is given in two ways")
        if headers["transfer-encoding"].lower() != "chunked":
            raise RefusedError(501, "the only Transfer-Encoding here is chunked")
    if "upgrade" in headers and (is_old or head.is_chunked or head.body_bytes):
        raise RefusedError(400, "an upgrade is asked for in HTTP/1.1 and without a body")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise RefusedError(417, "the only expectation here is 100-continue")


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]

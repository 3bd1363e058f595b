"""Heads of requests: any way of cutting them, and everything that is none or could be two things. DO-1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.web.head import MAX_FIELDS, MAX_HEAD_BYTES, HeadReader, RefusedError, RequestHead

UPGRADE = (
    b"GET /media-stream?x=1 HTTP/1.1\r\nHost: a.example\r\n"
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def read(raw: bytes) -> RequestHead | None:
    reader = HeadReader()
    reader.feed(raw)
    return reader.next_head()


def refusal_of_bytes(raw: bytes) -> int:
    reader = HeadReader()
    for byte in raw:
        reader.feed(bytes([byte]))
        try:
            reader.next_head()
        except RefusedError as refused:
            return refused.status
    raise AssertionError("it was not refused")


def refusal(raw: bytes) -> int:
    with pytest.raises(RefusedError) as caught:
        read(raw)
    return caught.value.status


@given(st.sets(st.integers(1, 2 * len(UPGRADE) + 15)))
def test_any_chunking_gives_the_same_heads_and_keeps_every_byte(cuts: set[int]) -> None:
    """One head after the other, and what comes behind them is there for whoever serves the connection."""
    stream = UPGRADE + UPGRADE + b"\x81\x85first frame"
    heads: list[RequestHead] = []
    reader, fed = HeadReader(), 0
    for end in [*sorted(cuts), len(stream)]:
        reader.feed(stream[fed:end])
        fed = end
        while len(heads) < 2 and (head := reader.next_head()) is not None:
            heads.append(head)
    assert bytes(reader.unread) == b"\x81\x85first frame"
    for head in heads:
        assert head.raw == UPGRADE
        assert (head.method, head.target, head.path) == ("GET", "/media-stream?x=1", "/media-stream")
        assert head.headers["x-a"] == "1, 2"
        assert head.wants_websocket
        head.check_websocket()
    assert len(heads) == 2


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"Connection: keep-alive, Upgrade", 400),
        (b"Sec-WebSocket-Version: 13", 426),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400),
    ],
)
def test_an_incomplete_handshake_is_explained(line: bytes, status: int) -> None:
    head = read(UPGRADE.replace(line, b"X-B: 3"))
    assert head is not None
    with pytest.raises(RefusedError) as caught:
        head.check_websocket()
    assert caught.value.status == status


def test_a_websocket_is_opened_by_get() -> None:
    head = read(UPGRADE.replace(b"GET", b"PUT"))
    assert head is not None
    with pytest.raises(RefusedError, match="405"):
        head.check_websocket()


def test_h2c_is_asked_for_in_vain() -> None:
    """The request is served in HTTP/1.1, as if it had not been."""
    head = read(GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
    assert head is not None
    assert not head.wants_websocket


GOOD = [
    (b"GET / HTTP/1.0\r\n\r\n", 0),
    (b"OPTIONS * HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", 0),
    (b"POST /a?b=/c//d;e HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 007\r\n\r\n", 7),
    (GET + b"X-Empty:\r\nX-Tab: a\tb \r\nX-High: \xc3\xa9\r\n\r\n", 0),
    (GET + b"Expect: 100-Continue\r\n\r\n", 0),
    (GET + b"Transfer-Encoding: Chunked\r\n\r\n", 0),
]


@pytest.mark.parametrize(("raw", "length"), GOOD)
def test_what_is_plain_is_taken(raw: bytes, length: int) -> None:
    head = read(raw)
    assert head is not None
    assert head.body_bytes == length


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        # No HTTP at all, or not this one.
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        # Two lengths, or none that is one.
        (GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
        (GET + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
        (GET + b"Content-Length: 5, 5\r\n\r\n", 400),
        (GET + b"Content-Length: +5\r\n\r\n", 400),
        (GET + b"Content-Length: 0x5\r\n\r\n", 400),
        (GET + b"Content-Length: -1\r\n\r\n", 400),
        (GET + b"Content-Length:\r\n\r\n", 400),
        (GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (GET + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 501),
        (GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (GET + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        # Lines that are not what they look like.
        (GET + b"X-A: b\r\n folded\r\n\r\n", 400),
        (GET + b"X-A: b\r\n\tfolded\r\n\r\n", 400),
        (GET + b" X-A: b\r\n\r\n", 400),
        (GET + b"X-A : b\r\n\r\n", 400),
        (GET + b"X A: b\r\n\r\n", 400),
        (GET + b": b\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
        (GET + b"X-A: b\rX-B: c\r\n\r\n", 400),
        (GET + b"X-A: b\x00\r\n\r\n", 400),
        (GET + b"X-A: b\x7f\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        # Targets that name a host beside Host.
        (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400),
        # An upgrade that a proxy would not take for one.
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (UPGRADE.replace(b"X-A: 1", b"Content-Length: 5"), 400),
        (UPGRADE.replace(b"X-A: 1", b"Transfer-Encoding: chunked"), 400),
        # Too much.
        (GET + b"Expect: something\r\n\r\n", 417),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
        (GET + b"X-A: b\r\n" * 4000, 431),
        (GET + b"X-A: b\r\n" * MAX_FIELDS + b"\r\n", 431),
    ],
)
def test_what_is_no_request_or_could_be_two_is_refused(raw: bytes, status: int) -> None:
    """Whole, and byte by byte."""
    assert refusal(raw) == status
    assert refusal_of_bytes(raw) == status


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_wait_for_more(raw: bytes) -> None:
    """No input raises anything else."""
    try:
        read(raw)
    except RefusedError as error:
        assert error.status in (400, 431, 505)  # noqa: PT017  (most random inputs raise nothing)


def test_a_head_is_refused_as_soon_as_it_is_too_long() -> None:
    reader = HeadReader()
    for _ in range(MAX_HEAD_BYTES):
        reader.feed(b"a")
        assert reader.next_head() is None
    reader.feed(b"a")
    with pytest.raises(RefusedError, match="431"):
        reader.next_head()


def test_a_head_that_drips_is_looked_at_once() -> None:
    """Sixteen thousand single bytes cost what they cost: nothing is searched from the beginning again."""
    reader = HeadReader()
    reader.feed(GET)
    assert reader.next_head() is None
    assert reader._looked == len(GET)

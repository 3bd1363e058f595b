"""Heads of requests: any way of cutting them into pieces, and everything that is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.carrier.http_head import MAX_HEAD_BYTES, BadHeadError, HeadReader, RequestHead

UPGRADE = (
    b"GET /media-stream?x=1 HTTP/1.1\r\nHost: a.example\r\n"
    b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
)


def read(raw: bytes) -> RequestHead | None:
    return HeadReader().feed(raw)


def refusal(raw: bytes) -> int:
    with pytest.raises(BadHeadError) as caught:
        read(raw)
    return caught.value.status


@given(st.sets(st.integers(1, len(UPGRADE) + 15)))
def test_any_chunking_gives_the_same_head_and_keeps_every_byte(cuts: set[int]) -> None:
    """Whoever serves the connection reads again exactly what came, the first frames behind the head included."""
    stream = UPGRADE + b"\x81\x85first frame"
    reader = HeadReader()
    head, fed = None, 0
    for end in [*sorted(cuts), len(stream)]:
        head = reader.feed(stream[fed:end])
        fed = end
        if head is not None:
            break
    assert head is not None
    assert bytes(reader.raw) == stream[:fed]
    assert (head.method, head.target, head.path) == ("GET", "/media-stream?x=1", "/media-stream")
    assert head.headers["x-a"] == "1, 2"
    assert head.wants_websocket
    head.check_websocket()


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
    with pytest.raises(BadHeadError) as caught:
        head.check_websocket()
    assert caught.value.status == status


def test_a_websocket_is_opened_by_get() -> None:
    head = read(UPGRADE.replace(b"GET", b"PUT"))
    assert head is not None
    with pytest.raises(BadHeadError, match="405"):
        head.check_websocket()


def test_a_plain_request_wants_no_websocket() -> None:
    head = read(b"GET /healthz HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n")
    assert head is not None
    assert not head.wants_websocket


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 4000, 431),
    ],
)
def test_what_is_no_request_is_refused(raw: bytes, status: int) -> None:
    assert refusal(raw) == status


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_wait_for_more(raw: bytes) -> None:
    """No input raises anything else."""
    try:
        read(raw)
    except BadHeadError as error:
        assert error.status in (400, 431, 505)  # noqa: PT017  (most random inputs raise nothing)


def test_reading_stops_one_byte_behind_the_limit() -> None:
    """A head that is too large is refused with what may be read at most."""
    reader = HeadReader()
    while reader.room_bytes > 1:
        assert reader.feed(b"a" * min(1000, reader.room_bytes - 1)) is None
    with pytest.raises(BadHeadError, match="431"):
        reader.feed(b"a" * reader.room_bytes)
    assert len(reader.raw) == MAX_HEAD_BYTES + 1

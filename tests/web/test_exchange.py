"""One request and its answer: framing, bounds, and whether the connection may go on."""

import h11
import pytest

from agent.web.exchange import Exchange
from agent.web.head import RefusedError, read_head

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LENGTH = [(b"content-length", b"2")]


def begin(raw: bytes, most: int = 10) -> Exchange:
    return Exchange(read_head(raw), most)


def answer(exchange: Exchange, status: int = 200, body: bytes = b"ok") -> bytes:
    return exchange.encode_head(status, LENGTH) + exchange.encode_body(body, more=False)


def test_a_body_is_read_and_what_comes_behind_it_is_not() -> None:
    exchange = begin(POST + b"Content-Length: 5\r\n\r\n")
    exchange.feed(b"ab")
    assert not exchange.is_whole
    exchange.feed(b"cdeGET /next")
    assert exchange.is_whole
    assert (exchange.body, exchange.unread) == (b"abcde", b"GET /next")
    assert answer(exchange).endswith(b"\r\n\r\nok")
    assert exchange.is_over
    assert exchange.is_reusable


def test_nothing_follows_a_body_in_chunks() -> None:
    """A proxy and we might disagree where it ends."""
    exchange = begin(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    exchange.feed(b"3\r\nabc\r\n0\r\n\r\n")
    assert exchange.is_whole
    assert b"connection: close" in answer(exchange).lower()
    assert not exchange.is_reusable


@pytest.mark.parametrize(
    "body", [b"+3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n", b"3\nabc\n0\n\n", b"3\r\nabcd\r\n", b"z"]
)
def test_odd_chunks_are_refused(body: bytes) -> None:
    exchange = begin(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(RefusedError, match="400"):
        exchange.feed(body + b"\r\n" * 10)


def test_a_body_that_is_too_large_is_refused_as_soon_as_that_is_known() -> None:
    with pytest.raises(RefusedError, match="413"):
        begin(POST + b"Content-Length: 11\r\n\r\n")
    exchange = begin(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(RefusedError, match="413"):
        exchange.feed(b"b\r\nabcdefghijk")


def test_a_body_that_breaks_off_is_refused() -> None:
    exchange = begin(POST + b"Content-Length: 5\r\n\r\n")
    with pytest.raises(RefusedError, match="400"):
        exchange.feed(b"")


@pytest.mark.parametrize(("method", "status", "sent"), [("HEAD", 200, b""), ("GET", 204, b""), ("GET", 304, b"")])
def test_some_answers_have_no_body(method: str, status: int, sent: bytes) -> None:
    """What the application sends as one is left out; the length it would have is still said to HEAD."""
    exchange = begin(b"%s / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
    head, _, body = answer(exchange, status).partition(b"\r\n\r\n")
    assert body == sent
    assert exchange.is_reusable
    assert method != "HEAD" or b"content-length: 2" in head


def test_an_answer_without_a_length_goes_in_chunks() -> None:
    exchange = begin(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"transfer-encoding: chunked" in exchange.encode_head(200, []).lower()
    assert exchange.encode_body(b"ok", more=True) == b"2\r\nok\r\n"
    assert exchange.encode_body(b"", more=True) == b""
    assert exchange.encode_body(b"", more=False) == b"0\r\n\r\n"
    assert exchange.is_reusable


def test_the_client_waits_for_leave_to_send_its_body() -> None:
    exchange = begin(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert exchange.waits_for_continue
    assert exchange.encode_continue().startswith(b"HTTP/1.1 100 ")
    exchange.feed(b"ab")
    assert exchange.is_whole


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
)
def test_a_client_that_wants_one_answer_gets_one(raw: bytes) -> None:
    exchange = begin(raw)
    answer(exchange)
    assert not exchange.is_reusable


def test_an_upgrade_that_nobody_takes_is_a_request() -> None:
    exchange = begin(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    answer(exchange)
    assert exchange.is_reusable


def test_an_application_that_sends_more_than_it_said_is_found_out() -> None:
    exchange = begin(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    exchange.encode_head(200, LENGTH)
    with pytest.raises(h11.LocalProtocolError):
        exchange.encode_body(b"too much", more=False)

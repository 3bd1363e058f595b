"""The codec of ``/browser-stream``: what the page says, and what it is told."""

from base64 import b64decode
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.browser.messages import (
    MOST_DELAY_MS,
    BrowserDecoder,
    BrowserEncoder,
    Hello,
    Ping,
    Resume,
    decode_opening,
    decode_ping,
    encode_welcome,
)
from agent.core.audio_format import PCM16_24K
from agent.core.caller_leg import DeviceDelay, Dtmf, MarkReturned, Media, Stop, UnknownMessage
from agent.core.errors import MalformedMessageError


def test_audio_is_binary_and_has_the_time_of_what_came_before() -> None:
    """WB-3; without times of its own no hole is ever seen in it, for nothing is lost on the way."""
    decoder = BrowserDecoder()
    for index in range(3):
        media = decoder.decode(PCM16_24K.silence_frame)
        assert isinstance(media, Media)
        assert (media.timestamp_ms, media.sequence) == (index * 20, index + 1)
        assert b64decode(media.payload) == media.audio == PCM16_24K.silence_frame


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"type":"played","mark":"1:200"}', MarkReturned("1:200")),
        ('{"type":"key","digit":"#"}', Dtmf("#")),
        ('{"type":"hangup"}', Stop()),
        ('{"type":"delay","ms":42.4}', DeviceDelay(42)),
        ('{"type":"delay","ms":-5}', DeviceDelay(0)),
        ('{"type":"delay","ms":1e9}', DeviceDelay(MOST_DELAY_MS)),
        ('{"type":"played","mark":"1:200","new":[1]}', MarkReturned("1:200")),
        ('{"type":"something new","x":1}', UnknownMessage("something new")),
    ],
)
def test_what_the_page_says(raw: str, message: object) -> None:
    assert BrowserDecoder().decode(raw) == message


@pytest.mark.parametrize(
    "raw",
    [
        b"\0",
        bytes(48_002),
        "no JSON",
        "[1]",
        '{"type":"played"}',
        '{"type":"key","digit":5}',
        '{"type":"delay","ms":null}',
        "[" * 100_000,
    ],
)
def test_what_cannot_be_meant(raw: str | bytes) -> None:
    """The connection stays usable: the next message is read as ever."""
    decoder = BrowserDecoder()
    with pytest.raises(MalformedMessageError):
        decoder.decode(raw)
    assert decoder.decode('{"type":"hangup"}') == Stop()


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100)))
def test_any_message_is_understood_or_refused(raw: str | bytes) -> None:
    for read in (BrowserDecoder().decode, decode_opening, decode_ping):
        with suppress(MalformedMessageError):
            read(raw)


def test_how_a_connection_begins() -> None:
    assert decode_opening('{"type":"hello","token":"t"}') == Hello("t")
    resume = decode_opening('{"type":"resume","call":"BR1","token":"t","received":7}')
    assert resume == Resume("BR1", "t", 7)


def test_a_ping_is_no_message_of_the_call() -> None:
    assert decode_ping('{"type":"ping","received":3,"sent_ms":1.5}') == Ping(3, 1.5)
    assert decode_ping('{"type":"played","mark":"1:20"}') is None
    assert decode_ping('{ "received": 3, "type" : "ping" }') == Ping(3)
    assert decode_ping('{"type":"key","digit":""ping""}') is None
    assert decode_ping(b"\0\0") is None


def test_what_the_page_is_told() -> None:
    encoder = BrowserEncoder()
    assert encoder.media(b"\1\0") == b"\1\0"
    assert msgspec.json.decode(encoder.mark('a"b')) == {"type": "mark", "name": 'a"b'}
    assert msgspec.json.decode(encoder.clear) == {"type": "clear"}
    welcome = msgspec.json.decode(encode_welcome("BR1", "t", 3, path="p/2", heartbeat_s=1.0, window_s=10.0))
    assert welcome["format"] == {"type": "audio/pcm", "rate": 24000}
    assert welcome["received"] == 3

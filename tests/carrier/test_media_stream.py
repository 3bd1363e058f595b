"""The codec of Twilio Media Streams: the documented messages, what is not allowed, and what we send."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.carrier import media_stream as codec
from agent.carrier.media_stream import MAX_MEDIA_BYTES, Connected, OutboundEncoder, Start, decode_message
from agent.core.caller_leg import Dtmf, MarkReturned, Media, Stop, UnknownMessage
from agent.core.errors import MalformedMessageError
from agent.core.units import CallSid, StreamSid

STREAM = StreamSid("MZXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX")
CALL = CallSid("CAXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX")
ACCOUNT = "ACXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
KINDS = ("carrier_json", "carrier_field", "carrier_base64", "carrier_binary")
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": ACCOUNT,
        "streamSid": STREAM,
        "callSid": CALL,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"FirstName": "Jane", "LastName": "כהן"},
    },
    "streamSid": STREAM,
}
STARTED = Start(
    stream_sid=STREAM,
    call_sid=CALL,
    encoding="audio/x-mulaw",
    sample_rate=8000,
    channels=1,
    custom_parameters={"FirstName": "Jane", "LastName": "כהן"},
)
PAYLOAD = b64encode(b"\xff\x7f" * 80).decode()
MEDIA = {
    "event": "media",
    "sequenceNumber": "4",
    "media": {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": PAYLOAD},
    "streamSid": STREAM,
}
DOCUMENTED: list[tuple[dict[str, Any], codec.CarrierMessage]] = [
    ({"event": "connected", "protocol": "Call", "version": "1.0.0"}, Connected()),
    (START, STARTED),
    (MEDIA, Media(PAYLOAD, b"\xff\x7f" * 80, 5, 4)),
    (
        {
            "event": "stop",
            "sequenceNumber": "5",
            "stop": {"accountSid": ACCOUNT, "callSid": CALL},
            "streamSid": STREAM,
        },
        Stop(),
    ),
    (
        {
            "event": "dtmf",
            "streamSid": STREAM,
            "sequenceNumber": "5",
            "dtmf": {"track": "inbound_track", "digit": "1"},
        },
        Dtmf("1"),
    ),
    (
        {"event": "mark", "sequenceNumber": "4", "streamSid": STREAM, "mark": {"name": "my label"}},
        MarkReturned("my label"),
    ),
]


def text(message: Any) -> str:
    return msgspec.json.encode(message).decode()


def refused(raw: str | bytes) -> str:
    """The kind of the refusal."""
    with pytest.raises(MalformedMessageError) as caught:
        decode_message(raw)
    return caught.value.kind


@pytest.mark.parametrize(("message", "expected"), DOCUMENTED)
def test_the_documented_messages(message: dict[str, Any], expected: codec.CarrierMessage) -> None:
    """The examples of Twilio's page "Media Streams - WebSocket messages", with their counters as strings."""
    assert decode_message(text(message)) == expected


def test_every_message_that_is_read_was_decoded_above() -> None:
    assert {message["event"] for message, _ in DOCUMENTED} == set(codec._BUILDERS)


def test_counters_may_be_numbers_too() -> None:
    message = {**MEDIA, "sequenceNumber": 7, "media": {"timestamp": 140, "payload": PAYLOAD}}
    assert decode_message(text(message)) == Media(PAYLOAD, b"\xff\x7f" * 80, 140, 7)


def test_a_start_without_what_it_may_leave_out() -> None:
    """The stream's sid may stand outside; format and parameters have defaults."""
    started = decode_message(text({"event": "start", "streamSid": STREAM, "start": {"callSid": CALL}}))
    assert started == Start(STREAM, CALL, "audio/x-mulaw", 8000, 1, {})


def test_unknown_events_are_ignored_by_name() -> None:
    assert decode_message('{"event":"tomorrow","media":null,"x":[1]}') == UnknownMessage("tomorrow")


def test_the_outbound_track_is_not_the_caller() -> None:
    """What the agent itself said comes back on a stream of both tracks; it must not become caller audio."""
    message = {**MEDIA, "media": {"track": "outbound", "timestamp": "5", "payload": PAYLOAD}}
    assert decode_message(text(message)) == Media("", b"", 5, 4)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("", "carrier_json"),
        ("hello", "carrier_json"),
        ('{"event":"media"', "carrier_json"),
        ('{"event":"stop"}{"event":"stop"}', "carrier_json"),
        ("\ud800", "carrier_json"),
        ('{"event":"stop","deep":' + "[" * 100_000, "carrier_json"),
        (text(MEDIA).encode(), "carrier_binary"),
        (b"", "carrier_binary"),
        ("null", "carrier_field"),
        ("[]", "carrier_field"),
        ("{}", "carrier_field"),
        ('{"event":"media"}', "carrier_field"),
        ('{"event":"media","media":{}}', "carrier_field"),
        ('{"event":"media","media":"loud"}', "carrier_field"),
        ('{"event":"media","sequenceNumber":"four","media":{"payload":"AA=="}}', "carrier_field"),
        ('{"event":"mark"}', "carrier_field"),
        ('{"event":"mark","mark":{}}', "carrier_field"),
        ('{"event":"dtmf"}', "carrier_field"),
        ('{"event":"dtmf","dtmf":{"digit":null}}', "carrier_field"),
        ('{"event":"start"}', "carrier_field"),
        ('{"event":"start","start":{"streamSid":"MZ1"}}', "carrier_field"),
        ('{"event":"start","start":{"callSid":"CA1"}}', "carrier_field"),
        ('{"event":"start","start":{"callSid":"","streamSid":"MZ1"}}', "carrier_field"),
        ('{"event":"media","media":{"payload":"AAA"}}', "carrier_base64"),
        ('{"event":"media","media":{"payload":"AA==AA=="}}', "carrier_base64"),
        ('{"event":"media","media":{"payload":"A A A A "}}', "carrier_base64"),
        ('{"event":"media","media":{"payload":"קול="}}', "carrier_base64"),
    ],
)
def test_what_the_protocol_does_not_allow_has_a_stable_kind(raw: str | bytes, kind: str) -> None:
    assert refused(raw) == kind


def test_more_than_a_second_of_audio_in_one_message_is_refused() -> None:
    most = b64encode(bytes(MAX_MEDIA_BYTES)).decode()
    more = b64encode(bytes(MAX_MEDIA_BYTES + 1)).decode()
    accepted = decode_message(text({"event": "media", "media": {"payload": most}}))
    assert isinstance(accepted, Media)
    assert len(accepted.audio) == MAX_MEDIA_BYTES
    assert refused(text({"event": "media", "media": {"payload": more}})) == "carrier_field"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["sequenceNumber", "streamSid", "media", "start", "mark", "dtmf", "protocol", "version"]
INNER = [
    "payload",
    "timestamp",
    "track",
    "callSid",
    "streamSid",
    "mediaFormat",
    "customParameters",
    "name",
    "digit",
]


def decode_or_refuse(raw: str | bytes) -> None:
    """Only a value or MalformedMessageError: anything else that is raised fails the test."""
    try:
        message = decode_message(raw)
    except MalformedMessageError as error:
        assert error.kind in KINDS  # noqa: PT017 - either way is fine
    else:
        assert isinstance(message, codec.CarrierMessage)


@given(st.text() | st.binary())
def test_anything_is_decoded_or_refused(raw: str | bytes) -> None:
    decode_or_refuse(raw)


@given(JSON)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    decode_or_refuse(text(value))


@given(
    st.sampled_from(sorted(codec._BUILDERS)),
    st.dictionaries(
        st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(INNER), JSON, max_size=4), max_size=4
    ),
)
def test_known_events_with_any_fields_are_decoded_or_refused(event: str, fields: dict[str, Any]) -> None:
    decode_or_refuse(text({**fields, "event": event}))


@given(st.text(), st.binary(max_size=2000), st.text())
def test_what_we_send_is_json_whatever_is_in_it(stream_sid: str, audio: bytes, name: str) -> None:
    """Spliced by hand for speed, so quotes, control characters and other scripts must not break out."""
    encoder = OutboundEncoder(StreamSid(stream_sid))
    media = msgspec.json.decode(encoder.media(audio))
    assert media == {"event": "media", "streamSid": stream_sid, "media": media["media"]}
    assert b64decode(media["media"]["payload"], validate=True) == audio
    mark = msgspec.json.decode(encoder.mark(name))
    assert mark == {"event": "mark", "streamSid": stream_sid, "mark": {"name": name}}
    assert msgspec.json.decode(encoder.clear) == {"event": "clear", "streamSid": stream_sid}


@pytest.mark.parametrize("name", ["g1:10", 'say "hi"', "סימן", "a\\b\n", "🙂"])
def test_a_mark_comes_back_as_it_was_sent(name: str) -> None:
    """The carrier repeats our mark message; its name is then the one we gave."""
    assert decode_message(OutboundEncoder(STREAM).mark(name)) == MarkReturned(name)


@given(st.binary(max_size=MAX_MEDIA_BYTES))
def test_media_round_trip(audio: bytes) -> None:
    message = decode_message(OutboundEncoder(STREAM).media(audio))
    assert isinstance(message, Media)
    assert message.audio == audio
    assert b64decode(message.payload) == audio

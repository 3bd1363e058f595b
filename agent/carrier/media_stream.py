"""The codec of Twilio Media Streams: messages in, messages out, no I/O.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages. Twilio writes its counters as
strings; unknown events must be ignored; payloads are base64 of raw 8 kHz mu-law with no header.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs
import msgspec
from typing_extensions import override

from agent.core.caller_leg import Dtmf, LegEncoder, LegMessage, MarkReturned, Media, Stop, UnknownMessage
from agent.core.errors import MalformedMessageError
from agent.core.units import CallSid, StreamSid

MAX_MEDIA_BYTES: Final = 8000
"""Most audio accepted in one inbound media message: one second. Twilio sends 160 bytes."""


@attrs.frozen
class Connected:
    """The first message of a stream."""


@attrs.frozen
class Start:
    """The second message: which call this is and what its TwiML told us to remember."""

    stream_sid: StreamSid
    call_sid: CallSid
    encoding: str
    sample_rate: int
    channels: int
    custom_parameters: Mapping[str, str]


CarrierMessage = Connected | Start | LegMessage


class _MediaBody(msgspec.Struct, gc=False):
    payload: str
    timestamp: int = 0
    track: str = "inbound"


class _FormatBody(msgspec.Struct, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class _StartBody(msgspec.Struct, rename="camel"):
    call_sid: str
    stream_sid: str = ""
    media_format: _FormatBody = msgspec.field(default_factory=_FormatBody)
    custom_parameters: dict[str, str] = msgspec.field(default_factory=dict)


class _MarkBody(msgspec.Struct):
    name: str


class _DtmfBody(msgspec.Struct):
    digit: str


class _Message(msgspec.Struct, rename="camel"):
    event: str
    sequence_number: int = 0
    stream_sid: str = ""
    media: _MediaBody | None = None
    start: _StartBody | None = None
    mark: _MarkBody | None = None
    dtmf: _DtmfBody | None = None


class _MediaMessage(msgspec.Struct, rename="camel", gc=False):
    media: _MediaBody
    sequence_number: int = 0


_decoder: Final = msgspec.json.Decoder(_Message, strict=False)
_media_decoder: Final = msgspec.json.Decoder(_MediaMessage, strict=False)
_MEDIA_HEAD: Final = '{"event":"media",'
"""How Twilio begins them. A message that begins so is decoded as what it is; any other, by what it says it is."""


def decode_message(raw: str | bytes) -> CarrierMessage:
    """Decode one message from the carrier.

    Raises MalformedMessageError (kinds ``carrier_json``, ``carrier_base64``, ``carrier_field``) for what the
    protocol does not allow; the stream itself stays usable.
    """
    if isinstance(raw, bytes):
        raise MalformedMessageError("carrier_binary", f"a binary message of {len(raw)} bytes")
    try:
        if raw.startswith(_MEDIA_HEAD):
            return _media(_media_decoder.decode(raw))
        message = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise MalformedMessageError("carrier_field", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessageError("carrier_json", str(error)) from None
    build = _BUILDERS.get(message.event)
    return UnknownMessage(message.event) if build is None else build(message)


def _media(message: _MediaMessage) -> Media:
    body = message.media
    if body.track != "inbound":
        return Media("", b"", body.timestamp, message.sequence_number)
    try:
        audio = a2b_base64(body.payload, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise MalformedMessageError("carrier_base64", str(error)) from None
    if len(audio) > MAX_MEDIA_BYTES:
        raise MalformedMessageError("carrier_field", f"{len(audio)} bytes of audio in one media message")
    return Media(body.payload, audio, body.timestamp, message.sequence_number)


def _start(message: _Message) -> Start:
    body = _required(message, message.start)
    stream_sid = body.stream_sid or message.stream_sid
    if not stream_sid or not body.call_sid:
        raise MalformedMessageError("carrier_field", "a start message without streamSid or callSid")
    media_format = body.media_format
    return Start(
        stream_sid=StreamSid(stream_sid),
        call_sid=CallSid(body.call_sid),
        encoding=media_format.encoding,
        sample_rate=media_format.sample_rate,
        channels=media_format.channels,
        custom_parameters=body.custom_parameters,
    )


_Body = TypeVar("_Body")


def _required(message: _Message, body: _Body | None) -> _Body:
    if body is None:
        event = message.event
        raise MalformedMessageError("carrier_field", f"a {event} message without its {event} object")
    return body


_BUILDERS: Final[Mapping[str, Callable[[_Message], CarrierMessage]]] = {
    "media": lambda message: _media(_MediaMessage(_required(message, message.media), message.sequence_number)),
    "mark": lambda message: MarkReturned(_required(message, message.mark).name),
    "dtmf": lambda message: Dtmf(_required(message, message.dtmf).digit),
    "start": _start,
    "connected": lambda _: Connected(),
    "stop": lambda _: Stop(),
}


@attrs.frozen
class OutboundEncoder(LegEncoder):
    """Encodes what we send on one stream; the parts that never change are made once.

    The results are str because a Media Stream is a stream of text messages.
    """

    stream_sid: StreamSid
    _media_head: str = attrs.field(init=False, repr=False)
    _mark_head: str = attrs.field(init=False, repr=False)
    _clear: str = attrs.field(init=False, repr=False)

    @_media_head.default
    def _make_media_head(self) -> str:
        return f'{{"event":"media","streamSid":{_quoted(self.stream_sid)},"media":{{"payload":"'

    @_mark_head.default
    def _make_mark_head(self) -> str:
        return f'{{"event":"mark","streamSid":{_quoted(self.stream_sid)},"mark":{{"name":'

    @_clear.default
    def _make_clear(self) -> str:
        return f'{{"event":"clear","streamSid":{_quoted(self.stream_sid)}}}'

    @property
    @override
    def clear(self) -> str:
        return self._clear

    @override
    def media(self, audio: bytes) -> str:
        """A media message with ``audio`` (mu-law, any length)."""
        return f'{self._media_head}{b2a_base64(audio, newline=False).decode("ascii")}"}}}}'

    @override
    def mark(self, name: str) -> str:
        """A mark message; the carrier sends it back when playback reaches it, or on a clear."""
        return f"{self._mark_head}{_quoted(name)}}}}}"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()

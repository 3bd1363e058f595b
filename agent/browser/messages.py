"""The messages of ``WS /browser-stream``, both ways, no I/O: docs/browser-stream.md describes them.

Audio is binary: PCM16 at 24 kHz, in low bandwidth what a MediaRecorder makes; all else is JSON with a ``type``.
Both sides count the messages that belong to the call and acknowledge them, so that what a broken connection
swallowed is sent again on the next one.
"""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, Final, Literal

import attrs
import msgspec
from typing_extensions import override

from agent.core.audio_format import PCM16_24K
from agent.core.caller_leg import (
    DeviceDelay,
    Dtmf,
    LegEncoder,
    LegMessage,
    MarkReturned,
    Media,
    Message,
    Screen,
    Stop,
    UnknownMessage,
)
from agent.core.errors import MalformedMessageError
from agent.core.records import Turn
from agent.core.units import FRAME_MS

PCM16: Final = "pcm16"
WEBM_OPUS: Final = "webm/opus"
"""Low bandwidth: 3 kB a second instead of 48."""
VERSION: Final = 1
"""Of these messages; a page of another one is told to load itself anew."""
MAX_AUDIO_MS: Final = 1000
"""Most audio in one message; a browser sends 20 ms."""
MOST_DELAY_MS: Final = 1000
"""Longest delay of a device that is believed."""


class Close:
    """The codes we close connections with, besides those of RFC 6455 (1000: the call is over)."""

    BAD_MESSAGE: Final = 4400
    BAD_TOKEN: Final = 4401
    OTHER_RELEASE: Final = 4406
    GONE: Final = 4404
    """There is no such call any more."""
    NO_HELLO: Final = 4408
    ELSEWHERE: Final = 4409
    """Another connection has the call."""
    FLOOD: Final = 4413
    BAD_AUDIO: Final = 4415
    """The audio is not what was announced, or this server does not take it."""
    BUSY: Final = 4429
    """All lines are busy, or no call can be taken now."""


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """The first message of a call; ``token`` was given with the page, ``format`` is the microphone's.

    PCM16 has no head that says what it is: whoever sends another rate or stereo is told so if it says so.
    """

    token: str
    version: int = VERSION
    format: Literal["pcm16", "webm/opus"] = "pcm16"
    rate: int = PCM16_24K.rate_hz
    channels: int = 1


class Resume(msgspec.Struct, tag="resume", frozen=True):
    """The first message of another connection to a call; ``received`` counts the call's messages that came."""

    call: str
    token: str
    received: int = 0


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """A sign of life; ``received`` acknowledges, ``sent_ms`` is the client's clock and comes back.

    ``first_word_ms``, once it is known: how long after the caller pressed Call the first audio came.
    """

    received: int = 0
    sent_ms: float = 0.0
    first_word_ms: float = 0.0


class _Played(msgspec.Struct, tag="played"):
    mark: str


class _Delay(msgspec.Struct, tag="delay"):
    ms: float


class _Key(msgspec.Struct, tag="key"):
    digit: str


class _HangUp(msgspec.Struct, tag="hangup"):
    pass


class _Any(msgspec.Struct):
    type: str


_KINDS: Final = ("played", "delay", "key", "hangup")
_any: Final = msgspec.json.Decoder(_Any)
_opening: Final = msgspec.json.Decoder(Hello | Resume)
_ping: Final = msgspec.json.Decoder(Ping)
_of_call: Final = msgspec.json.Decoder(_Played | _Delay | _Key | _HangUp)


def decode_opening(raw: Message) -> Hello | Resume:
    """The first message of a connection. Raises MalformedMessageError."""
    try:
        opening: Hello | Resume = _opening.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessageError("browser_opening", str(error)) from None
    return opening


def decode_ping(raw: Message) -> Ping | None:
    """The message as a sign of life; None: it belongs to the call."""
    if isinstance(raw, bytes) or '"ping"' not in raw:
        return None
    try:
        return _ping.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


@attrs.define(eq=False)
class BrowserDecoder:
    """Reads the messages of one call. Audio has no times of its own: it is as long as what came before."""

    _audio_ms: int = 0
    _messages: int = 0

    def decode(self, raw: Message) -> LegMessage:
        """One message of the call. Raises MalformedMessageError, after which the connection is still usable."""
        if isinstance(raw, bytes):
            return self._media(raw)
        try:
            kind = _any.decode(raw).type
            if kind not in _KINDS:
                return UnknownMessage(kind)
            message = _of_call.decode(raw)
        except msgspec.ValidationError as error:
            raise MalformedMessageError("browser_field", str(error)) from None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MalformedMessageError("browser_json", str(error)) from None
        if isinstance(message, _Played):
            return MarkReturned(message.mark)
        if isinstance(message, _Delay):
            return DeviceDelay(round(min(max(message.ms, 0.0), MOST_DELAY_MS)))
        return Dtmf(message.digit) if isinstance(message, _Key) else Stop()

    def _media(self, audio: bytes) -> Media:
        if len(audio) % len(PCM16_24K.silence) or len(audio) > MAX_AUDIO_MS * PCM16_24K.bytes_per_ms:
            raise MalformedMessageError("browser_audio", f"{len(audio)} bytes are no PCM16 of up to a second")
        self._messages += 1
        at_ms, self._audio_ms = self._audio_ms, self._audio_ms + PCM16_24K.ms(len(audio))
        return Media(b64encode(audio).decode("ascii"), audio, at_ms, self._messages)


@attrs.frozen
class BrowserEncoder(LegEncoder):
    """Audio goes out as it is; marks and clears are JSON."""

    @property
    @override
    def clear(self) -> str:
        return '{"type":"clear"}'

    @override
    def media(self, audio: bytes) -> bytes:
        return audio

    @override
    def mark(self, name: str) -> str:
        return encode("mark", name=name)


@attrs.frozen(eq=False)
class BrowserScreen(Screen):
    """Captions and latencies as messages, given to ``tell``."""

    tell: Callable[[str], None]

    @override
    def turn(self, turn: Turn) -> None:
        self.tell(
            encode(
                "caption",
                id=turn.item_id,
                role=turn.role,
                text=turn.text,
                heard=turn.heard_text,
                started_ms=turn.started_ms,
                length_ms=turn.audio_ms,
                heard_ms=turn.heard_ms,
                interrupted=turn.interrupted,
            )
        )

    @override
    def latency(self, turn_ms: int, voice_ms: int) -> None:
        self.tell(encode("latency", turn_ms=turn_ms, voice_ms=voice_ms, total_ms=turn_ms + voice_ms))


def encode(kind: str, **fields: Any) -> str:
    """A message of ours."""
    return msgspec.json.encode({"type": kind, **fields}).decode()


def encode_welcome(
    call: str, token: str, received: int, *, path: str, heartbeat_s: float, window_s: float
) -> str:
    """The answer to hello and to resume: ``token`` resumes the call at ``path``, ``received`` counts."""
    return encode(
        "welcome",
        version=VERSION,
        call=call,
        token=token,
        received=received,
        path=path,
        format=PCM16_24K.declare(),
        frame_ms=FRAME_MS,
        heartbeat_s=heartbeat_s,
        window_s=window_s,
    )

"""A call's leg to its caller: all in which the telephone network and the browser differ for a call."""

from typing import Final

import attrs

from agent.carrier import media_stream
from agent.carrier.rest import CarrierRest
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.caller_leg import Decode, LegEncoder, LegMessage, Media, Message, RepeatedStart, Screen
from agent.core.units import StreamSid

STUCK_S: Final = 10.0
"""A write to the caller's leg that takes this long: it does not read any more."""


@attrs.frozen(eq=False)
class CallerLeg:
    """How the messages of one caller's socket are read and written, and what else can be asked of the carrier."""

    stream_sid: StreamSid
    decode: Decode
    encoder: LegEncoder
    rest: CarrierRest | None
    """The carrier's REST; None: nothing but the socket reaches the caller."""
    format: AudioFormat = ULAW_8K
    stuck_s: float = STUCK_S
    screen: Screen | None = None


def phone_leg(start: media_stream.Start, rest: CarrierRest | None) -> CallerLeg:
    """The leg of a Twilio Media Stream whose ``start`` message was read."""
    encoder = media_stream.OutboundEncoder(start.stream_sid)
    return CallerLeg(start.stream_sid, _decode_phone, encoder, rest)


def _decode_phone(raw: Message) -> LegMessage:
    message = media_stream.decode_message(raw)
    if type(message) is Media:
        return message
    if isinstance(message, media_stream.Connected | media_stream.Start):
        return RepeatedStart(type(message).__name__)
    return message

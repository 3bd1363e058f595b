"""From the carrier into the call: caller audio to the model, untouched and ungated (BI-1), and the rest."""

from base64 import b64encode
from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import trio

from agent.audio.gap_filler import FILL_AT_MOST_MS, GapFiller
from agent.audio.uplink import Uplink
from agent.call.call_clock import CallClock
from agent.call.conversation import Conversation
from agent.call.state import CallState
from agent.carrier.media_stream import Connected, Start, decode_message
from agent.core.caller_leg import (
    DeviceDelay,
    Dtmf,
    LegMessage,
    MarkReturned,
    Media,
    Message,
    RepeatedStart,
    Stop,
    UnknownMessage,
)
from agent.core.errors import AdmissionError, MalformedMessageError
from agent.core.event_log import EventLog
from agent.core.records import Outcome
from agent.core.units import FRAME_MS, SAMPLE_RATE_HZ
from agent.model.outbox import ModelOutbox
from agent.model.requests import encode_append
from agent.wire.websocket import MessageSocket

START_S: Final = 10.0
"""How long a stream may take to say which call it is; Twilio does at once."""
EARLY_MESSAGES: Final = 50
"""Messages before ``start`` that are ignored; Twilio sends one, ``connected``."""
_T = TypeVar("_T")


@attrs.define(eq=False)
class Ingress:
    """The reader of one caller's leg. It waits for nothing but the next message (DESIGN D8)."""

    socket: MessageSocket
    state: CallState
    conversation: Conversation
    outbox: ModelOutbox
    clock: CallClock
    uplink: Uplink
    _repair: GapFiller = attrs.field(init=False)

    @_repair.default
    def _no_gaps(self) -> GapFiller:
        return GapFiller(max(FILL_AT_MOST_MS, self.conversation.endpoint_ms + FRAME_MS))

    async def run(self) -> None:
        """Read until cancelled. Raises SocketClosedError when the carrier is gone.

        While it waits, ``_take`` may be called in its stead.
        """
        self.socket.serve_by(self._take)
        while True:
            self._take(await self.socket.receive())

    def _take(self, raw: Message) -> None:
        message = decode_or_count(raw, self.state.leg.decode, self.state.events)
        if type(message) is Media:
            self._media(message)
        elif message is not None:
            self._message(message, trio.current_time())

    def _media(self, media: Media) -> None:
        length_ms = self.conversation.format.ms(len(media.audio))
        if not length_ms:
            self.state.events.count("EMPTY_MEDIA")
            return
        state = self.state
        now = state.last_rx_s = trio.current_time()
        state.frames_in += 1
        missing_ms = self._repair.media(media.timestamp_ms, length_ms, now)
        if missing_ms > 0:
            self._insert_silence(missing_ms)
        elif missing_ms:
            self.conversation.audio_late(-missing_ms)
        self.conversation.caller_audio(media.audio, length_ms, now)
        payload = self.uplink.take(media.audio, media.payload, now, quiet=self.conversation.caller_quiet)
        if payload is not None:
            self.outbox.put_audio(encode_append(payload))

    def fill_gap(self, now: float) -> float | None:
        """Make up for audio that does not come while the caller speaks (D14); returns when to look again."""
        if not self.conversation.policy.caller_speaking:
            return None
        missing_ms = self._repair.silence_due(now)
        if missing_ms:
            self._insert_silence(missing_ms)
        return self._repair.due_s

    def _insert_silence(self, length_ms: int) -> None:
        self.conversation.silence_inserted(length_ms)
        silence = self.conversation.format.silence_of(length_ms)
        payload = self.uplink.take(silence, b64encode(silence).decode(), trio.current_time(), quiet=False)
        if payload is not None:
            self.outbox.put_audio(encode_append(payload))

    def _message(self, message: LegMessage, now: float) -> None:
        events = self.state.events
        match message:
            case MarkReturned(name):
                self.conversation.mark_returned(name, now)
            case Dtmf(digit):
                if self.conversation.key_pressed(digit, now):
                    self.clock.caller_spoke()
            case Stop():
                self.state.end(Outcome.CALLER_HUNG_UP, "the carrier stopped the stream")
            case DeviceDelay(delay_ms):
                self.state.playout.device_s = delay_ms / 1000
            case RepeatedStart(again):
                events.emit_first("REPEATED_START", message=again)
            case UnknownMessage(event):
                events.emit_first("UNKNOWN_CARRIER_EVENT", event_name=event[:80])


async def receive_start(socket: MessageSocket, events: EventLog) -> Start:
    """Read a stream up to its ``start`` message.

    Raises AdmissionError if none comes within START_S or EARLY_MESSAGES, or for audio that is not mono 8 kHz
    mu-law; SocketClosedError if the peer leaves.
    """
    with trio.move_on_after(START_S):
        for _ in range(EARLY_MESSAGES):
            message = decode_or_count(await socket.receive(), decode_message, events)
            if isinstance(message, Start):
                _check_format(message)
                return message
            if message is not None and not isinstance(message, Connected):
                events.emit_first("MESSAGE_BEFORE_START", message=type(message).__name__)
    raise AdmissionError("no_start", f"no start message within {START_S:.0f} s and {EARLY_MESSAGES} messages")


def decode_or_count(raw: Message, decode: Callable[[Message], _T], events: EventLog) -> _T | None:
    """Decode a message; one that the protocol does not allow is counted, logged once, and None."""
    try:
        return decode(raw)
    except MalformedMessageError as error:
        events.emit_first(error.kind.upper(), detail=error.detail[:200])
        return None


def _check_format(start: Start) -> None:
    if (start.encoding, start.sample_rate, start.channels) != ("audio/x-mulaw", SAMPLE_RATE_HZ, 1):
        audio = f"{start.encoding} at {start.sample_rate} Hz with {start.channels} channels"
        raise AdmissionError("audio_format", f"{audio}: only mono audio/x-mulaw at 8000 Hz is served")

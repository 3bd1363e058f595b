"""The carrier's half of the Media Streams codec: what Twilio writes, and what it reads. No I/O.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages. Twilio writes counters as strings.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from agent.core.units import CallSid, StreamSid


class Payload(msgspec.Struct):
    """The ``media`` object of what the agent sends."""

    payload: str


class Mark(msgspec.Struct):
    """The ``mark`` object."""

    name: str


class AgentMessage(msgspec.Struct, rename="camel"):
    """Any message of the agent: ``media``, ``mark`` or ``clear``."""

    event: str
    stream_sid: str = ""
    media: Payload | None = None
    mark: Mark | None = None


agent_message_decoder: Final = msgspec.json.Decoder(AgentMessage)


@attrs.define(eq=False)
class MessageWriter:
    """Writes the messages of one stream and counts them, as Twilio does from 1."""

    stream_sid: StreamSid
    call_sid: CallSid
    account_sid: str
    _sequence: int = 0
    _chunk: int = 0

    def connected(self) -> str:
        """The first message of a stream."""
        return '{"event":"connected","protocol":"Call","version":"1.0.0"}'

    def start(self, custom_parameters: Mapping[str, str]) -> str:
        """The second message of a stream."""
        body = {
            "accountSid": self.account_sid,
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(custom_parameters),
        }
        return self._message("start", body)

    def media(self, payload: str, timestamp_ms: int) -> str:
        """20 ms of caller audio (base64), ``timestamp_ms`` after the start of the stream."""
        self._sequence += 1
        self._chunk += 1
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}},'
            f'"streamSid":"{self.stream_sid}"}}'
        )

    def mark(self, name: str) -> str:
        """A mark sent back."""
        return self._message("mark", {"name": name})

    def dtmf(self, digit: str) -> str:
        """A key pressed by the caller."""
        return self._message("dtmf", {"track": "inbound_track", "digit": digit})

    def stop(self) -> str:
        """The last message of a stream."""
        return self._message("stop", {"accountSid": self.account_sid, "callSid": self.call_sid})

    def lose_media(self) -> None:
        """A frame that never arrives still has its numbers."""
        self._sequence += 1
        self._chunk += 1

    def _message(self, event: str, body: Mapping[str, Any]) -> str:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: body,
            "streamSid": self.stream_sid,
        }
        return msgspec.json.encode(message).decode()

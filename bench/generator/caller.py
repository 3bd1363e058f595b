"""One caller of the load: a media stream, 50 frames a second on a grid of its own, and a playback clock."""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from math import ceil
from time import monotonic
from typing import Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from agent.core.units import BYTES_PER_MS, FRAME_S
from bench.generator.clockwork import Clockwork
from bench.generator.observations import CarrierCall, Clear, Spell
from bench.generator.plan import GOLDEN, LoadPlan, call_sid, silence

SPEECH_PAYLOAD: Final = b64encode(bytes([0x90] * 10 + [0x10] * 10) * 8)
"""A frame of a loud tone of 400 Hz; where the silence of a caller ends in slashes, it has none."""
NOTHING_NUMBERED: Final = 12
"""Answers are numbered 0 to 11 in the upper half of each byte; what is above is silence."""
_TEXT: Final = WSMsgType.TEXT
_NUMBER: Final = {letter: index >> 2 for index, letter in enumerate(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
)}  # fmt: skip
"""The first letter of a payload tells the upper half of its first byte."""


class _Mark(msgspec.Struct):
    name: str = ""


class _Message(msgspec.Struct):
    event: str
    mark: _Mark = msgspec.field(default_factory=_Mark)


_decoder: Final = msgspec.json.Decoder(_Message)


class Caller(WSListener):
    """A call from its first word to its last. What goes wrong is noted in ``seen``."""

    def __init__(
        self, seen: CarrierCall, plan: LoadPlan, clockwork: Clockwork, parameters: dict[str, str], leave_s: float
    ) -> None:
        self.seen = seen
        self.gone = False
        self._plan = plan
        self._clockwork = clockwork
        self._parameters = parameters
        self._leave_s = leave_s
        self._speak_s = 0.0
        self._voiced = 0
        self._frames = 0
        self._silence = b64encode(silence(seen.call))
        self._sid = f"MZ{seen.call:032x}"
        self._head = f'{{"event":"media","streamSid":"{self._sid}","sequenceNumber":"'.encode()
        self._transport: WSTransport
        # Playback.
        self._media_head = b"\0"
        self._spell: Spell | None = None
        self._spell_bytes = 0
        self._play_end_s = 0.0
        self._marks: deque[tuple[float, str]] = deque()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The stream is open: begin it, and send from the next moment of this caller's grid on."""
        self._transport = transport
        now = self.seen.started_s = monotonic()
        transport.send(_TEXT, b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "accountSid": "AC" + "0" * 32,
            "streamSid": self._sid,
            "callSid": call_sid(self.seen.call),
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        message = {"event": "start", "sequenceNumber": "1", "streamSid": self._sid, "start": start}
        transport.send(_TEXT, msgspec.json.encode(message))
        self._speak_s = now + self._plan.speaks_after_s(self.seen.call)
        phase_s = self.seen.call * GOLDEN % 1.0 * FRAME_S
        self._clockwork.at(ceil((now - phase_s) / FRAME_S) * FRAME_S + phase_s, self._tick)

    def _tick(self, due_s: float) -> float | None:
        if self.gone:
            return None
        if due_s >= self._leave_s:
            self.hang_up()
            return None
        if due_s >= self._speak_s:
            self._speak_s += self._plan.every_s
            self._voiced = self._plan.speech_ms // 20
        payload = self._silence
        if self._voiced:
            self._voiced -= 1
            payload = SPEECH_PAYLOAD
        self._frames += 1
        frame = self._frames
        self._transport.send(
            _TEXT,
            b'%b%d","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%b"}}'
            % (self._head, frame + 1, frame, frame * 20, payload),
        )
        return due_s + FRAME_S

    def hang_up(self) -> None:
        """End the stream as the carrier does when its caller hangs up."""
        self.gone = True
        self.seen.hung_up_s = monotonic()
        stop = {"event": "stop", "streamSid": self._sid, "stop": {"callSid": call_sid(self.seen.call)}}
        self._transport.send(_TEXT, msgspec.json.encode(stop))
        self._transport.send_close()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message of the agent's."""
        if frame.msg_type is not _TEXT:
            if frame.msg_type is WSMsgType.CLOSE:
                self._ended(f"the agent ended the call with {frame.get_close_code()}")
                transport.disconnect()
            return
        raw = frame.get_payload_as_bytes()
        now = monotonic()
        if raw.startswith(self._media_head):
            self._hear(raw, now)
            return
        try:
            message = _decoder.decode(raw)
        except msgspec.MsgspecError as error:
            self.seen.protocol_errors.append(str(error))
            return
        if message.event == "media":
            # All media messages of a stream begin alike; none is decoded after the first.
            self._media_head = raw[: raw.index(b'"', raw.index(b'"payload"') + 9) + 1]
            self._hear(raw, now)
        elif message.event == "clear":
            self._clear(now)
        elif message.event == "mark":
            self._marks.append((max(self._play_end_s, now), message.mark.name))
            self._clockwork.at(self._marks[-1][0], self._return_marks)
        else:
            self.seen.protocol_errors.append(f"{message.event} is no message to a carrier")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        del transport
        self._ended("the agent cut the connection")

    def _ended(self, reason: str) -> None:
        if not self.gone:
            self.gone = True
            self.seen.hung_up_s = monotonic()
            self.seen.failure = reason

    def _hear(self, raw: bytes, now: float) -> None:
        at = len(self._media_head)
        end = raw.index(b'"', at)
        size = (end - at) // 4 * 3 - (raw[end - 1] == ord("=")) - (raw[end - 2] == ord("="))
        number = _NUMBER[raw[at]]
        spell = self._spell
        play_end_s = self._play_end_s
        if number >= NOTHING_NUMBERED:
            self._spell = None
        else:
            if spell is None or spell.number != number:
                spell = self._spell = Spell(number)
                self.seen.spells.append(spell)
                self._spell_bytes = 0
            elif now > play_end_s:
                self.seen.underruns_s.append(now)
            spell.arrivals_s.append(now)
            spell.sizes.append(size)
            self._spell_bytes += size
        self._play_end_s = max(play_end_s, now) + size / BYTES_PER_MS / 1000

    def _clear(self, now: float) -> None:
        left_s = max(self._play_end_s - now, 0.0)
        heard_ms = max(self._spell_bytes / BYTES_PER_MS - left_s * 1000, 0.0) if self._spell else 0.0
        self.seen.clears.append(Clear(now, len(self.seen.spells) - 1, heard_ms))
        self._play_end_s = min(self._play_end_s, now)
        self._spell = None
        self._marks = deque((now, name) for _, name in self._marks)
        self._return_marks(now)

    def _return_marks(self, _due_s: float) -> None:
        """Send back the marks that were played, or cleared."""
        now = monotonic()
        while self._marks and self._marks[0][0] <= now:
            _, name = self._marks.popleft()
            message = {"event": "mark", "streamSid": self._sid, "mark": {"name": name}}
            if not self.gone:
                self._transport.send(_TEXT, msgspec.json.encode(message))

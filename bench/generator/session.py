"""One session of the load's model: the server's side of the OpenAI Realtime API, as far as a phone call needs it.

It answers whoever falls silent after speaking. Speech is told from silence by one letter of the payload, and time
is counted by its length: no audio is decoded.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import cache
from itertools import cycle
from time import monotonic
from typing import Any, Final

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from agent.core.units import BYTES_PER_MS
from bench.generator.clockwork import Clockwork
from bench.generator.observations import ModelCall, Response, Truncation
from bench.generator.plan import LoadPlan, read_signature

VOICED_MS: Final = 60
"""Of speech in a row is a beginning."""
SILENCE_MS: Final = 500
"""Of silence in a row is an end, unless the session says otherwise."""
SIGNED_WITHIN: Final = 100
"""Appends of a call among which its signature is looked for: the first, but for what a repaired gap may do."""
_TEXT: Final = WSMsgType.TEXT
_APPEND: Final = b"input_audio_buffer.append"
_WORDS: Final = "Gladly, "
_TAIL: Final = -8
"""Counted from the end of an append: there a caller's silence has a slash, a caller's speech none."""


@cache
def sound(number: int, size: int) -> bytes:
    """Base64 of so many bytes of an answer's sound, which has its number in the upper half of each byte."""
    return b64encode(bytes([number << 4 | 8]) * size)


@cache
def _append_shape(length: int, head: int) -> int:
    """Milliseconds of audio in an append of ``length`` bytes whose payload begins at ``head``."""
    return (length - head - 2) // 4 * 3 // BYTES_PER_MS // 20 * 20


class Answer:
    """A response being generated: its deltas, one at a time, as the clockwork asks for them."""

    def __init__(self, session: Session, seen: Response, call: int, metadata: Any) -> None:
        self.seen = seen
        self.item_id = f"item_{call}_{id(session)}_{len(session.seen.responses)}"
        self.id = f"resp_{self.item_id}"
        self.metadata = metadata
        self.left = session.plan.answer(max(call, 0), len(session.seen.responses) - 1).length_ms * BYTES_PER_MS
        self.speed = session.plan.answer(max(call, 0), len(session.seen.responses) - 1).speed
        self.sizes = cycle(session.plan.chunk_bytes)
        self.over = False
        names = f'"response_id":"{self.id}","item_id":"{self.item_id}","output_index":0,"content_index":0'
        self.names = {
            "response_id": self.id,
            "item_id": self.item_id,
            "output_index": 0,
            "content_index": 0,
        }
        self.head = f'{{"type":"response.output_audio.delta","event_id":"event_a",{names},"delta":"'.encode()
        text_type = "response.output_audio_transcript.delta"
        self.text = f'{{"type":"{text_type}","event_id":"event_t",{names},"delta":"{_WORDS}"}}'.encode()
        self._session = session

    def tick(self, due_s: float) -> float | None:
        """Send what is due at ``due_s``: a delta, or the end."""
        if self.over:
            return None
        if not self.left:
            self._session.finish(self, "completed")
            return None
        size = min(next(self.sizes), self.left)
        self.left -= size
        self.seen.deltas_s.append(monotonic())
        self.seen.sizes.append(size)
        self._session.send(self.text)
        self._session.send(self.head + sound(self.seen.number, size) + b'"}')
        return due_s + size / BYTES_PER_MS / 1000 / self.speed


class Session(WSListener):
    """A session, from ``session.created`` to its socket's end."""

    def __init__(self, plan: LoadPlan, clockwork: Clockwork, seen: ModelCall) -> None:
        self.plan = plan
        self.seen = seen
        self._clockwork = clockwork
        self._settings: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{id(seen)}",
        }
        self._detection: Mapping[str, Any] = {}
        self._silence_ms = SILENCE_MS
        self._transcribes = False
        self._transport: WSTransport
        self._active: Answer | None = None
        self._lengths_ms: dict[str, tuple[int, float]] = {}
        """Of each item: its answer's number, and how much of it was sent."""
        self._appends = self._heard_ms = self._streak_ms = self._items = self._head_length = 0
        self._speaking = False

    def send(self, message: bytes) -> None:
        """One event to the agent."""
        self._transport.send(_TEXT, message)

    def _tell(self, kind: str, **fields: Any) -> None:
        self.send(msgspec.json.encode({"type": kind, "event_id": "event_s", **fields}))

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A session begins."""
        self._transport = transport
        self._tell("session.created", session=self._settings)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """It is over."""
        del transport
        if self._active:
            self._active.over = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """An event of the agent's."""
        if frame.msg_type is not _TEXT:
            if frame.msg_type is WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            return
        raw = frame.get_payload_as_bytes()
        if raw.find(_APPEND, 0, 48) > 0:
            self._append(raw)
        else:
            self._request(msgspec.json.decode(raw))

    def _append(self, raw: bytes) -> None:
        if not self._appends:
            self._head_length = raw.index(b'"', raw.index(b'"audio"') + 7) + 1
        self._appends += 1
        if self.seen.call < 0 and self._appends <= SIGNED_WITHIN:
            call = read_signature(b64decode(raw[self._head_length : -2]))
            self.seen.call = -1 if call is None else call
        length_ms = _append_shape(len(raw), self._head_length)
        self._heard_ms += length_ms
        if (raw[_TAIL] != ord("/")) is self._speaking:
            self._streak_ms = 0
            return
        self._streak_ms += length_ms
        if self._streak_ms >= (self._silence_ms if self._speaking else VOICED_MS):
            self._speaking, self._streak_ms = not self._speaking, 0
            if self._speaking:
                self._start_speech()
            else:
                self._stop_speech()

    def _start_speech(self) -> None:
        self._items += 1
        self.seen.speech_started_s.append(monotonic())
        start_ms = max(self._heard_ms - VOICED_MS, 0)
        self._tell("input_audio_buffer.speech_started", item_id=self._question, audio_start_ms=start_ms)
        if self._active and self._detection.get("interrupt_response", True):
            self.finish(self._active, "cancelled", "turn_detected")

    def _stop_speech(self) -> None:
        item_id = self._question
        self._tell("input_audio_buffer.speech_stopped", item_id=item_id, audio_end_ms=self._heard_ms)
        self._tell("input_audio_buffer.committed", item_id=item_id, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": content}
        self._tell("conversation.item.added", item=item, previous_item_id=None)
        self._tell("conversation.item.done", item=item, previous_item_id=None)
        if self._transcribes:
            kind = "conversation.item.input_audio_transcription.completed"
            self._tell(kind, item_id=item_id, content_index=0, transcript="May I ask you something?")
        if self._detection.get("create_response", True) and not self._active:
            self._begin(None)

    @property
    def _question(self) -> str:
        return f"item_q{id(self.seen)}_{self._items}"

    def _begin(self, metadata: Any) -> None:
        number = len(self.seen.responses)
        response = Response(number % 12, monotonic())
        self.seen.responses.append(response)
        answer = self._active = Answer(self, response, self.seen.call, metadata)
        self._tell("response.created", response=self._resource(answer, "in_progress"))
        item = {
            "id": answer.item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        self._tell("response.output_item.added", response_id=answer.id, output_index=0, item=item)
        self._tell("conversation.item.added", item=item, previous_item_id=None)
        part = {"type": "audio", "transcript": ""}
        self._tell("response.content_part.added", **answer.names, part=part)
        self._clockwork.at(response.created_s + self.plan.first_delta_ms / 1000, answer.tick)

    def finish(self, answer: Answer, status: str, reason: str = "") -> None:
        """End an answer: ``completed`` or ``cancelled``."""
        answer.over, self._active = True, None
        answer.seen.cancelled = status == "cancelled"
        sent_ms = sum(answer.seen.sizes) / BYTES_PER_MS
        self._lengths_ms[answer.item_id] = (answer.seen.number, sent_ms)
        if answer.seen.sizes:
            self._tell("response.output_audio.done", **answer.names)
            self._tell("response.output_audio_transcript.done", **answer.names, transcript=_WORDS)
        item = {"id": answer.item_id, "type": "message", "role": "assistant", "status": status, "content": []}
        self._tell("response.output_item.done", response_id=answer.id, output_index=0, item=item)
        self._tell("response.done", response=self._resource(answer, status, reason))

    @staticmethod
    def _resource(answer: Answer, status: str, reason: str = "") -> dict[str, Any]:
        details = {"type": status, "reason": reason} if reason else None
        return {
            "object": "realtime.response",
            "id": answer.id,
            "status": status,
            "status_details": details,
            "output": [],
            "metadata": answer.metadata,
        }

    def _request(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                self._update(event["session"])
            case "response.create":
                if self._active:
                    self._refuse(event, "conversation_already_has_active_response")
                else:
                    self._begin((event.get("response") or {}).get("metadata"))
            case "response.cancel":
                if self._active and event.get("response_id", self._active.id) == self._active.id:
                    self.finish(self._active, "cancelled", "client_cancelled")
                else:
                    self._refuse(event, "response_cancel_not_active")
            case "conversation.item.truncate":
                self._truncate(event)
            case "conversation.item.create":
                item = {"id": f"item_c{id(event)}", "status": "completed", **event["item"]}
                self._tell("conversation.item.added", item=item, previous_item_id=None)
                self._tell("conversation.item.done", item=item, previous_item_id=None)
            case "conversation.item.delete":
                if (known := self._known(event["item_id"])) is not None:
                    self.seen.truncations.append(Truncation(monotonic(), known[0], 0))
                self._tell("conversation.item.deleted", item_id=event["item_id"])
            case other:
                self._refuse(event, f"unknown event {other}")

    def _update(self, session: Mapping[str, Any]) -> None:
        self._settings |= session
        audio_in = session.get("audio", {}).get("input", {})
        self._detection = audio_in.get("turn_detection") or {}
        self._silence_ms = self._detection.get("silence_duration_ms") or SILENCE_MS
        self._transcribes = bool(audio_in.get("transcription"))
        self._tell("session.updated", session=self._settings)

    def _known(self, item_id: str) -> tuple[int, float] | None:
        """The number of the answer that has an item, and the milliseconds of it that were sent."""
        if self._active and item_id == self._active.item_id:
            return self._active.seen.number, sum(self._active.seen.sizes) / BYTES_PER_MS
        return self._lengths_ms.get(item_id)

    def _truncate(self, event: Mapping[str, Any]) -> None:
        item_id, end_ms = event["item_id"], event["audio_end_ms"]
        known = self._known(item_id)
        if known is None or not 0 < end_ms <= known[1]:
            self._refuse(event, f"Audio content of {known and known[1]} ms is already shorter than {end_ms} ms")
            return
        self.seen.truncations.append(Truncation(monotonic(), known[0], end_ms))
        self._tell("conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=end_ms)

    def _refuse(self, event: Mapping[str, Any], message: str) -> None:
        self.seen.errors.append(message)
        error = {"type": "invalid_request_error", "code": message, "message": message}
        self._tell("error", error={**error, "event_id": event.get("event_id")})

"""What the model says to us: the server events of the OpenAI Realtime API (GA names), decoded, no I/O.

Source: https://developers.openai.com/api/reference/resources/realtime. A light codec of our own, because audio
deltas are most of the traffic: fields that nothing reads are skipped.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Final

import attrs
import msgspec

from agent.core.errors import MalformedMessageError
from agent.core.units import ItemId, ResponseId


@attrs.frozen
class SessionCreated:
    """The session is open, with the provider's defaults."""


@attrs.frozen
class SessionUpdated:
    """Our ``session.update`` is in force."""


@attrs.frozen
class SpeechStarted:
    """VAD heard the caller begin; ``audio_start_ms`` counts all audio appended in this session."""

    item_id: ItemId
    audio_start_ms: int


@attrs.frozen
class SpeechStopped:
    """VAD heard the caller end."""

    item_id: ItemId
    audio_end_ms: int


@attrs.frozen
class InputCommitted:
    """The caller's turn became the item ``item_id``."""

    item_id: ItemId


@attrs.frozen
class InputTranscribed:
    """What the caller said, as text; it may come long after the answer began."""

    item_id: ItemId
    transcript: str


@attrs.frozen
class InputTranscriptionFailed:
    """The caller's words could not be transcribed; the model heard them all the same."""

    item_id: ItemId
    message: str


@attrs.frozen
class ResponseCreated:
    """The model begins an answer; ``purpose`` is what our request's metadata said, empty if it was not ours."""

    response_id: ResponseId
    purpose: str = ""


@attrs.frozen
class OutputItemAdded:
    """An item of an answer begins: ``kind`` is ``message`` or ``function_call``."""

    response_id: ResponseId
    item_id: ItemId
    kind: str


@attrs.frozen
class AudioDelta:
    """A piece of spoken answer: ``audio`` is mu-law of any length."""

    response_id: ResponseId
    item_id: ItemId
    content_index: int
    audio: bytes


@attrs.frozen
class AudioDone:
    """No more audio for this item."""

    response_id: ResponseId
    item_id: ItemId


@attrs.frozen
class TranscriptDelta:
    """A piece of the text of a spoken answer; it runs ahead of the audio."""

    response_id: ResponseId
    item_id: ItemId
    text: str


@attrs.frozen
class FunctionCallDone:
    """The model calls the tool ``name``; ``arguments`` is JSON text, not yet validated."""

    response_id: ResponseId
    item_id: ItemId
    call_id: str
    name: str
    arguments: str


@attrs.frozen
class ResponseDone:
    """The model generates no more of this answer: completed, cancelled, failed or incomplete."""

    response_id: ResponseId
    status: str
    reason: str
    message: str


@attrs.frozen
class ItemTruncated:
    """The provider now agrees that this much of the item was heard."""

    item_id: ItemId
    audio_end_ms: int


@attrs.frozen
class ErrorEvent:
    """The provider refused something; ``event_id`` names our event if it was one of ours."""

    kind: str
    code: str
    message: str
    event_id: str
    param: str


@attrs.frozen
class OtherEvent:
    """An event nothing here needs; counted by type."""

    type: str


ModelEvent = (
    SessionCreated
    | SessionUpdated
    | SpeechStarted
    | SpeechStopped
    | InputCommitted
    | InputTranscribed
    | InputTranscriptionFailed
    | ResponseCreated
    | OutputItemAdded
    | AudioDelta
    | AudioDone
    | TranscriptDelta
    | FunctionCallDone
    | ResponseDone
    | ItemTruncated
    | ErrorEvent
    | OtherEvent
)


class _ErrorBody(msgspec.Struct):
    message: str = ""
    type: str = ""
    code: str | None = None
    event_id: str | None = None
    param: str | None = None


class _StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: _ErrorBody | None = None


class _Response(msgspec.Struct):
    id: str = ""
    status: str | None = None
    status_details: _StatusDetails | None = None
    metadata: dict[str, str] | None = None


class _Item(msgspec.Struct):
    id: str = ""
    type: str = ""


class _Event(msgspec.Struct):
    type: str
    response_id: str = ""
    item_id: str = ""
    content_index: int = 0
    delta: str = ""
    transcript: str = ""
    audio_start_ms: int = 0
    audio_end_ms: int = 0
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    response: _Response | None = None
    item: _Item | None = None
    error: _ErrorBody | None = None


_decoder: Final = msgspec.json.Decoder(_Event)


def decode_event(raw: str | bytes) -> ModelEvent:
    """Decode one server event.

    Raises MalformedMessageError (kinds ``model_json``, ``model_field``, ``model_base64``); an unknown type is
    an OtherEvent.
    """
    try:
        event = _decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise MalformedMessageError("model_field", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessageError("model_json", str(error)) from None
    build = _BUILDERS.get(event.type)
    return OtherEvent(event.type) if build is None else build(event)


def _required(text: str, field: str, event: _Event) -> str:
    if not text:
        raise MalformedMessageError("model_field", f"{event.type} without {field}")
    return text


def _response_id(event: _Event) -> ResponseId:
    return ResponseId(_required(event.response_id, "response_id", event))


def _item_id(event: _Event) -> ItemId:
    return ItemId(_required(event.item_id, "item_id", event))


def _own_id(event: _Event) -> ResponseId:
    return ResponseId(_required(event.response.id if event.response else "", "response.id", event))


def _purpose(event: _Event) -> str:
    metadata = event.response.metadata if event.response else None
    return metadata.get("purpose", "") if metadata else ""


def _audio_delta(event: _Event) -> AudioDelta:
    try:
        audio = a2b_base64(event.delta, strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise MalformedMessageError("model_base64", str(error)) from None
    return AudioDelta(_response_id(event), _item_id(event), event.content_index, audio)


def _output_item(event: _Event) -> OutputItemAdded:
    item = event.item or _Item()
    return OutputItemAdded(_response_id(event), ItemId(_required(item.id, "item.id", event)), item.type)


def _response_done(event: _Event) -> ResponseDone:
    response = event.response or _Response()
    details = response.status_details or _StatusDetails()
    error = details.error or _ErrorBody()
    reason = details.reason or error.code or error.type
    return ResponseDone(_own_id(event), response.status or "completed", reason or "", error.message)


def _error(event: _Event) -> ErrorEvent:
    body = event.error or _ErrorBody()
    return ErrorEvent(body.type, body.code or "", body.message, body.event_id or "", body.param or "")


_BUILDERS: Final[Mapping[str, Callable[[_Event], ModelEvent]]] = {
    "response.output_audio.delta": _audio_delta,
    "response.output_audio.done": lambda event: AudioDone(_response_id(event), _item_id(event)),
    "response.output_audio_transcript.delta": lambda event: TranscriptDelta(
        _response_id(event), _item_id(event), event.delta
    ),
    "response.created": lambda event: ResponseCreated(_own_id(event), _purpose(event)),
    "response.done": _response_done,
    "response.output_item.added": _output_item,
    "response.function_call_arguments.done": lambda event: FunctionCallDone(
        _response_id(event), _item_id(event), event.call_id, event.name, event.arguments
    ),
    "input_audio_buffer.speech_started": lambda event: SpeechStarted(_item_id(event), event.audio_start_ms),
    "input_audio_buffer.speech_stopped": lambda event: SpeechStopped(_item_id(event), event.audio_end_ms),
    "input_audio_buffer.committed": lambda event: InputCommitted(_item_id(event)),
    "conversation.item.input_audio_transcription.completed": lambda event: InputTranscribed(
        _item_id(event), event.transcript
    ),
    "conversation.item.input_audio_transcription.failed": lambda event: InputTranscriptionFailed(
        _item_id(event), event.error.message if event.error else ""
    ),
    "conversation.item.truncated": lambda event: ItemTruncated(_item_id(event), event.audio_end_ms),
    "session.created": lambda _: SessionCreated(),
    "session.updated": lambda _: SessionUpdated(),
    "error": _error,
}

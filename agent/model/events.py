"""What the model says to us: the server events of the OpenAI Realtime API (GA names), decoded, no I/O.

Source: https://developers.openai.com/api/reference/resources/realtime. A light codec of our own, because audio
deltas are most of the traffic: fields that nothing reads are skipped.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import msgspec

from agent.core.errors import MalformedMessageError
from agent.core.units import ItemId, ResponseId


@attrs.frozen
class SessionCreated:
    """The session is open, with the provider's defaults."""


@attrs.frozen
class SessionUpdated:
    """Our ``session.update`` is in force: what is confirmed of it, empty or None where nothing is said."""

    input_format: dict[str, Any] = attrs.field(factory=dict)
    """``{"type": "audio/pcmu"}`` for example."""
    output_format: dict[str, Any] = attrs.field(factory=dict)
    turn_detection: str = ""
    """``server_vad`` or ``semantic_vad``; empty: nobody listens for turns."""
    create_response: bool | None = None
    interrupt_response: bool | None = None


@attrs.frozen
class SpeechStarted:
    """VAD heard the caller begin."""

    item_id: ItemId


@attrs.frozen
class SpeechStopped:
    """VAD heard the caller end; ``audio_end_ms`` counts all audio appended in this session."""

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


@attrs.frozen
class ResponseCreated:
    """The model begins an answer; ``purpose`` is what our request's metadata said, empty if it was not ours."""

    response_id: ResponseId
    purpose: str = ""


@attrs.frozen
class OutputItemAdded:
    """An item of an answer begins; that of a tool's use has the tool's ``name``."""

    item_id: ItemId
    name: str = ""


@attrs.frozen
class AudioDelta:
    """A piece of spoken answer: ``audio`` is mu-law of any length."""

    response_id: ResponseId
    item_id: ItemId
    content_index: int
    audio: bytes


@attrs.frozen
class TranscriptDelta:
    """A piece of the text of a spoken answer; it runs ahead of the audio."""

    response_id: ResponseId
    item_id: ItemId
    text: str


@attrs.frozen
class FunctionCallDone:
    """The model calls the tool ``name``; ``arguments`` is JSON text, not yet validated.

    The name may be empty: then it is that of the item, see OutputItemAdded.
    """

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
class RateLimit:
    """What is left of requests or tokens, and in how many seconds it is whole again; None: not said."""

    remaining: int | None
    reset_s: float | None


@attrs.frozen
class RateLimits:
    """The limits as they stand after an answer."""

    limits: tuple[RateLimit, ...]


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
    | TranscriptDelta
    | FunctionCallDone
    | ResponseDone
    | RateLimits
    | ErrorEvent
    | OtherEvent
)


class _ErrorBody(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | None = None
    event_id: str | None = None
    param: str | None = None


class _ItemBody(msgspec.Struct):
    id: str | None = None
    name: str | None = None


class _StatusDetails(msgspec.Struct):
    reason: str | None = None
    error: _ErrorBody | None = None


class _ResponseBody(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    status_details: _StatusDetails | None = None
    metadata: dict[str, str] | None = None


class _Ended(msgspec.Struct):
    """As much of a response as must be read: it ends, whatever else is said of it."""

    id: str | None = None
    status: object = None


class _Limit(msgspec.Struct):
    remaining: int | None = None
    reset_seconds: float | None = None


class _Detection(msgspec.Struct):
    type: str | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class _Way(msgspec.Struct):
    format: dict[str, Any] | None = None
    turn_detection: _Detection | None = None


class _Audio(msgspec.Struct):
    input: _Way | None = None
    output: _Way | None = None


class _SessionBody(msgspec.Struct):
    audio: _Audio | None = None


_NOTHING: Final = msgspec.Raw(b"{}")


class _Event(msgspec.Struct):
    """Any event. ``response`` and ``session`` are read by those that need them, so that others pass without."""

    type: str
    response_id: str | None = None
    item_id: str | None = None
    content_index: int | None = None
    delta: str | None = None
    transcript: str | None = None
    audio_end_ms: int | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    response: msgspec.Raw = _NOTHING
    session: msgspec.Raw = _NOTHING
    item: _ItemBody | None = None
    error: _ErrorBody | None = None
    rate_limits: list[_Limit] | None = None


class _Kind(msgspec.Struct):
    type: str


_decoder: Final = msgspec.json.Decoder(_Event)


def decode_event(raw: str | bytes) -> ModelEvent:
    """Decode one server event.

    Raises MalformedMessageError (kinds ``model_json``, ``model_field``, ``model_base64``); an unknown type is
    an OtherEvent.
    """
    try:
        event = _decoder.decode(raw)
        build = _BUILDERS.get(event.type)
        return OtherEvent(event.type) if build is None else build(event)
    except msgspec.ValidationError as error:
        return _unread(raw, error)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedMessageError("model_json", str(error)) from None


def _unread(raw: str | bytes, error: msgspec.ValidationError) -> OtherEvent:
    """An event that does not fit is one that nothing here needs, or malformed."""
    with suppress(msgspec.DecodeError, RecursionError):
        kind = msgspec.json.decode(raw, type=_Kind).type
        if kind not in _BUILDERS:
            return OtherEvent(kind)
    raise MalformedMessageError("model_field", str(error)) from None


def _required(text: str | None, field: str, event: _Event) -> str:
    if not text:
        raise MalformedMessageError("model_field", f"{event.type} without {field}")
    return text


def _response_id(event: _Event) -> ResponseId:
    return ResponseId(_required(event.response_id, "response_id", event))


def _item_id(event: _Event) -> ItemId:
    return ItemId(_required(event.item_id, "item_id", event))


def _own_id(response: _ResponseBody | _Ended, event: _Event) -> ResponseId:
    return ResponseId(_required(response.id, "response.id", event))


def _audio_delta(event: _Event) -> AudioDelta:
    try:
        audio = a2b_base64(event.delta or "", strict_mode=True)
    except (Base64Error, ValueError) as error:
        raise MalformedMessageError("model_base64", str(error)) from None
    return AudioDelta(_response_id(event), _item_id(event), event.content_index or 0, audio)


def _output_item(event: _Event) -> OutputItemAdded:
    item = event.item
    if item is None:
        raise MalformedMessageError("model_field", f"{event.type} without item")
    return OutputItemAdded(ItemId(item.id or ""), item.name or "")


def _response_created(event: _Event) -> ResponseCreated:
    response = msgspec.json.decode(event.response, type=_ResponseBody)
    return ResponseCreated(_own_id(response, event), (response.metadata or {}).get("purpose", ""))


def _response_done(event: _Event) -> ResponseDone:
    try:
        response = msgspec.json.decode(event.response, type=_ResponseBody)
    except msgspec.ValidationError:
        ended = msgspec.json.decode(event.response, type=_Ended)
        status = ended.status if isinstance(ended.status, str) else "completed"
        return ResponseDone(_own_id(ended, event), status, "", "")
    details = response.status_details or _StatusDetails()
    error = details.error or _ErrorBody()
    reason = details.reason or error.code or error.type or ""
    status = response.status or "completed"
    return ResponseDone(_own_id(response, event), status, reason, error.message or "")


def _session_updated(event: _Event) -> SessionUpdated:
    audio = msgspec.json.decode(event.session, type=_SessionBody).audio or _Audio()
    rx, tx = audio.input or _Way(), audio.output or _Way()
    turns = rx.turn_detection or _Detection()
    return SessionUpdated(
        _stated(rx.format), _stated(tx.format), turns.type or "", turns.create_response, turns.interrupt_response
    )


def _stated(audio: dict[str, Any] | None) -> dict[str, Any]:
    """A format without what it does not state."""
    return {name: value for name, value in (audio or {}).items() if value is not None}


def _rate_limits(event: _Event) -> RateLimits:
    limits = event.rate_limits or ()
    return RateLimits(tuple(RateLimit(each.remaining, each.reset_seconds) for each in limits))


def _error(event: _Event) -> ErrorEvent:
    body = event.error or _ErrorBody()
    return ErrorEvent(body.type or "", body.code or "", body.message or "", body.event_id or "", body.param or "")


_BUILDERS: Final[Mapping[str, Callable[[_Event], ModelEvent]]] = {
    "response.output_audio.delta": _audio_delta,
    "response.output_audio_transcript.delta": lambda event: TranscriptDelta(
        _response_id(event), _item_id(event), event.delta or ""
    ),
    "response.created": _response_created,
    "response.done": _response_done,
    "response.output_item.added": _output_item,
    "response.function_call_arguments.done": lambda event: FunctionCallDone(
        _response_id(event), _item_id(event), event.call_id or "", event.name or "", event.arguments or ""
    ),
    "input_audio_buffer.speech_started": lambda event: SpeechStarted(_item_id(event)),
    "input_audio_buffer.speech_stopped": lambda event: SpeechStopped(_item_id(event), event.audio_end_ms or 0),
    "input_audio_buffer.committed": lambda event: InputCommitted(_item_id(event)),
    "conversation.item.input_audio_transcription.completed": lambda event: InputTranscribed(
        _item_id(event), event.transcript or ""
    ),
    "conversation.item.input_audio_transcription.failed": lambda event: InputTranscriptionFailed(_item_id(event)),
    "session.created": lambda _: SessionCreated(),
    "session.updated": _session_updated,
    "rate_limits.updated": _rate_limits,
    "error": _error,
}

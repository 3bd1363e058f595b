"""The codec of the Realtime API: what we send the provider's own types accept; whatever comes in is safe."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import (
    ConversationItemCreateEvent,
    ConversationItemDeleteEvent,
    ConversationItemTruncateEvent,
    InputAudioBufferAppendEvent,
    RealtimeClientEvent,
    ResponseCancelEvent,
    ResponseCreateEvent,
    SessionUpdateEvent,
)
from pydantic import BaseModel, TypeAdapter
from virtual_call import MemoryRecords, make_settings

from agent.audio.metronome import Metronome
from agent.call.services import CallServices
from agent.call.tools.declare import END_CALL
from agent.core.errors import MalformedMessageError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid, ItemId, ResponseId
from agent.model import events as codec
from agent.model import requests
from agent.model.session import Connector

HEBREW = 'שלום, הגעתם ל"מרפאה" \\ בוקר טוב'
ITEM = ItemId("item_1")
RESPONSE = ResponseId("resp_1")
Model = TypeVar("Model", bound=BaseModel)
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


def checked(model: type[Model], encoded: str) -> Model:
    """``encoded`` as the provider's own type; strict, and one of the events a client may send."""
    CLIENT_EVENT.validate_json(encoded)
    return TypeAdapter(model).validate_json(encoded, strict=True)


def session_of(**settings: Any) -> dict[str, Any]:
    """The session a call with these settings asks for."""
    send, _receive = trio.open_memory_channel[CallSid](1)
    services = CallServices(
        settings=make_settings(**settings),
        events=EventLog(Telemetry()),
        metronome=Metronome(),
        rest=None,
        connect_model=cast("Connector", None),
        records=MemoryRecords(),
        hand_over=send,
        guests=cast("trio.Nursery", None),
    )
    return services.session_of(services.tenants.default, [END_CALL], datetime.now(UTC))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"turn_detection": "semantic_vad"},
        {"turn_detection": "server_vad", "vad_threshold": 0.7, "vad_silence_ms": 250},
        {"language": "he", "instructions": HEBREW},
        {"noise_reduction": "off"},
        {"noise_reduction": "far_field"},
    ],
)
def test_every_session_a_call_can_ask_for_is_valid(settings: dict[str, Any]) -> None:
    session = session_of(**settings)
    event = checked(SessionUpdateEvent, requests.encode_session_update(session, "evt_1"))
    assert event.event_id == "evt_1"
    assert not find_extras(event), "a field the provider does not know"


def find_extras(model: BaseModel) -> list[str]:
    """Fields that the provider's type does not have; pydantic keeps them aside."""
    found = list(model.model_extra or ())
    for value in vars(model).values():
        if isinstance(value, BaseModel):
            found += find_extras(value)
    return found


def test_a_session_is_mu_law_both_ways_and_interruption_is_ours() -> None:
    """DESIGN D2, D3: the provider answers by itself, and never interrupts by itself."""
    audio = session_of()["audio"]
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcmu"}
    assert audio["input"]["turn_detection"]["create_response"] is True
    assert audio["input"]["turn_detection"]["interrupt_response"] is False


def test_append_carries_the_payload_untouched() -> None:
    payload = b64encode(bytes(range(160))).decode()
    assert checked(InputAudioBufferAppendEvent, requests.encode_append(payload)).audio == payload


def test_response_create_carries_its_purpose_and_instructions() -> None:
    event = checked(ResponseCreateEvent, requests.encode_response_create("evt_2", "greeting", HEBREW))
    assert event.response is not None
    assert event.response.metadata == {"purpose": "greeting"}
    assert event.response.instructions == HEBREW
    assert not find_extras(event)


def test_response_create_without_instructions_keeps_the_sessions() -> None:
    encoded = requests.encode_response_create("evt_2", "idle")
    assert checked(ResponseCreateEvent, encoded).response is not None
    assert "instructions" not in encoded


def test_cancel_truncate_and_delete_are_valid() -> None:
    cancel = checked(ResponseCancelEvent, requests.encode_response_cancel(RESPONSE, "evt_3"))
    assert (cancel.response_id, cancel.event_id) == (RESPONSE, "evt_3")
    truncate = checked(ConversationItemTruncateEvent, requests.encode_truncate(ITEM, 0, 1234, "evt_4"))
    assert (truncate.item_id, truncate.content_index, truncate.audio_end_ms) == (ITEM, 0, 1234)
    delete = checked(ConversationItemDeleteEvent, requests.encode_item_delete(ITEM, "evt_5"))
    assert (delete.item_id, delete.event_id) == (ITEM, "evt_5")


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
@pytest.mark.parametrize("text", ["Hello.", HEBREW, "", "\x00\x1f\u2028🙂"])
def test_text_items_are_valid_in_every_role(role: str, text: str) -> None:
    item: Any = checked(ConversationItemCreateEvent, requests.encode_text_item(role, text, "evt_6")).item
    assert item.role == role
    assert item.content[0].text == text
    assert item.content[0].type == ("output_text" if role == "assistant" else "input_text")


def test_tool_output_is_valid() -> None:
    item: Any = checked(ConversationItemCreateEvent, requests.encode_tool_output("call_1", HEBREW, "evt_7")).item
    assert (item.type, item.call_id, item.output) == ("function_call_output", "call_1", HEBREW)


@given(st.text(), st.text(), st.integers(0, 2**31), st.integers(0, 2**31))
def test_any_text_survives_encoding(text: str, name: str, index: int, end_ms: int) -> None:
    """Nothing that a caller says or a setting holds can break out of its JSON string."""
    item: Any = checked(ConversationItemCreateEvent, requests.encode_text_item("user", text, name)).item
    assert item.content[0].text == text
    truncate = checked(ConversationItemTruncateEvent, requests.encode_truncate(ItemId(name), index, end_ms, name))
    assert (truncate.item_id, truncate.audio_end_ms) == (name, end_ms)


IDS = {"response_id": "resp_1", "item_id": "item_1"}
AUDIO = b"\x00\x7f\xff" * 50
DECODED: list[tuple[dict[str, Any], codec.ModelEvent]] = [
    ({"type": "session.created", "session": {"id": "sess_1"}}, codec.SessionCreated()),
    ({"type": "session.updated", "session": {"id": "sess_1"}}, codec.SessionUpdated()),
    (
        {
            "type": "session.updated",
            "session": {
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcmu"},
                        "turn_detection": {"type": "server_vad", "interrupt_response": False, "threshold": 0.5},
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"},
                }
            },
        },
        codec.SessionUpdated(
            {"type": "audio/pcmu"},
            {"type": "audio/pcm", "rate": 24000},
            "server_vad",
            None,
            interrupt_response=False,
        ),
    ),
    (
        {"type": "input_audio_buffer.speech_started", "item_id": "item_1", "audio_start_ms": 960},
        codec.SpeechStarted(ITEM),
    ),
    (
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_1", "audio_end_ms": 1960},
        codec.SpeechStopped(ITEM, 1960),
    ),
    (
        {"type": "input_audio_buffer.committed", "item_id": "item_1", "previous_item_id": None},
        codec.InputCommitted(ITEM),
    ),
    (
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": "item_1",
            "content_index": 0,
            "transcript": HEBREW,
            "usage": {"type": "duration", "seconds": 2},
        },
        codec.InputTranscribed(ITEM, HEBREW),
    ),
    (
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "item_id": "item_1",
            "error": {"type": "transcription_error", "message": "unintelligible", "code": None},
        },
        codec.InputTranscriptionFailed(ITEM),
    ),
    (
        {"type": "response.created", "response": {"id": "resp_1", "metadata": {"purpose": "greeting"}}},
        codec.ResponseCreated(RESPONSE, "greeting"),
    ),
    ({"type": "response.created", "response": {"id": "resp_1"}}, codec.ResponseCreated(RESPONSE, "")),
    (
        {"type": "response.created", "response": {"id": "resp_1", "metadata": None}},
        codec.ResponseCreated(RESPONSE, ""),
    ),
    (
        {
            "type": "response.output_item.added",
            "response_id": "resp_1",
            "output_index": 0,
            "item": {"id": "item_1", "type": "message", "role": "assistant", "content": []},
        },
        codec.OutputItemAdded(ITEM),
    ),
    (
        {
            "type": "response.output_item.added",
            "response_id": "resp_1",
            "item": {"id": "item_1", "type": "function_call", "call_id": "call_1", "name": "end_call"},
        },
        codec.OutputItemAdded(ITEM, "end_call"),
    ),
    (
        {"type": "response.output_audio.delta", **IDS, "content_index": 1, "delta": b64encode(AUDIO).decode()},
        codec.AudioDelta(RESPONSE, ITEM, 1, AUDIO),
    ),
    (
        {"type": "response.output_audio_transcript.delta", **IDS, "delta": HEBREW},
        codec.TranscriptDelta(RESPONSE, ITEM, HEBREW),
    ),
    (
        {
            "type": "response.function_call_arguments.done",
            **IDS,
            "call_id": "call_1",
            "name": "end_call",
            "arguments": "{}",
        },
        codec.FunctionCallDone(RESPONSE, ITEM, "call_1", "end_call", "{}"),
    ),
    (
        {"type": "response.function_call_arguments.done", **IDS, "call_id": "call_1", "arguments": "{}"},
        codec.FunctionCallDone(RESPONSE, ITEM, "call_1", "", "{}"),
    ),
    (
        {"type": "response.done", "response": {"id": "resp_1", "status": "completed", "status_details": None}},
        codec.ResponseDone(RESPONSE, "completed", "", ""),
    ),
    (
        {
            "type": "response.done",
            "response": {
                "id": "resp_1",
                "status": "cancelled",
                "status_details": {"type": "cancelled", "reason": "client_cancelled"},
            },
        },
        codec.ResponseDone(RESPONSE, "cancelled", "client_cancelled", ""),
    ),
    (
        {
            "type": "response.done",
            "response": {
                "id": "resp_1",
                "status": "failed",
                "status_details": {
                    "type": "failed",
                    "error": {"type": "server_error", "code": "rate_limit_exceeded", "message": "slow down"},
                },
            },
        },
        codec.ResponseDone(RESPONSE, "failed", "rate_limit_exceeded", "slow down"),
    ),
    (
        {
            "type": "error",
            "event_id": "event_890",
            "error": {
                "type": "invalid_request_error",
                "code": "invalid_event",
                "message": "The 'type' field is missing.",
                "param": None,
                "event_id": "evt_1",
            },
        },
        codec.ErrorEvent("invalid_request_error", "invalid_event", "The 'type' field is missing.", "evt_1", ""),
    ),
    (
        {
            "type": "rate_limits.updated",
            "rate_limits": [
                {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 60},
                {"name": "tokens", "remaining": None},
            ],
        },
        codec.RateLimits((codec.RateLimit(999, 60.0), codec.RateLimit(None, None))),
    ),
    ({"type": "an.event.of.tomorrow", "anything": [1, {}]}, codec.OtherEvent("an.event.of.tomorrow")),
]


@pytest.mark.parametrize(
    ("message", "expected"), DECODED, ids=lambda case: str(getattr(case, "get", str)("type"))
)
def test_each_server_event_is_decoded(message: dict[str, Any], expected: codec.ModelEvent) -> None:
    """From text and from bytes alike, with or without the fields nobody reads."""
    encoded = msgspec.json.encode({"event_id": "event_1", **message})
    assert codec.decode_event(encoded) == expected
    assert codec.decode_event(encoded.decode()) == expected


def test_every_event_that_is_read_was_decoded_above() -> None:
    assert {message["type"] for message, _ in DECODED} >= set(codec._BUILDERS)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("", "model_json"),
        ("{", "model_json"),
        (b"\xff\xfe{}", "model_json"),
        ("null", "model_field"),
        ("[]", "model_field"),
        ("{}", "model_field"),
        ('{"type":7}', "model_field"),
        ('{"type":"response.created","response":"resp_1"}', "model_field"),
        ('{"type":"response.created","response":{}}', "model_field"),
        ('{"type":"response.created"}', "model_field"),
        ('{"type":"response.done","response":null}', "model_field"),
        ('{"type":"response.output_item.added","response_id":"r"}', "model_field"),
        ('{"type":"response.output_audio_transcript.delta","item_id":"i"}', "model_field"),
        ('{"type":"input_audio_buffer.speech_stopped","item_id":"i","audio_end_ms":"soon"}', "model_field"),
        ('{"type":"input_audio_buffer.committed"}', "model_field"),
        (
            '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"AAA"}',
            "model_base64",
        ),
        (
            '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"א==="}',
            "model_base64",
        ),
        ('{"type":"error","error":' + "[" * 100_000, "model_field"),
        ('{"type":"other","deep":' + "[" * 100_000, "model_json"),
        ("\ud800", "model_json"),
    ],
)
def test_what_the_protocol_does_not_allow_has_a_stable_kind(raw: str | bytes, kind: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        codec.decode_event(raw)
    assert caught.value.kind == kind


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [field.name for field in msgspec.structs.fields(codec._Event) if field.name != "type"]


@given(st.text() | st.binary())
def test_any_bytes_are_decoded_or_refused(raw: str | bytes) -> None:
    decode_or_refuse(raw)


@given(JSON)
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    decode_or_refuse(msgspec.json.encode(value))


@given(st.sampled_from(sorted(codec._BUILDERS)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_known_events_with_any_fields_are_decoded_or_refused(kind: str, fields: dict[str, Any]) -> None:
    decode_or_refuse(msgspec.json.encode({**fields, "type": kind}))


@given(st.sampled_from(DECODED), st.data())
def test_an_event_cut_off_anywhere_is_refused(case: tuple[dict[str, Any], Any], data: st.DataObject) -> None:
    encoded = msgspec.json.encode(case[0])
    with pytest.raises(MalformedMessageError):
        codec.decode_event(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.text(min_size=1).filter(lambda kind: kind not in codec._BUILDERS), st.dictionaries(st.text(), JSON))
def test_an_unknown_type_is_another_event(kind: str, fields: dict[str, Any]) -> None:
    known = {*FIELDS, "type"}
    unread = {name: value for name, value in fields.items() if name not in known}
    assert codec.decode_event(msgspec.json.encode({**unread, "type": kind})) == codec.OtherEvent(kind)


def decode_or_refuse(raw: str | bytes) -> None:
    """Only a value or MalformedMessageError: anything else that is raised fails the test."""
    try:
        event = codec.decode_event(raw)
    except MalformedMessageError as error:
        assert error.kind in ("model_json", "model_field", "model_base64")  # noqa: PT017 - either way is fine
    else:
        assert isinstance(event, codec.ModelEvent)

"""What we say to the model: the client events of the OpenAI Realtime API (GA names), encoded, no I/O.

Source: https://developers.openai.com/api/reference/resources/realtime; the tests check everything encoded here
against the shapes of ``openai.types.realtime``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from agent.core.audio_format import AudioFormat
from agent.core.units import ItemId, ResponseId

_APPEND_HEAD: Final = '{"type":"input_audio_buffer.append","audio":"'


def encode_append(payload: str) -> str:
    """Caller audio for the model: ``payload`` is base64 that was checked on arrival, spliced in untouched."""
    return f'{_APPEND_HEAD}{payload}"}}'


def encode_session_update(session: Mapping[str, Any], event_id: str) -> str:
    """Set the session; ``session`` is the GA ``session`` object with ``type: realtime``."""
    return _encode({"type": "session.update", "event_id": event_id, "session": session})


def encode_response_create(
    event_id: str, purpose: str, instructions: str | None = None, *, tools: bool = True
) -> str:
    """Ask for an answer; ``instructions`` replace the session's for this one answer.

    Without ``tools`` it may call none. ``purpose`` travels as metadata, which the provider repeats in
    ``response.created``: that is how an answer we asked for is told from one of the provider's own.
    """
    response: dict[str, Any] = {"metadata": {"purpose": purpose}}
    if instructions is not None:
        response["instructions"] = instructions
    if not tools:
        response["tool_choice"] = "none"
    return _encode({"type": "response.create", "event_id": event_id, "response": response})


def encode_response_cancel(response_id: ResponseId, event_id: str) -> str:
    """Stop generating ``response_id``; send it only while that answer is being generated (BI-3)."""
    return _encode({"type": "response.cancel", "event_id": event_id, "response_id": response_id})


def encode_truncate(item_id: ItemId, content_index: int, audio_end_ms: int, event_id: str) -> str:
    """Tell the model that only the first ``audio_end_ms`` of an item were heard (PL-8)."""
    return _encode(
        {
            "type": "conversation.item.truncate",
            "event_id": event_id,
            "item_id": item_id,
            "content_index": content_index,
            "audio_end_ms": audio_end_ms,
        }
    )


def encode_item_delete(item_id: ItemId, event_id: str) -> str:
    """Remove an item from the conversation: it was never heard at all."""
    return _encode({"type": "conversation.item.delete", "event_id": event_id, "item_id": item_id})


def encode_text_item(role: str, text: str, event_id: str, item_id: ItemId | None = None) -> str:
    """Add a message of a ``user``, ``assistant`` or ``system``; ``item_id``: at most 32 letters of ours."""
    kind = "output_text" if role == "assistant" else "input_text"
    item: dict[str, Any] = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
    if item_id:
        item["id"] = item_id
    return _encode({"type": "conversation.item.create", "event_id": event_id, "item": item})


def encode_tool_output(call_id: str, output: str, event_id: str) -> str:
    """Answer a function call; ``output`` is text, JSON by convention."""
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return _encode({"type": "conversation.item.create", "event_id": event_id, "item": item})


def make_session(
    *,
    audio: AudioFormat,
    instructions: str,
    voice: str,
    turn_detection: Mapping[str, Any],
    transcription: Mapping[str, Any] | None,
    noise_reduction: str | None,
    tools: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The GA session object for a call: the same audio both ways, interruption ours (DESIGN D2, D3).

    ``turn_detection`` is the provider's object without the two flags that D3 fixes. Without ``transcription``
    there is no such field, for the provider's types know no null there: a session begins with none.
    """
    audio_in: dict[str, Any] = {
        "format": audio.declare(),
        "turn_detection": {**turn_detection, "create_response": True, "interrupt_response": False},
        "noise_reduction": {"type": noise_reduction} if noise_reduction else None,
        **({"transcription": transcription} if transcription else {}),
    }
    return {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": instructions,
        "audio": {"input": audio_in, "output": {"format": audio.declare(), "voice": voice}},
        "tools": list(tools),
        "tool_choice": "auto",
    }


def leave_out(session: dict[str, Any], path: str) -> None:
    """Remove a field from a session object; ``path`` is what the provider names it by, ``session.audio...``."""
    *parents, name = path.removeprefix("session.").split(".")
    place: Any = session
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place.pop(name, None)


def _encode(event: Mapping[str, Any]) -> str:
    return msgspec.json.encode(event).decode()

"""MO-1: what a session confirms is held against what was asked of it; a refused field is left out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from agent.core.audio_format import ULAW_8K
from agent.model.events import ErrorEvent, SessionUpdated
from agent.model.opening import REFUSALS, SessionOpening
from agent.model.requests import make_session

CONFIRMED = SessionUpdated(ULAW_8K.declare(), ULAW_8K.declare(), "server_vad", True, interrupt_response=False)


def asked() -> SessionOpening:
    """An opening whose settings were sent."""
    opening = SessionOpening()
    opening.settings(
        make_session(
            audio=ULAW_8K,
            instructions="",
            voice="marin",
            turn_detection={"type": "server_vad"},
            transcription=None,
            noise_reduction=None,
            tools=[],
        )
    )
    return opening


def test_what_was_asked_for_contradicts_nothing() -> None:
    assert asked().contradictions(CONFIRMED) == []


def test_more_may_be_stated_and_a_default_may_go_without_saying() -> None:
    stated = {**ULAW_8K.declare(), "rate": 8000, "channels": 1}
    assert asked().contradictions(attrs.evolve(CONFIRMED, input_format=stated, create_response=None)) == []


@pytest.mark.parametrize(
    ("otherwise", "named"),
    [
        ({"input_format": {"type": "audio/pcm", "rate": 24000}}, "the input's format"),
        ({"output_format": {}}, "the output's format"),
        ({"turn_detection": "semantic_vad"}, "the turn detection"),
        ({"turn_detection": ""}, "the turn detection"),
        ({"interrupt_response": None}, "interrupt_response"),
        ({"interrupt_response": True}, "interrupt_response"),
        ({"create_response": False}, "create_response"),
    ],
)
def test_anything_else_does_and_is_named(otherwise: dict[str, Any], named: str) -> None:
    [wrong] = asked().contradictions(attrs.evolve(CONFIRMED, **otherwise))
    assert wrong.startswith(named)


def refusal(path: str, code: str = "invalid_value") -> ErrorEvent:
    return ErrorEvent("invalid_request_error", code, "no", "event", path)


def test_a_refused_field_is_left_out_three_times_at_most() -> None:
    opening = asked()
    dropped = [opening.drop(refusal(f"session.field_{number}")) for number in range(REFUSALS + 1)]
    assert dropped == [True] * REFUSALS + [False]
    assert opening.settings({"type": "realtime", "field_0": 1, "other": 2}) == {"type": "realtime", "other": 2}


@pytest.mark.parametrize(
    "error",
    [
        refusal("session.audio.output.format.type"),
        refusal("session.audio.input.turn_detection"),
        refusal(""),
        refusal("session.model", "invalid_model"),
    ],
    ids=["format", "turn detection", "nothing named", "a model that does not exist"],
)
def test_without_some_there_is_no_call(error: ErrorEvent) -> None:
    assert not asked().drop(error)

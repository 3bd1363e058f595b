"""The session object of the Realtime API, as far as the embedded model obeys it. Pure.

What it cannot do is refused (other audio formats) or echoed and ignored (model, noise reduction).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import attrs
import msgspec
from msgspec import Meta

from agent.core.audio_format import PCM16_24K, ULAW_8K, AudioFormat
from agent.model.server_shapes import EventRefusedError, merged

FORMATS: Final = {audio.name: audio for audio in (ULAW_8K, PCM16_24K)}
"""What is heard and spoken, by the provider's names; PCM16 at its one rate."""
VOICE: Final = "heart"
_REPLACED: Final = ("format", "turn_detection")
"""Objects of a session that an update does not merge with what there is."""
_EAGERNESS_MS: Final = {"low": 800, "medium": 500, "auto": 500, "high": 300}
"""Silence that ends a turn under semantic_vad, which is server_vad here."""


@attrs.frozen
class TurnDetection:
    """How turns are found, and what happens then."""

    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Meta(ge=50, le=10_000)] = 500
    create_response: bool = True
    interrupt_response: bool = True


def _default_session() -> dict[str, Any]:
    return {
        "type": "realtime",
        "model": "local",
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "audio": {
            "input": {
                "format": ULAW_8K.declare(),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": {"type": "server_vad", **attrs.asdict(TurnDetection())},
            },
            "output": {"format": ULAW_8K.declare(), "voice": VOICE},
        },
    }


@attrs.frozen
class SessionConfig:
    """What a session is set to; ``turn_detection`` None: the client commits turns itself."""

    instructions: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    turn_detection: TurnDetection | None = TurnDetection()
    transcribing: bool = False
    voice: str = VOICE
    heard: AudioFormat = ULAW_8K
    spoken: AudioFormat = ULAW_8K
    echo: Mapping[str, Any] = attrs.field(factory=_default_session, repr=False)

    def updated(self, session: Mapping[str, Any]) -> SessionConfig:
        """This configuration with the fields of a ``session.update`` in it. Raises EventRefusedError."""
        if session.get("type", "realtime") != "realtime":
            raise EventRefusedError(
                "invalid_value", "Only sessions of type 'realtime' are supported.", "session.type"
            )
        echo = merged(self.echo, session, whole=_REPLACED)
        audio = _mapping(echo, "audio", "session")
        audio_in, audio_out = (_mapping(audio, side, "session.audio") for side in ("input", "output"))
        tools = echo.get("tools") or []
        if not isinstance(tools, Sequence) or not all(isinstance(tool, Mapping) for tool in tools):
            raise EventRefusedError("invalid_type", "Tools are a list of objects.", "session.tools")
        voice = audio_out.get("voice")
        return SessionConfig(
            instructions=str(echo.get("instructions") or ""),
            tools=tuple(tools),
            turn_detection=_turn_detection(audio_in.get("turn_detection")),
            transcribing=audio_in.get("transcription") is not None,
            voice=voice if isinstance(voice, str) else VOICE,
            heard=_format(audio_in, "session.audio.input"),
            spoken=_format(audio_out, "session.audio.output"),
            echo=echo,
        )


def _mapping(parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise EventRefusedError("invalid_type", f"'{path}.{key}' is an object.", f"{path}.{key}")
    return value


def _format(part: Mapping[str, Any], path: str) -> AudioFormat:
    given = _mapping(part, "format", path)
    audio = FORMATS.get(str(given.get("type")))
    if audio is None or given.get("rate", audio.rate_hz) != audio.rate_hz:
        text = "Supported are audio/pcmu, and audio/pcm at a rate of 24000."
        raise EventRefusedError("invalid_value", text, f"{path}.format")
    return audio


def _turn_detection(value: object) -> TurnDetection | None:
    path = "session.audio.input.turn_detection"
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise EventRefusedError("invalid_type", f"'{path}' is an object or null.", path)
    given = {key: part for key, part in value.items() if part is not None}
    kind = given.get("type")
    if kind == "semantic_vad":
        eagerness = str(given.get("eagerness", "auto"))
        if eagerness not in _EAGERNESS_MS:
            raise EventRefusedError("invalid_value", f"Unknown eagerness {eagerness!r}.", f"{path}.eagerness")
        given = {key: given[key] for key in ("create_response", "interrupt_response") if key in given}
        given["silence_duration_ms"] = _EAGERNESS_MS[eagerness]
    elif kind != "server_vad":
        raise EventRefusedError("invalid_value", f"Unknown turn detection {kind!r}.", f"{path}.type")
    try:
        return msgspec.convert(given, TurnDetection)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise EventRefusedError("invalid_value", f"{what}.", f"{path}.{where.rstrip('`')}") from None

"""The settings of a scripted model's session, as the client's updates leave them. No I/O, no clock."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from agent.model.server_shapes import EventRefusedError, merged

_DEFAULT_DETECTION: Final = {"type": "server_vad", "create_response": True, "interrupt_response": True}


@attrs.define(eq=False)
class SessionSettings:
    """The session object: what the client gave, merged; the provider's defaults where it gave nothing."""

    given: dict[str, Any] = attrs.field(factory=dict)
    refuses: str = ""
    """A field that no update may have, ``audio.output.voice`` for example."""
    pcm_by_default: bool = False
    """Without a format the provider speaks PCM16 at 24 kHz; a kind one speaks mu-law."""

    def update(self, session: object) -> None:
        """Take a ``session.update``. Raises EventRefusedError, and then nothing has changed."""
        if not isinstance(session, dict) or session.get("type") != "realtime":
            message = "Missing required parameter: 'session.type'."
            raise EventRefusedError("missing_required_parameter", message, "session.type")
        if self.refuses and _has(session, self.refuses.split(".")):
            raise EventRefusedError("invalid_value", "Invalid value.", f"session.{self.refuses}")
        audio = session.get("audio", {})
        formats = {audio.get(way, {}).get("format", {}).get("type") for way in ("input", "output")}
        if len(formats - {None}) > 1 or formats - {None, "audio/pcmu", "audio/pcm"}:
            message = "This simulated model hears and speaks audio/pcmu or audio/pcm, the same both ways."
            raise EventRefusedError("invalid_value", message, "session.audio")
        self.given = merged(self.given, session)

    @property
    def detection(self) -> Mapping[str, Any] | None:
        """``turn_detection``; None: turns are not detected."""
        detection: Mapping[str, Any] | None = self._input.get("turn_detection", _DEFAULT_DETECTION)
        return detection

    @property
    def answers_turns(self) -> bool:
        """Whether the end of a turn is answered."""
        return bool((self.detection or {}).get("create_response", True))

    @property
    def interrupts(self) -> bool:
        """Whether the caller's speech cancels an answer."""
        return bool((self.detection or {}).get("interrupt_response", True))

    @property
    def transcribes(self) -> bool:
        """Whether the caller's words are wanted as text."""
        return bool(self._input.get("transcription"))

    @property
    def speaks_pcm(self) -> bool:
        """Whether answers are PCM16 at 24 kHz."""
        spoken = self.given.get("audio", {}).get("output", {}).get("format", {}).get("type")
        return self.pcm_by_default if spoken is None else spoken == "audio/pcm"

    @property
    def hears_pcm(self) -> bool:
        """Whether the caller's audio is PCM16 at 24 kHz; only where it was asked for."""
        return bool(self._input.get("format", {}).get("type") == "audio/pcm")

    def resource(self) -> dict[str, Any]:
        """The ``session`` object of an event."""
        defaults = {"type": "realtime", "id": "sess_simulated", "object": "realtime.session"}
        return {**defaults, "model": "scripted", "output_modalities": ["audio"], **self.given}

    @property
    def _input(self) -> Mapping[str, Any]:
        given: Mapping[str, Any] = self.given.get("audio", {}).get("input", {})
        return given


def _has(value: object, path: list[str]) -> bool:
    return not path or (isinstance(value, dict) and path[0] in value and _has(value[path[0]], path[1:]))

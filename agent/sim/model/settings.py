"""The settings of a scripted model's session, as the client's updates leave them. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from agent.sim.model.script import ProviderError

_DEFAULT_DETECTION: Final = {"type": "server_vad", "create_response": True, "interrupt_response": True}


@attrs.define(eq=False)
class SessionSettings:
    """The session object: what the client gave, merged; the provider's defaults where it gave nothing."""

    given: dict[str, Any] = attrs.field(factory=dict)

    def update(self, session: object) -> tuple[ProviderError, str] | None:
        """Take a ``session.update``; the error and its parameter if it is refused."""
        if not isinstance(session, dict) or session.get("type") != "realtime":
            message = "Missing required parameter: 'session.type'."
            error = ProviderError("invalid_request_error", "missing_required_parameter", message)
            return error, "session.type"
        audio = session.get("audio", {})
        formats = {audio.get(way, {}).get("format", {}).get("type") for way in ("input", "output")}
        if formats - {None, "audio/pcmu"}:
            message = "This simulated model hears and speaks audio/pcmu only."
            return ProviderError("invalid_request_error", "invalid_value", message), "session.audio"
        self.given = _merged(self.given, session)
        return None

    @property
    def detection(self) -> Mapping[str, Any] | None:
        """``turn_detection``; None: nobody listens for turns."""
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

    def resource(self) -> dict[str, Any]:
        """The ``session`` object of an event."""
        defaults = {"type": "realtime", "id": "sess_simulated", "object": "realtime.session"}
        return {**defaults, "model": "scripted", "output_modalities": ["audio"], **self.given}

    @property
    def _input(self) -> Mapping[str, Any]:
        given: Mapping[str, Any] = self.given.get("audio", {}).get("input", {})
        return given


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with what ``new`` gives; objects are merged, all else replaced."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged

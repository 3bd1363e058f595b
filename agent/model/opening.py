"""How a session with the model is opened: our settings, until it confirms them (MO-1). Pure.

The provider refuses all of a ``session.update`` for one field that it does not like, and its defaults are then in
force: another format, which is played as noise, and interruptions of its own. The refusal names the field: it is
left out, and the rest is asked for again.
"""

from typing import Any, Final

import attrs

from agent.model.errors import Severity, severity
from agent.model.events import ErrorEvent, SessionUpdated
from agent.model.requests import leave_out

REFUSALS: Final = 3
"""Settings that may be left out in one call because the provider refuses them."""
NEVER_DROPPED: Final = (
    "session.audio.input.format",
    "session.audio.output.format",
    "session.audio.input.turn_detection",
)
"""Without these the call would be noise, or the interruption not ours."""


@attrs.define(eq=False)
class SessionOpening:
    """The settings of one call's sessions; what one of them refused is not asked of the next."""

    refused: list[str] = attrs.field(factory=list)
    """Fields left out, by the paths the provider names them with."""
    _asked: dict[str, Any] = attrs.field(factory=dict)
    """The ``audio`` object of the settings: all that is held against what is confirmed."""

    def settings(self, session: dict[str, Any]) -> dict[str, Any]:
        """The ``session`` object to ask for."""
        for path in self.refused:
            leave_out(session, path)
        self._asked = session.get("audio", {})
        return session

    def drop(self, error: ErrorEvent) -> bool:
        """Leave out what a refusal names, and say whether it is worth asking again."""
        path = error.param
        if severity(error.kind, error.code) is Severity.FATAL or not path or path.startswith(NEVER_DROPPED):
            return False
        self.refused.append(path)
        return len(self.refused) <= REFUSALS

    def contradictions(self, confirmed: SessionUpdated) -> list[str]:
        """What of the confirmed settings is not what was asked and cannot be done without."""
        audio = self._asked
        turns = audio["input"]["turn_detection"]
        facts: list[tuple[str, Any, Any]] = [
            ("the input's format", *_both(audio["input"]["format"], confirmed.input_format)),
            ("the output's format", *_both(audio["output"]["format"], confirmed.output_format)),
            ("the turn detection", turns["type"], confirmed.turn_detection),
            ("interrupt_response", turns["interrupt_response"], confirmed.interrupt_response),
            # Absent is the provider's default, which is what we ask for.
            ("create_response", turns["create_response"], confirmed.create_response is not False),
        ]
        return [f"{what} is {is_!r}, not {asked!r}" for what, asked, is_ in facts if asked != is_]


def _both(asked: dict[str, Any], stated: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A format as asked, and what is stated of it; more may be stated than was asked."""
    return asked, {name: stated.get(name) for name in asked}

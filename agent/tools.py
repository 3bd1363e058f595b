"""Tools the model may call: declared once, as the Realtime API wants them. ``end_call`` is the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs


@attrs.frozen
class Tool:
    """A tool's declaration; ``parameters`` is a JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    def declare(self) -> dict[str, Any]:
        """The object the session lists the tool by."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


END_CALL: Final = Tool(
    name="end_call",
    description="Hang up. Say goodbye in the same answer first; the call ends when the caller has heard it.",
    parameters={
        "type": "object",
        "properties": {"reason": {"type": "string", "description": "Why the call ends, in a few words"}},
        "additionalProperties": False,
    },
)

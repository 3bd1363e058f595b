"""A turn of the caller that began before or in the protected greeting, which may settle it. Pure."""

from __future__ import annotations

from typing import Final

import attrs

from agent.call.responses import Response
from agent.core.units import FRAME_MS, ItemId

SUBSTANCE_MS: Final = 700
"""Voice, by our own ear, of a turn that has something to say: a hello has less."""

WORDS_S: Final = 3.0
"""How long after its end the words of a turn are waited for; then its length decides."""


@attrs.define(eq=False)
class GreetedTurn:
    """A hello gets one answer, the greeting; a question into the greeting gets its own."""

    item_id: ItemId
    voiced_from: int
    """Voiced frames of the call, by our own ear, when it began."""
    committed_s: float | None = None
    answer: Response | None = None
    """What the provider began to say to it before its words were known."""

    def has_substance(self, voiced_total: int) -> bool:
        """Whether it has substance, judged by how long there was voice."""
        return (voiced_total - self.voiced_from) * FRAME_MS >= SUBSTANCE_MS

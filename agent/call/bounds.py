"""How much one call may make the model say, and have written down (DO-4). Pure.

Whoever watches the call looks at ``reached``, and has the model say goodbye.
"""

import attrs

from agent.core.bounds import ModelBounds


@attrs.define(eq=False)
class TalkBounds:
    """Counts the responses of one call, and the characters of its transcript."""

    bounds: ModelBounds = attrs.field(factory=ModelBounds)
    _responses: int = 0
    _text: int = 0

    @property
    def reached(self) -> str:
        """The bound that is reached, by its name in the log; empty while there is room."""
        if self._responses >= self.bounds.responses:
            return "responses"
        return "text" if self._text >= self.bounds.text else ""

    def response(self) -> None:
        """A response began."""
        self._responses += 1

    def keep(self, text: str) -> str:
        """What may be written down of ``text``."""
        kept = text[: max(self.bounds.text - self._text, 0)]
        self._text += len(kept)
        return kept

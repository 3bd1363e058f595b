"""How often the model used the tools of one call (DO-4). Pure."""

from collections import Counter

import attrs

from agent.call.tools.declare import Tool
from agent.core.errors import BoundError


@attrs.define(eq=False)
class UseCounts:
    """Uses in all, up to ``most``, and of each tool, up to its own ``most``."""

    most: int
    _in_all: int = 0
    _of: Counter[str] = attrs.field(factory=Counter)

    def take(self, tool: Tool | None) -> None:
        """Count a use before it begins; None: of a tool that is not there. Raises BoundError for one too many."""
        if self._in_all >= self.most:
            raise BoundError(
                "tool_uses",
                f"tools can be used {self.most} times in one call, and were: go on without them, offer that a "
                "person calls back, or say goodbye and call end_call",
            )
        self._in_all += 1
        if tool is None or tool.most is None:
            return
        if self._of[tool.name] >= tool.most:
            raise BoundError(
                tool.name,
                f"in one call {tool.name} can be used {tool.most} times, and was: do not try again; tell the "
                "caller that it is not possible, and offer that a person calls back",
            )
        self._of[tool.name] += 1

    def refused(self, tool: Tool) -> None:
        """What a tool was asked to do was refused: if it writes, nothing was written, and nothing is counted."""
        if tool.writes:
            self._of[tool.name] -= 1

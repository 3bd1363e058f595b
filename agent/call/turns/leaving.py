"""Leaving: why the call is about to end, and whether the caller lets it (MO-7). Pure.

A departure is begun in the step in which it is decided, and taken back by any speech start until the line is
closed: nobody is hung up on while speaking.
"""

from __future__ import annotations

import attrs

from agent.core.records import Outcome


@attrs.define(eq=False)
class Departure:
    """One intention to end the call."""

    outcome: Outcome
    reason: str
    final: bool = False
    """The model is gone for good: nobody is there who could answer."""
    taken_back: bool = False
    before: Departure | None = None
    """An earlier intention, not taken back: it goes with this one."""

    def take_back(self) -> None:
        """The caller has more to say."""
        self.taken_back = True
        if self.before is not None:
            self.before.take_back()

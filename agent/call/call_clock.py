"""How long a call has been silent and how long it lasts: idle prompts and the time limit. Pure."""

from __future__ import annotations

import enum

import attrs


class Due(enum.Enum):
    """What the clock asks for."""

    NOTHING = "nothing"
    PROMPT = "prompt"
    IDLE = "idle"
    TIME_LIMIT = "time_limit"


@attrs.define(eq=False)
class CallClock:
    """Counts silence from the *audible* end of speech, of either side."""

    answered_s: float
    idle_prompt_s: float
    idle_prompts: int
    max_call_s: float
    _quiet_since: float = attrs.field(init=False)
    _prompted: int = 0
    _ended: bool = False

    @_quiet_since.default
    def _from_the_answer(self) -> float:
        return self.answered_s

    def caller_spoke(self) -> None:
        """The caller is there: prompts are counted anew."""
        self._prompted = 0

    def look(self, now: float, *, idle: bool, audible_until: float) -> Due:
        """What is due at ``now``; ``idle``: nobody speaks and nothing is owed. Ends are given once."""
        if self._ended:
            return Due.NOTHING
        if now - self.answered_s >= self.max_call_s:
            self._ended = True
            return Due.TIME_LIMIT
        if not idle:
            self._quiet_since = now
            return Due.NOTHING
        quiet_s = now - max(self._quiet_since, min(audible_until, now))
        if not self.idle_prompt_s or quiet_s < self.idle_prompt_s:
            return Due.NOTHING
        if self._prompted >= self.idle_prompts:
            self._ended = True
            return Due.IDLE
        self._prompted += 1
        self._quiet_since = now
        return Due.PROMPT

"""How long a call has been silent and how long it lasts: idle prompts and the time limit. Pure."""

import enum
from typing import Final

import attrs


class Due(enum.Enum):
    """What the clock asks for."""

    NOTHING = "nothing"
    PROMPT = "prompt"
    IDLE = "idle"
    TIME_LIMIT = "time_limit"
    OVERDUE = "overdue"


PAST_LIMIT_S: Final = 30.0
"""How long a caller may go on past the time limit (MO-7)."""


@attrs.define(eq=False)
class CallClock:
    """Counts silence from the *audible* end of speech, of either side."""

    answered_s: float
    idle_prompt_s: float
    idle_prompts: int
    max_call_s: float
    _quiet_since: float = attrs.field(init=False)
    _prompted: int = 0

    @_quiet_since.default
    def _from_the_answer(self) -> float:
        return self.answered_s

    def caller_spoke(self) -> None:
        """The caller is there: prompts are counted anew."""
        self._prompted = 0

    def cut_short(self, now: float) -> bool:
        """The call has had enough: its time is up now. False if it was before."""
        left = now - self.answered_s < self.max_call_s
        if left:
            self.max_call_s = now - self.answered_s
        return left

    def look(self, now: float, *, idle: bool, audible_until: float) -> Due:
        """What is due at ``now``; ``idle``: nobody speaks and nothing is owed. Ends stay due."""
        over_s = now - self.answered_s - self.max_call_s
        if over_s >= 0:
            return Due.OVERDUE if over_s >= PAST_LIMIT_S else Due.TIME_LIMIT
        if not idle:
            self._quiet_since = now
            return Due.NOTHING
        quiet_s = now - max(self._quiet_since, min(audible_until, now))
        if not self.idle_prompt_s or quiet_s < self.idle_prompt_s:
            return Due.NOTHING
        if self._prompted >= self.idle_prompts:
            return Due.IDLE
        self._prompted += 1
        self._quiet_since = now
        return Due.PROMPT

"""The barge-in policy: what a speech start means for what the agent is saying. Pure; decides, does nothing.

Caller audio is never gated (BI-1): protection acts on the events of the voice activity detection, never on audio.
"""

import enum
from typing import Final

import attrs

PROTECT_CHECK_S: Final = 0.020
"""How often a protected speech start is looked at again while the greeting plays: once a frame."""


class BargeInDecision(enum.Enum):
    """What to do about a speech start."""

    INTERRUPT = "interrupt"
    """Cancel every generation that is not heard to its end."""
    PROTECT = "protect"
    """The first half second of the greeting plays on; decide again when it was heard (BI-5)."""
    NOTHING = "nothing"
    """Nobody is being interrupted."""


@attrs.define(eq=False)
class BargeInPolicy:
    """One caller's speech against the agent's. All times are monotonic seconds."""

    protect_ms: int
    speaking_since: float | None = None
    """When the model said that the caller began to speak; None while silent."""
    _protecting: bool = False

    def speech_started(self, now: float, *, speaking: bool, greeting_heard_ms: int | None) -> BargeInDecision:
        """The model hears the caller.

        ``speaking``: a generation is live, whether or not the model has finished generating it (BI-2).
        ``greeting_heard_ms``: heard of the greeting if it is what is live, else None.
        """
        self.speaking_since = now
        if not speaking:
            return BargeInDecision.NOTHING
        if greeting_heard_ms is not None and greeting_heard_ms < self.protect_ms:
            self._protecting = True
            return BargeInDecision.PROTECT
        return BargeInDecision.INTERRUPT

    def speech_stopped(self) -> None:
        """The caller is silent again: what was protected stays, a short noise is ignored."""
        self.speaking_since = None
        self._protecting = False

    def due_interruption(self, *, greeting_heard_ms: int | None, voiced: bool) -> BargeInDecision:
        """Decide on a protected start again; ask each PROTECT_CHECK_S while ``protecting``.

        ``voiced`` is our own ear: the model reports the end of speech only after its end-point silence, so a
        cough would else still count as speech when the protection is over.
        """
        if not self._protecting:
            return BargeInDecision.NOTHING
        if greeting_heard_ms is not None and (greeting_heard_ms < self.protect_ms or not voiced):
            return BargeInDecision.PROTECT  # a pause just then postpones: the next voiced frame interrupts
        self._protecting = False
        return BargeInDecision.NOTHING if greeting_heard_ms is None else BargeInDecision.INTERRUPT

    @property
    def protecting(self) -> bool:
        """Whether a speech start waits for the protection to end."""
        return self._protecting

    @property
    def caller_speaking(self) -> bool:
        """Whether the model hears the caller speak."""
        return self.speaking_since is not None

"""Post-call work as a plan: which step comes next, and when one that failed is tried again. Pure (PC-2).

Seven steps in a fixed order. A step is settled when it is done or dead; the next begins when all before it are. A
step that was given up does not stop the later ones: they make do with what there is, and the webhook, always the
last, says what is missing. One that waits, for the operator to name a model that is there, is not settled.
"""

from collections.abc import Mapping
from typing import Final, Literal

import attrs

State = Literal["pending", "running", "waiting", "done", "failed", "dead"]

STEPS: Final = ("recording", "transcription", "summary", "extraction", "lead", "status", "webhook")
SETTLED: Final = ("done", "dead")


@attrs.frozen
class RetryPolicy:
    """How often a step is tried, how long it may take, and how long it rests after a failure.

    The n-th rest is ``first_s`` times ``factor`` to the power of n - 1, at most ``longest_s``, and up to a fifth
    longer: calls that failed together do not come back together.
    """

    attempts: int
    limit_s: float
    first_s: float = 2.0
    factor: float = 3.0
    longest_s: float = 3600.0

    def rest_s(self, failures: int, jitter: float) -> float | None:
        """How long to rest after so many failures (1: the first), or None to give up; ``jitter`` is 0 to 1."""
        if failures >= self.attempts:
            return None
        return float(min(self.first_s * self.factor ** (failures - 1), self.longest_s) * (1 + jitter / 5))


RETRY_POLICIES: Final[Mapping[str, RetryPolicy]] = {
    # Two hours of two channels are 230 MB; Twilio's media are usually ready within seconds.
    "recording": RetryPolicy(attempts=8, limit_s=1800.0, first_s=5.0),
    # Whisper on one core takes a twentieth of the recording's length and more.
    "transcription": RetryPolicy(attempts=6, limit_s=3600.0, first_s=5.0),
    "summary": RetryPolicy(attempts=8, limit_s=120.0),
    "extraction": RetryPolicy(attempts=8, limit_s=120.0),
    "lead": RetryPolicy(attempts=10, limit_s=30.0),
    "status": RetryPolicy(attempts=10, limit_s=30.0),
    # 5 s, 15 s, 45 s, 2, 7, 20 minutes, then hours: 13 tries in 24 to 30 hours.
    "webhook": RetryPolicy(attempts=13, limit_s=60.0, first_s=5.0, longest_s=5 * 3600.0),
}
MOST_INTERRUPTIONS: Final = 25
"""A step whose process died so often while it ran is held to be what kills it."""
NOT_READY_S: Final = 15.0
"""When something that is not there yet is looked for again, at first."""
NOT_READY_LONGEST_S: Final = 600.0
NEVER_READY_S: Final = 6 * 3600.0
"""What was not there so long after the call will never be."""


def next_step(states: Mapping[str, State]) -> str | None:
    """The first step that is not settled; None when all are."""
    return next((step for step in STEPS if states.get(step, "pending") not in SETTLED), None)


def steps_from(step: str) -> tuple[str, ...]:
    """A step and those that come after it: all of them are done again when it is."""
    return STEPS[STEPS.index(step) :]


def look_again_s(since_end_s: float) -> float | None:
    """When to look again for what is not ready, so long after the call's end; None: give it up."""
    if since_end_s >= NEVER_READY_S:
        return None
    return min(max(NOT_READY_S, since_end_s / 4), NOT_READY_LONGEST_S)

"""Repair of the caller's audio: what the carrier lost is made silence (MO-6, DESIGN D14). Pure.

Over TCP audio is late, not lost, and silence put into a sentence ends it. So a hole is filled where it is
certain, at a jump of the carrier's own timestamps; and where nothing comes at all for so long that the turn would
never end: the model ends it by counting silence in the audio it was given.
"""

from typing import Final

import attrs

SILENT_AFTER_S: Final = 1.5
"""A carrier that sends nothing for so long is not waited for any more; stalls of a network are shorter."""
JUMP_MS: Final = 40
"""A jump of the timestamps over this is a hole; Twilio's own step is one frame."""
FILL_AT_MOST_MS: Final = 1000
"""Most silence made for one hole: what any end-pointing needs, and no more."""


@attrs.define(eq=False)
class GapFiller:
    """How much silence is owed to the model, or was given to it too early."""

    fill_ms: int = FILL_AT_MOST_MS
    """Silence that ends a turn for certain."""
    _expected_ms: int | None = None
    _last_s: float | None = None
    _ahead_ms: int = 0
    """Silence given since the last audio."""

    def media(self, timestamp_ms: int, length_ms: int, now: float) -> int:
        """Audio of ``length_ms`` came; returns the milliseconds of silence to put before it.

        Negative: audio that was given up came after all, so that from now on the model's clock is ahead of the
        caller's by so much more. The audio itself is always to be appended whole.
        """
        expected, self._expected_ms = self._expected_ms, timestamp_ms + length_ms
        self._last_s = now
        hole = 0 if expected is None else timestamp_ms - expected
        ahead = self._ahead_ms
        if hole <= JUMP_MS and not ahead:
            return 0
        self._ahead_ms = 0
        return min(hole if hole > JUMP_MS else 0, FILL_AT_MOST_MS + ahead) - ahead

    def silence_due(self, now: float) -> int:
        """The milliseconds of silence to send now. Ask when ``due_s`` is over and the caller is held to speak."""
        due_s = self.due_s
        if due_s is None or now < due_s:
            return 0
        self._ahead_ms = self.fill_ms
        return self.fill_ms

    @property
    def due_s(self) -> float | None:
        """When silence will be due if no audio comes; None: it never will, or was given already."""
        return None if self._last_s is None or self._ahead_ms else self._last_s + SILENT_AFTER_S

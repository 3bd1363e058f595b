"""Repair of the caller's audio: what the carrier did not send is made silence (DESIGN D14). Pure.

The model ends a turn by counting silence in the audio it was given. If the carrier loses frames or sends none
while the caller is quiet, that silence never comes and the turn would never end.
"""

from __future__ import annotations

from typing import Final

import attrs

LATE_AFTER_S: Final = 0.300
"""Audio this late counts as missing; ordinary jitter is far below."""
JUMP_MS: Final = 40
"""A jump of the timestamps over this is a hole; Twilio's own step is one frame."""
FILL_AT_MOST_MS: Final = 1000
"""Most silence made for one hole: what any end-pointing needs, and no more."""


@attrs.define(eq=False)
class GapFiller:
    """How much silence is owed to the model."""

    _expected_ms: int | None = None
    _last_s: float | None = None
    _ahead_ms: int = 0

    def media(self, timestamp_ms: int, length_ms: int, now: float) -> int:
        """Audio of ``length_ms`` came; returns the milliseconds of silence to put before it."""
        expected, self._expected_ms = self._expected_ms, timestamp_ms + length_ms
        self._last_s = now
        ahead, self._ahead_ms = self._ahead_ms, 0
        if expected is None:
            return 0
        hole = timestamp_ms - expected - ahead
        if hole <= JUMP_MS:
            return 0
        return min(hole, FILL_AT_MOST_MS)

    def silence_due(self, now: float) -> int:
        """No audio came: the milliseconds of silence to send now. Ask while the caller is held to be speaking."""
        if self._last_s is None or self._ahead_ms >= FILL_AT_MOST_MS:
            return 0
        missing = int((now - self._last_s) * 1000) - self._ahead_ms
        if now - self._last_s < LATE_AFTER_S or missing <= 0:
            return 0
        missing = min(missing, FILL_AT_MOST_MS - self._ahead_ms)
        self._ahead_ms += missing
        return missing

"""What the pacer measures of itself: frames a second, gaps, lateness, slow writes. Pure arithmetic, no logging.

A gap is the time between two frames of one talk spurt. While the model has not delivered there is nothing to
pace; that time is *starved* and counted apart, because its cause is not here.
"""

from collections.abc import Callable
from typing import Final

import attrs

from agent.core.units import FRAME_MS

STALL_S: Final = 0.300
"""A gap over this is a TX_STALL (TX-5)."""
SEND_SLOW_S: Final = 0.050
"""A write over this is a TX_SEND_SLOW (TX-5)."""
FRESH_GAP_S: Final = 0.120
"""A gap over this makes the next TX_METRICS worth a line (TX-8)."""

Report = Callable[[str, float], None]
"""Called with an event's name and seconds: TX_STALL, TX_SEND_SLOW, MODEL_STARVED. Must not block."""


@attrs.define(eq=False)
class PacerMetrics:
    """The figures of one call's pacer."""

    report: Report
    observe_lateness: Callable[[float], None]
    frames: int = 0
    max_gap_s: float = 0.0
    recent_gap_s: float = 0.0
    stalls: int = 0
    _played_ms: float = 0.0
    _held_ms: float = 0.0
    _speaking_s: float = 0.0
    _last: float | None = None
    _starved: bool = False

    def tick(self, late_s: float) -> None:
        """A tick ran ``late_s`` after its deadline."""
        self.observe_lateness(late_s)

    def frame(self, now: float, *, held_ms: float, dry_s: float = 0.0) -> None:
        """A frame was written while the carrier held ``held_ms``.

        ``dry_s``: for how long the carrier had nothing left to play in the middle of an answer.
        """
        self.frames += 1
        last, self._last = self._last, now
        held_before_ms, self._held_ms = self._held_ms, held_ms + FRAME_MS
        if last is None:
            if dry_s > 0 and self._starved:
                self.report("MODEL_STARVED", dry_s)
            self._starved = False
            return
        gap = now - last
        self._speaking_s += gap
        self._played_ms += held_before_ms - held_ms
        self.recent_gap_s = max(self.recent_gap_s, gap)
        self.max_gap_s = max(self.max_gap_s, gap)
        if gap > STALL_S:
            self.stalls += 1
            self.report("TX_STALL", gap)

    def pause(self, *, starved: bool) -> None:
        """Nothing more to send for now; ``starved``: in the middle of an answer."""
        self._starved = starved
        self._last = None

    def write_took(self, seconds: float) -> None:
        """A write to the socket took so long."""
        if seconds > SEND_SLOW_S:
            self.report("TX_SEND_SLOW", seconds)

    @property
    def fps(self) -> float | None:
        """Frames the carrier played per second while speaking; None before there is a second of it.

        Frames handed over, less what the carrier holds more than before: the lead is not counted as speed.
        """
        return self._played_ms / FRAME_MS / self._speaking_s if self._speaking_s >= 1.0 else None

    def take_recent_gap_s(self) -> float:
        """The largest gap since this was asked last."""
        gap, self.recent_gap_s = self.recent_gap_s, 0.0
        return gap

"""How regularly audio arrives: gaps and lateness, counted in half milliseconds. No I/O, no clock."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import inf
from typing import Final

import attrs

from agent.core.units import SAMPLE_RATE_HZ

_BUCKETS_PER_S: Final = 2000
_BUCKETS: Final = 1000
GAP_LIMIT_S: Final = 0.06
"""The longest gap a talk spurt may have (TX-3)."""


@attrs.define(eq=False)
class Histogram:
    """Durations from 0 to 500 ms in buckets of half a millisecond; longer ones share the last bucket."""

    counts: array[int] = attrs.field(factory=lambda: array("Q", bytes(8 * (_BUCKETS + 1))))
    max_s: float = 0.0

    def add(self, value_s: float) -> None:
        """Count one duration; a negative one counts as zero."""
        self.counts[min(max(int(value_s * _BUCKETS_PER_S), 0), _BUCKETS)] += 1
        self.max_s = max(self.max_s, value_s)

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def percentile_s(self, percent: float) -> float:
        """The upper border of the bucket that holds this percentile; 0.0 of an empty histogram."""
        wanted = self.total * percent / 100
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min((index + 1) / _BUCKETS_PER_S, self.max_s) if index < _BUCKETS else self.max_s
        return 0.0

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Histogram:
        """One histogram of all that was counted in ``parts``."""
        whole = cls()
        for part in parts:
            whole.counts = array("Q", map(int.__add__, whole.counts, part.counts))
            whole.max_s = max(whole.max_s, part.max_s)
        return whole


@attrs.define(eq=False, kw_only=True)
class Arrivals:
    """Statistics of the audio messages of one stream, over all talk spurts.

    A gap is the time between two messages of a talk spurt. Lateness compares each message with the steadiest
    schedule seen since playback last started from nothing, so a lead sent in advance is not counted as early.
    """

    spurt_gap_s: float = 0.3
    messages: int = 0
    bytes: int = 0
    gaps: Histogram = attrs.field(factory=Histogram)
    lateness: Histogram = attrs.field(factory=Histogram)
    long_gaps: int = 0
    """Gaps over GAP_LIMIT_S."""
    first_s: float | None = None
    last_s: float = -inf
    _run: int = -1
    _run_bytes: int = 0
    _earliest_s: float = inf

    def observe(self, now: float, length: int, run: int) -> None:
        """Count a message of ``length`` bytes that came at ``now``, in playback's run number ``run``."""
        gap_s = now - self.last_s
        if gap_s < self.spurt_gap_s:
            self.gaps.add(gap_s)
            self.long_gaps += gap_s > GAP_LIMIT_S
        if run != self._run:
            self._run, self._run_bytes, self._earliest_s = run, 0, inf
        origin_s = now - self._run_bytes / SAMPLE_RATE_HZ
        self._earliest_s = min(self._earliest_s, origin_s)
        self.lateness.add(origin_s - self._earliest_s)
        self._run_bytes += length
        self.messages += 1
        self.bytes += length
        if self.first_s is None:
            self.first_s = now
        self.last_s = now

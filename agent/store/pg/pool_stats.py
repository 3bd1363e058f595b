"""What a pool tells of itself."""

from __future__ import annotations

import attrs


@attrs.frozen
class PoolStats:
    """What a pool has and did. Counts are since it was opened."""

    in_use: int
    """Connections given out, being opened or being checked."""
    idle: int
    waiting: int
    """Callers that wait for a connection."""
    max_size: int
    given: int
    """Times a connection was given out."""
    opened: int
    discarded: int
    """Connections closed because they were broken, in doubt, or too old."""
    failed: int
    """Attempts to connect that failed."""
    waited_s: float
    """Sum of the times callers waited until they had a connection."""
    longest_wait_s: float


@attrs.define(eq=False)
class PoolCounts:
    """The counts of a pool; their meaning is that of :class:`PoolStats`."""

    given: int = 0
    opened: int = 0
    discarded: int = 0
    failed: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0

    def give(self, waited_s: float) -> None:
        """A caller has a connection, and waited so long for it."""
        self.given += 1
        self.waited_s += waited_s
        self.longest_wait_s = max(self.longest_wait_s, waited_s)

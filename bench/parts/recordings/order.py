"""What the processes of a run with recordings tell each other. Values only."""

from __future__ import annotations

import attrs

LOOP_MS = 10_400
"""Of what each caller says over and over: forty chunks."""
CHUNK_S = 0.26
"""Thirteen packets of 20 ms; a browser's are of 60 ms, which cost less."""


@attrs.frozen(kw_only=True)
class BrowserOrder:
    """``calls`` browsers phone ``url``, one each ``per_call_s``, and talk for ``seconds`` when all are there."""

    url: str
    result: str
    calls: int
    seconds: float
    per_call_s: float = 0.2

    @property
    def ramp_s(self) -> float:
        """Until all are there, and a moment."""
        return self.per_call_s * self.calls + 3.0


@attrs.frozen(kw_only=True)
class BrowserReport:
    """What the browsers saw."""

    frames: int
    """Of the agent's, in the window."""
    gap_ms: float
    """The longest between two of them, in one call."""
    closed: list[str]
    """Calls that did not last, with the reason."""
    late_ms: float
    """How late this process itself was, p99."""

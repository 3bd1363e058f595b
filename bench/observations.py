"""What the two simulators saw of a load run, as plain values that go from process to process as JSON.

All times are CLOCK_MONOTONIC of the one machine (``time.monotonic``), so that those of different processes can be
compared; trio's own clock has another zero in each process.
"""

from __future__ import annotations

from itertools import pairwise

import attrs


@attrs.define
class Spell:
    """The frames of one answer as they came to the carrier, in a row; a ``clear`` ends it."""

    number: int
    """The answer's, as its audio tells (0 to 11)."""
    begin_bytes: int
    """How much the carrier had received before."""
    arrivals_s: list[float] = attrs.field(factory=list)


@attrs.frozen
class Clear:
    """A ``clear`` arrived; ``heard_ms`` is what playback had played of the answer of the last spell."""

    t_s: float
    spell: int
    """Index of the last spell before it, -1 if there was none."""
    heard_ms: float


@attrs.define
class CarrierCall:
    """One call as the carrier saw it."""

    call: int
    started_s: float
    """When ``start`` was sent."""
    spells: list[Spell] = attrs.field(factory=list)
    clears: list[Clear] = attrs.field(factory=list)
    underruns_s: list[float] = attrs.field(factory=list)
    """When playback ran dry in the middle of a talk spurt."""
    protocol_errors: list[str] = attrs.field(factory=list)
    failure: str = ""
    """Why the call ended before its time; empty if it did not."""
    hung_up_s: float = 0.0
    """When the caller hung up."""

    def gaps_s(self, since_s: float = 0.0) -> list[float]:
        """The time between any two frames of a talk spurt in a row that ended after ``since_s``."""
        return [
            later_s - earlier_s
            for spell in self.spells
            for earlier_s, later_s in pairwise(spell.arrivals_s)
            if later_s >= since_s
        ]


@attrs.frozen
class CarrierReport:
    """The carrier's side of a run; the measured window is from ``begin_s`` to ``end_s``."""

    begin_s: float
    end_s: float
    calls: list[CarrierCall]
    worst_tick_s: float
    """How late the simulator itself was at worst: its own honesty about being overloaded."""
    cpu_share: float
    """Of one core, in the process's whole life."""


@attrs.frozen
class Window:
    """When to measure; the carrier's process says so as soon as it begins."""

    begin_s: float
    end_s: float


@attrs.frozen
class Truncation:
    """The model was told that only ``audio_end_ms`` of its answer ``number`` were heard."""

    t_s: float
    number: int
    audio_end_ms: int


@attrs.define
class ModelCall:
    """One call as the model saw it; ``call`` is -1 until its signature was heard."""

    call: int = -1
    speech_started_s: list[float] = attrs.field(factory=list)
    """When each ``speech_started`` was sent."""
    truncations: list[Truncation] = attrs.field(factory=list)
    cancels: int = 0
    errors: list[str] = attrs.field(factory=list)
    """The messages of the error events the model had to send."""


@attrs.frozen
class ModelReport:
    """The model's side of a run."""

    calls: list[ModelCall]
    cpu_share: float
    """Of one core, in the process's whole life."""

"""What the two sides saw of a load run, as plain values that go from process to process as MessagePack.

All times are CLOCK_MONOTONIC of the one machine (``time.monotonic``), so that those of different processes can be
compared.
"""

from __future__ import annotations

from itertools import pairwise

import attrs


@attrs.define
class Spell:
    """The audio of one answer as it came to the carrier, in a row; a ``clear`` ends it."""

    number: int
    """The answer's, as its audio tells (0 to 11)."""
    arrivals_s: list[float] = attrs.field(factory=list)
    """Of each message."""
    sizes: list[int] = attrs.field(factory=list)
    """Bytes of audio in each."""


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
    """When audio came after playback had run dry in the middle of an answer."""
    protocol_errors: list[str] = attrs.field(factory=list)
    failure: str = ""
    """Why the call ended before its time; empty if it did not."""
    hung_up_s: float = 0.0
    """When the caller hung up."""
    refused: bool = False
    """The caller was told, in TwiML, that no call is taken."""

    def gaps_s(self, since_s: float = 0.0) -> list[float]:
        """The time between any two messages of a spell in a row, of those that ended after ``since_s``."""
        return [
            later_s - earlier_s
            for spell in self.spells
            for earlier_s, later_s in pairwise(spell.arrivals_s)
            if later_s >= since_s
        ]


@attrs.frozen
class Window:
    """When to measure; the carrier's process says so as soon as it begins."""

    begin_s: float
    end_s: float


@attrs.frozen
class CarrierReport:
    """The carrier's side of a run; the measured window is from ``begin_s`` to ``end_s``."""

    begin_s: float
    end_s: float
    calls: list[CarrierCall]
    late_s: list[float] = attrs.field(factory=list)
    """How late each of its own ticks was: its honesty about being overloaded."""
    knockers: list[CarrierCall] = attrs.field(factory=list)
    """Those who phoned in mid-run."""


@attrs.define
class Response:
    """One answer as the model generated it."""

    number: int
    created_s: float
    deltas_s: list[float] = attrs.field(factory=list)
    sizes: list[int] = attrs.field(factory=list)
    cancelled: bool = False


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
    responses: list[Response] = attrs.field(factory=list)
    truncations: list[Truncation] = attrs.field(factory=list)
    errors: list[str] = attrs.field(factory=list)
    """The messages of the error events the model had to send."""


@attrs.frozen
class ModelReport:
    """The model's side of a run."""

    calls: list[ModelCall]
    late_s: list[float] = attrs.field(factory=list)
    """As the carrier's."""

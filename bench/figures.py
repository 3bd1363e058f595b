"""From what the simulators saw to the figures of a load run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs
import numpy as np

from agent.core.units import FRAME_MS, FRAME_S
from bench.observations import CarrierCall, CarrierReport, Clear, ModelCall, ModelReport, Spell

REACTION_S: Final = 1.0
"""A clear within this time after a speech_started is the answer to it."""
REPORTED_S: Final = 1.0
"""A truncate within this time after a clear is about what was cleared; the other processes' delays are in it."""
STALE_S: Final = 30.0
"""For so long after a clear, frames that carry a cancelled answer's number are that answer's: the numbers come
round again after twelve answers."""


@attrs.frozen(kw_only=True)
class LoadFigures:
    """What a load run measured. Empty lists: there was nothing to measure."""

    calls: int
    seconds: float
    failures: list[str]
    """Why calls failed, and what either side complained about."""
    underruns: int
    """In the whole run, as are gaps, stale frames and failures; the others are of the window."""
    max_gap_ms: float
    frames: int
    lateness_ms: list[float]
    silenced_ms: list[float]
    """From each speech_started to the last frame of the interrupted answer, 0 if it had left before."""
    cleared_ms: list[float]
    """From each speech_started to the clear that answers it."""
    uninterrupted: int
    """Times a caller spoke into an answer without a clear; not counting the run's last moments."""
    stale_frames: int
    truncate_errors_ms: list[float]
    """Told the model minus really heard, without sign."""
    first_audio_ms: list[float]
    """From the carrier's ``start`` to the first frame, the model's own delay included."""
    carrier_cpu: float
    """Share of a core the simulated carrier used in its whole life; likewise the model."""
    model_cpu: float
    worst_tick_ms: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed; NaN of none."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else float("nan")


def evaluate(carrier: CarrierReport, model: ModelReport, *, lead_ms: int) -> LoadFigures:
    """Put both sides together. Calls are matched by their signature."""
    begin_s, end_s = carrier.begin_s, carrier.end_s
    sessions = {seen.call: seen for seen in model.calls if seen.call >= 0}
    failures = [f"call {seen.call}: {seen.failure}" for seen in carrier.calls if seen.failure]
    failures += [f"call {seen.call}: {error}" for seen in carrier.calls for error in seen.protocol_errors]
    failures += [f"call {seen.call}: {error}" for seen in model.calls for error in seen.errors]
    failures += [
        f"call {seen.call}: the model never heard it" for seen in carrier.calls if seen.call not in sessions
    ]
    reactions = [
        reaction
        for seen in carrier.calls
        if seen.call in sessions
        for reaction in _reactions(seen, sessions[seen.call])
        if begin_s <= reaction.speech_s < end_s
    ]
    answered = [reaction for reaction in reactions if reaction.clear is not None]
    spells = [spell for seen in carrier.calls for spell in seen.spells]
    measured = [spell for spell in spells if begin_s <= spell.arrivals_s[0] < end_s]
    gaps_s = [float(np.diff(spell.arrivals_s).max()) for spell in spells if len(spell.arrivals_s) > 1]
    return LoadFigures(
        calls=len(carrier.calls),
        seconds=end_s - begin_s,
        failures=failures,
        underruns=sum(len(seen.underruns_s) for seen in carrier.calls),
        max_gap_ms=max(gaps_s, default=float("nan")) * 1000,
        frames=sum(len(spell.arrivals_s) for spell in measured),
        lateness_ms=[late_ms for spell in measured for late_ms in lateness_ms(spell, lead_ms)],
        silenced_ms=[reaction.silenced_ms for reaction in answered],
        cleared_ms=[reaction.cleared_ms for reaction in answered],
        uninterrupted=sum(
            reaction.clear is None and reaction.speech_s + REACTION_S < end_s for reaction in reactions
        ),
        stale_frames=sum(_stale_frames(seen, sessions.get(seen.call)) for seen in carrier.calls),
        truncate_errors_ms=[
            error_ms
            for seen in carrier.calls
            if seen.call in sessions
            for error_ms in _truncate_errors_ms(seen, sessions[seen.call], begin_s, end_s)
        ],
        first_audio_ms=[
            (seen.spells[0].arrivals_s[0] - seen.started_s) * 1000 for seen in carrier.calls if seen.spells
        ],
        carrier_cpu=carrier.cpu_share,
        model_cpu=model.cpu_share,
        worst_tick_ms=carrier.worst_tick_s * 1000,
    )


def lateness_ms(spell: Spell, lead_ms: int) -> list[float]:
    """How late each frame came, against the ideal 20 ms schedule of its spell.

    The schedule is that of the frame that came soonest by its number; the lead, sent ahead of all schedules, is
    left out.
    """
    steady = np.array(spell.arrivals_s[lead_ms // FRAME_MS :])
    if not steady.size:
        return []
    origins = steady - np.arange(steady.size) * FRAME_S
    late: list[float] = ((origins - origins.min()) * 1000).tolist()
    return late


@attrs.frozen
class _Reaction:
    """A speech_started of the model, and what it led to."""

    speech_s: float
    last_frame_s: float
    clear: Clear | None

    @property
    def silenced_ms(self) -> float:
        return max(self.last_frame_s - self.speech_s, 0.0) * 1000

    @property
    def cleared_ms(self) -> float:
        return (self.clear.t_s - self.speech_s) * 1000 if self.clear else float("nan")


def _reactions(seen: CarrierCall, session: ModelCall) -> Iterator[_Reaction]:
    """Each time the caller spoke while an answer was coming in."""
    for speech_s in session.speech_started_s:
        clear = next((clear for clear in seen.clears if 0 <= clear.t_s - speech_s < REACTION_S), None)
        if clear is not None and clear.spell >= 0:
            yield _Reaction(speech_s, seen.spells[clear.spell].arrivals_s[-1], clear)
        elif any(spell.arrivals_s[0] < speech_s < spell.arrivals_s[-1] for spell in seen.spells):
            yield _Reaction(speech_s, speech_s, None)


def _told(seen: CarrierCall, session: ModelCall) -> Iterator[tuple[Clear, int, int]]:
    """Each truncation: the clear it belongs to, the answer's number, the milliseconds told."""
    for told in session.truncations:
        clears = [clear for clear in seen.clears if 0 <= told.t_s - clear.t_s + 0.05 < REPORTED_S]
        if clears:
            yield clears[-1], told.number % 12, told.audio_end_ms


def _truncate_errors_ms(seen: CarrierCall, session: ModelCall, begin_s: float, end_s: float) -> Iterator[float]:
    for clear, number, audio_end_ms in _told(seen, session):
        if begin_s <= clear.t_s < end_s:
            heard = clear.spell >= 0 and seen.spells[clear.spell].number == number
            yield abs(audio_end_ms - (clear.heard_ms if heard else 0.0))


def _stale_frames(seen: CarrierCall, session: ModelCall | None) -> int:
    """Frames that came after the clear of their answer: of the one cut, and of those told to be unheard."""
    cut = [(clear, seen.spells[clear.spell].number) for clear in seen.clears if clear.spell >= 0]
    if session is not None:
        cut += [(clear, number) for clear, number, _ in _told(seen, session)]
    stale: set[int] = set()
    for clear, number in cut:
        for index in range(clear.spell + 1, len(seen.spells)):
            spell = seen.spells[index]
            if spell.number == number and spell.arrivals_s[0] - clear.t_s < STALE_S:
                stale.add(index)
    return sum(len(seen.spells[index].arrivals_s) for index in stale)

"""From what the two sides saw to the figures of a load run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, inf, isnan
from typing import Final

import attrs
import numpy as np

from agent.core.units import FRAME_BYTES, FRAME_MS, FRAME_S
from bench.generator.observations import (
    CarrierCall,
    CarrierReport,
    Clear,
    ModelCall,
    ModelReport,
    Response,
    Spell,
)

REACTION_S: Final = 1.0
"""A clear within this time after a speech_started is the answer to it."""
REPORTED_S: Final = 1.0
"""A truncate within this time after a clear is about what was cleared; the other processes' delays are in it."""
STALE_S: Final = 20.0
"""For so long after a clear, audio that carries a cancelled answer's number is that answer's: the numbers come
round again after twelve answers."""
HEARD_S: Final = 0.5
"""An answer of which nothing was heard so long after its first delta is missing."""
NORMAL_MS: Final = 10.0
WINDOW_S: Final = 0.2
MAX_GAP_MS: Final = 60.0
LATE_TICK_MS: Final = 3.0


@attrs.frozen(kw_only=True)
class LoadFigures:
    """What a load run measured. NaN: there was nothing to measure. Times in milliseconds."""

    call_seconds: float
    """In the window, of calls that were there."""
    problems: tuple[str, ...]
    """Why calls failed, and what either side complained about."""
    lost: int
    """Calls that ended before their caller hung up."""
    due: int
    """Frames that were due by the 20 ms schedule of each answer, in the whole run."""
    delivered: int
    """How many of these had come by their answer's end."""
    underruns: int
    """In the whole run, as are gaps and stale frames; the others are of the window."""
    max_gap_ms: float
    late_ms: tuple[float, float, float]
    """p50, p99, p99.9 of the lateness of frames, of one who paces against the ideal schedule, see
    ``lateness_ms``; else of each message against the delta that it carries."""
    first_audio_ms: tuple[float, float]
    """From the first delta of an answer to its first audio at the carrier, p50 and p99."""
    silenced_ms: tuple[float, float]
    """From speech_started to the last audio of the interrupted answer, 0 if it had left before, p50 and p99."""
    cleared_ms: tuple[float, float]
    """From speech_started to the clear that answers it, p50 and p99."""
    interruptions: int
    uninterrupted: int
    """Times a caller spoke into an answer without a clear; not counting the run's last moments."""
    stale: int
    """Messages with audio of an answer behind its clear."""
    truncate_ms: tuple[float, float]
    """Told the model minus really heard, without sign, p50 and p99."""
    late_tick_ms: float
    """p99 of how late the load's own ticks were, the later of its two sides."""
    let_in: int = 0
    """Of those who knocked in mid-run; their calls are in all figures."""
    refused: int = 0
    """Of these: told that no call is taken."""
    recovery_s: float = 0.0
    """After a stop: how long until lateness was back to normal for good; infinite: never."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed; NaN of none."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if len(values) else float("nan")


def evaluate(
    carrier: CarrierReport, model: ModelReport, *, lead_ms: int | None, stopped_until_s: float | None = None
) -> LoadFigures:
    """Put both sides together, call by call. ``lead_ms`` is None of one who does not pace."""
    let_in = [seen for seen in carrier.knockers if not seen.refused]
    refused = len(carrier.knockers) - len(let_in)
    carrier = attrs.evolve(carrier, calls=[*carrier.calls, *let_in])
    begin_s, end_s = carrier.begin_s, carrier.end_s
    sessions = {seen.call: seen for seen in model.calls if seen.call >= 0}
    both = [(seen, sessions[seen.call]) for seen in carrier.calls if seen.call in sessions]
    reactions = [
        reaction
        for seen, session in both
        for reaction in _reactions(seen, session)
        if reaction.is_in(begin_s, end_s)
    ]
    answered = [reaction for reaction in reactions if reaction.clear is not None]
    late = [late for seen, session in both for late in _late(seen, session, lead_ms)]
    frames = [_frames(seen, session) for seen, session in both]
    first_ms = [ms for seen, session in both for ms in _first_audio_ms(seen, session, begin_s)]
    told_ms = [ms for seen, session in both for ms in _truncate_errors_ms(seen, session, begin_s, end_s)]
    return LoadFigures(
        call_seconds=sum(
            max(min(seen.hung_up_s, end_s) - max(seen.started_s, begin_s), 0.0)
            for seen in carrier.calls
            if seen.started_s
        ),
        problems=tuple(_problems(carrier, model)),
        lost=sum(bool(seen.failure) for seen in carrier.calls),
        due=sum(due for due, _ in frames),
        delivered=sum(delivered for _, delivered in frames),
        underruns=sum(len(seen.underruns_s) for seen in carrier.calls),
        max_gap_ms=max((gap_s for seen in carrier.calls for gap_s in seen.gaps_s()), default=float("nan")) * 1000,
        late_ms=_spread3([ms for at_s, ms in late if begin_s <= at_s < end_s]),
        first_audio_ms=_spread(first_ms),
        silenced_ms=_spread([reaction.silenced_ms for reaction in answered]),
        cleared_ms=_spread([reaction.cleared_ms for reaction in answered]),
        interruptions=len(answered),
        uninterrupted=sum(
            reaction.clear is None and reaction.speech_s + REACTION_S < end_s for reaction in reactions
        ),
        stale=sum(_stale(seen, session) for seen, session in both),
        truncate_ms=_spread(told_ms),
        late_tick_ms=max(percentile(side.late_s, 99) * 1000 for side in (carrier, model)),
        let_in=len(let_in),
        refused=refused,
        recovery_s=0.0 if stopped_until_s is None else recovery_s(late, stopped_until_s, end_s),
    )


def _problems(carrier: CarrierReport, model: ModelReport) -> Iterator[str]:
    known = {seen.call for seen in model.calls}
    for seen in carrier.calls:
        if seen.failure:
            yield f"call {seen.call}: {seen.failure}"
        if seen.call not in known:
            yield f"call {seen.call}: the model never heard it"
        yield from (f"call {seen.call}: {error}" for error in seen.protocol_errors)
    for session in model.calls:
        yield from (f"call {session.call}: {error}" for error in session.errors)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return percentile(values, 50), percentile(values, 99)


def _spread3(values: Sequence[float]) -> tuple[float, float, float]:
    return (*_spread(values), percentile(values, 99.9))


# Lateness


def lateness_ms(arrivals_s: Sequence[float], lead_ms: int) -> list[float]:
    """How late each frame of a talk spurt came, against the ideal 20 ms schedule of the spurt.

    The schedule is that of the frame that came soonest by its number; the lead, sent ahead of all schedules, is
    left out.
    """
    steady = np.array(arrivals_s[lead_ms // FRAME_MS :])
    if not steady.size:
        return []
    origins = steady - np.arange(steady.size) * FRAME_S
    late: list[float] = ((origins - origins.min()) * 1000).tolist()
    return late


def _late(seen: CarrierCall, session: ModelCall, lead_ms: int | None) -> Iterator[tuple[float, float]]:
    """When each message came, and how late it was; playback that ran dry begins a new schedule."""
    dry_s = set(seen.underruns_s)
    for spell in seen.spells:
        if lead_ms is None:
            yield from _late_deltas(spell, _response_of(spell, session))
            continue
        starts = [0, *(index for index, at_s in enumerate(spell.arrivals_s) if at_s in dry_s)]
        for start, end in zip(starts, [*starts[1:], len(spell.arrivals_s)], strict=True):
            arrivals_s = spell.arrivals_s[start:end]
            late = lateness_ms(arrivals_s, lead_ms)
            yield from zip(arrivals_s[len(arrivals_s) - len(late) :], late, strict=True)
        # An answer that waits for longer than its lead is late by that, whatever its new schedule says.
        yield from ((at_s, _dry_ms(spell, at_s)) for at_s in spell.arrivals_s if at_s in dry_s)


def _dry_ms(spell: Spell, at_s: float) -> float:
    index = spell.arrivals_s.index(at_s)
    return (at_s - spell.arrivals_s[index - 1]) * 1000


def _late_deltas(spell: Spell, response: Response | None) -> Iterator[tuple[float, float]]:
    if response is not None:
        for at_s, delta_s in zip(spell.arrivals_s, response.deltas_s, strict=False):
            yield at_s, (at_s - delta_s) * 1000


def recovery_s(late: Sequence[tuple[float, float]], stopped_until_s: float, end_s: float) -> float:
    """From a stop's end until the p99 of each WINDOW_S stays under NORMAL_MS; infinite if it never does."""
    windows: dict[int, list[float]] = {}
    for at_s, ms in late:
        if stopped_until_s <= at_s < end_s:
            windows.setdefault(int((at_s - stopped_until_s) / WINDOW_S), []).append(ms)
    bad = [window for window, values in windows.items() if percentile(values, 99) >= NORMAL_MS]
    worst = max(bad, default=-1)
    return inf if worst >= max(windows, default=-1) else (worst + 1) * WINDOW_S


# Frames due and delivered


def _response_of(spell: Spell, session: ModelCall) -> Response | None:
    """The answer that a spell is of: the last with its number that had begun."""
    fitting = [
        response
        for response in session.responses
        if response.number == spell.number and response.deltas_s and response.deltas_s[0] <= spell.arrivals_s[0]
    ]
    return fitting[-1] if fitting else None


def _frames(seen: CarrierCall, session: ModelCall) -> tuple[int, int]:
    """Frames due by the schedule of each answer until its end, and how many of them had come."""
    due = delivered = 0
    ends_s = {clear.spell: clear.t_s for clear in reversed(seen.clears)}
    heard = set()
    for index, spell in enumerate(seen.spells):
        response = _response_of(spell, session)
        if response is None:
            continue
        heard.add(id(response))
        elapsed_s = max(ends_s.get(index, seen.hung_up_s) - spell.arrivals_s[0], 0.0)
        frames = min(ceil(sum(response.sizes) / FRAME_BYTES), int(elapsed_s / FRAME_S) + 1)
        due += frames
        delivered += min(ceil(sum(spell.sizes) / FRAME_BYTES), frames)
    for response in session.responses:
        if response.deltas_s and id(response) not in heard:
            begin_s = response.deltas_s[0]
            end_s = min([at_s for at_s in session.speech_started_s if at_s > begin_s] + [seen.hung_up_s])
            if end_s - begin_s > HEARD_S:
                due += min(ceil(sum(response.sizes) / FRAME_BYTES), int((end_s - begin_s) / FRAME_S))
    return due, delivered


def _first_audio_ms(seen: CarrierCall, session: ModelCall, begin_s: float) -> Iterator[float]:
    for spell in seen.spells:
        response = _response_of(spell, session)
        if response is not None and response.deltas_s[0] >= begin_s:
            yield (spell.arrivals_s[0] - response.deltas_s[0]) * 1000


# Interruptions


@attrs.frozen
class _Reaction:
    """A speech_started of the model, and what it led to."""

    speech_s: float
    last_audio_s: float
    clear: Clear | None

    def is_in(self, begin_s: float, end_s: float) -> bool:
        return begin_s <= self.speech_s < end_s

    @property
    def silenced_ms(self) -> float:
        return max(self.last_audio_s - self.speech_s, 0.0) * 1000

    @property
    def cleared_ms(self) -> float:
        return (self.clear.t_s - self.speech_s) * 1000 if self.clear else float("nan")


def _reactions(seen: CarrierCall, session: ModelCall) -> Iterator[_Reaction]:
    """Each time the caller spoke while an answer was playing."""
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
            yield clears[-1], told.number, told.audio_end_ms


def _truncate_errors_ms(seen: CarrierCall, session: ModelCall, begin_s: float, end_s: float) -> Iterator[float]:
    for clear, number, audio_end_ms in _told(seen, session):
        if begin_s <= clear.t_s < end_s:
            heard = clear.spell >= 0 and seen.spells[clear.spell].number == number
            yield abs(audio_end_ms - (clear.heard_ms if heard else 0.0))


def _stale(seen: CarrierCall, session: ModelCall) -> int:
    """Messages that came after the clear of their answer: of the one cut, and of those told to be unheard."""
    cut = [(clear, seen.spells[clear.spell].number) for clear in seen.clears if clear.spell >= 0]
    cut += [(clear, number) for clear, number, _ in _told(seen, session)]
    stale = {
        index
        for clear, number in cut
        for index in range(clear.spell + 1, len(seen.spells))
        if seen.spells[index].number == number and seen.spells[index].arrivals_s[0] - clear.t_s < STALE_S
    }
    return sum(len(seen.spells[index].arrivals_s) for index in stale)


def faults(seen: LoadFigures, *, paced: bool, stopped: bool = False) -> list[str]:
    """Why a run did not pass; none: it did. One who does not pace passes when no playback runs dry.

    A run in which the server was stopped passes when no call is lost and lateness is back to normal.
    """
    found = [f"{seen.lost} calls lost"] * bool(seen.lost)
    if paced and seen.problems:
        found.append(f"{len(seen.problems)} problems, the first: {seen.problems[0]}")
    if stopped:
        return found + ["lateness did not come back to normal"] * (seen.recovery_s == inf)
    found += [f"{seen.underruns} underruns"] * bool(seen.underruns)
    found += [f"{seen.delivered} of {seen.due} frames"] * (seen.delivered < seen.due)
    found += ["nothing was heard"] * (not seen.due)
    if paced:
        found += [f"a gap of {seen.max_gap_ms:.1f} ms"] * (not seen.max_gap_ms < MAX_GAP_MS)
        late_ms = seen.late_ms[2]
        found += [f"lateness p99.9 {late_ms:.1f} ms"] * (isnan(late_ms) or late_ms >= NORMAL_MS)
        found += [f"{seen.stale} stale messages"] * bool(seen.stale)
    return found

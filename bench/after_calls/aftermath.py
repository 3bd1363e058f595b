"""What became of calls after they ended, and the figures made of it. Pure values and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from agent.core.steps import STEPS
from agent.core.units import CallSid
from agent.pipeline.webhook.call_completed import event_id
from bench.generator.observations import CarrierReport

_FEW: Final = 3


@attrs.frozen(kw_only=True)
class Aftermath:
    """What the database has of one call."""

    call_sid: str
    outcome: str | None
    steps: dict[str, str]
    """The state of each."""
    finished_at_s: float | None
    """When the webhook's step was done, Unix time."""
    leads: int
    """Of its caller."""
    appointments: int
    delivered: int
    """Deliveries that the ledger says were taken."""
    turns: int
    has_record: bool


@attrs.frozen
class Received:
    """What the tenant's server has got: how often each idempotency key was taken, and what was wrong."""

    keys: dict[str, int]
    changed: dict[str, int]
    """Keys that came again with another body."""
    unsigned: int
    requests: int


@attrs.frozen(kw_only=True)
class Ledger:
    """All of it."""

    calls: tuple[Aftermath, ...]
    leads: int
    appointments: int
    received: Received


@attrs.frozen
class Verdict:
    """What is missing of what had to happen, and what happened more often than it had to; in words."""

    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    redelivered: int
    """Webhooks that came more than once, under their one key: at least once is what is promised."""


def judge(expected: Mapping[str, int], ledger: Ledger) -> Verdict:
    """Whether every call of ``expected`` (with the appointments made in it) was completed, and all of it once."""
    found = {call.call_sid: call for call in ledger.calls}
    keys = {event_id(CallSid(call_sid)) for call_sid in expected}
    lost: list[str] = []
    twice: list[str] = []
    for call_sid, appointments in expected.items():
        call = found.get(call_sid)
        if call is None:
            lost.append(f"{call_sid} is not in the database")
            continue
        open_steps = [step for step in STEPS if call.steps.get(step) != "done"]
        if open_steps:
            lost.append(f"{call_sid}: {', '.join(open_steps)} not done")
        for what, count, must in (
            ("leads", call.leads, 1),
            ("appointments", call.appointments, appointments),
            ("deliveries in the ledger", call.delivered, 1),
        ):
            if count != must:
                (lost if count < must else twice).append(f"{call_sid}: {count} {what} instead of {must}")
        if not ledger.received.keys.get(event_id(CallSid(call_sid))):
            lost.append(f"{call_sid}: no webhook came")
    twice += [
        f"{sid} was not to be worked on" for sid, call in found.items() if call.steps and sid not in expected
    ]
    twice += [f"a webhook came under {key}" for key in ledger.received.keys if key not in keys]
    twice += [f"{key} came with another body" for key in ledger.received.changed]
    booked = sum(expected.values())
    if ledger.leads > len(expected):
        twice.append(f"{ledger.leads} leads of {len(expected)} callers")
    if ledger.appointments > booked:
        twice.append(f"{ledger.appointments} appointments of {booked}")
    return Verdict(tuple(lost), tuple(twice), sum(times > 1 for times in ledger.received.keys.values()))


@attrs.frozen(kw_only=True)
class BurstFigures:
    """Calls that ended together, and those that went on."""

    calls: int
    others: int
    problems: tuple[str, ...]
    """What was not completed, or came twice; and what went wrong in the calls."""
    completed_s: float
    """From the hang-up to the last webhook taken; infinite: not all were."""
    half_s: float
    """Likewise, of the faster half."""
    max_gap_ms: float
    """Of the others' audio, from the hang-up on; NaN: there was none."""
    asked: int
    """Requests to the model API."""


def burst_figures(
    carrier: CarrierReport, ledger: Ledger, expected: Mapping[str, int], *, monotonic_to_unix_s: float, asked: int
) -> BurstFigures:
    """Of ``carrier`` the first calls left at ``begin_s``: as many as are ``expected`` in the ledger."""
    verdict = judge(expected, ledger)
    leaving, others = carrier.calls[: len(expected)], carrier.calls[len(expected) :]
    hung_up_s = min((call.hung_up_s for call in leaving), default=carrier.begin_s)
    failures = [f"call {call.call}: {call.failure}" for call in carrier.calls if call.failure]
    failures += [f"call {call.call}: {error}" for call in carrier.calls for error in call.protocol_errors]
    finished = {call.call_sid: call.finished_at_s for call in ledger.calls}
    times_s = sorted(
        float("inf") if (at_s := finished.get(call_sid)) is None else at_s - monotonic_to_unix_s - hung_up_s
        for call_sid in expected
    )
    return BurstFigures(
        calls=len(leaving),
        others=len(others),
        problems=(*verdict.lost, *verdict.duplicated, *failures),
        completed_s=times_s[-1] if times_s else float("nan"),
        half_s=times_s[len(times_s) // 2] if times_s else float("nan"),
        max_gap_ms=max((gap_s for call in others for gap_s in call.gaps_s(hung_up_s)), default=float("nan"))
        * 1000,
        asked=asked,
    )


@attrs.frozen(kw_only=True)
class KillFigures:
    """Workers that were killed, and what became of the calls."""

    calls: int
    kills: int
    in_a_step: int
    """Kills that hit a step under way."""
    verdict: Verdict
    seed: int
    seconds: float


@attrs.frozen(kw_only=True)
class RestartFigures:
    """Calls during which the database was restarted."""

    calls: int
    restarts: int
    away_s: float
    """How long it was not there, altogether."""
    harmed: tuple[str, ...]
    lost: tuple[str, ...]
    max_gap_ms: float
    turns: int


def restart_figures(
    carrier: CarrierReport,
    ledger: Ledger,
    turns_of: Mapping[str, int],
    errors: Sequence[str],
    *,
    restarts: int,
    away_s: float,
) -> RestartFigures:
    """``turns_of``: how many turns each call's durable record has; ``errors``: what the agent logged."""
    harmed = [f"call {call.call}: {call.failure}" for call in carrier.calls if call.failure]
    harmed += [f"call {call.call}: {error}" for call in carrier.calls for error in call.protocol_errors]
    harmed += [f"call {call.call} heard nothing" for call in carrier.calls if not call.spells]
    harmed += [f"the agent logged {text}" for text in errors]
    harmed += [
        f"{call.call_sid} ended as {call.outcome}" for call in ledger.calls if call.outcome != "caller_hung_up"
    ]
    found = {call.call_sid: call for call in ledger.calls}
    lost = [f"{len(carrier.calls) - len(turns_of)} records were not kept"] * (len(turns_of) < len(carrier.calls))
    for call_sid, turns in turns_of.items():
        call = found.get(call_sid)
        if call is None or not call.has_record:
            lost.append(f"{call_sid}: no record in the database")
        elif call.turns != turns:
            lost.append(f"{call_sid}: {call.turns} of {turns} turns")
    return RestartFigures(
        calls=len(carrier.calls),
        restarts=restarts,
        away_s=away_s,
        harmed=tuple(harmed),
        lost=tuple(lost),
        max_gap_ms=max((gap_s for call in carrier.calls for gap_s in call.gaps_s()), default=float("nan")) * 1000,
        turns=sum(call.turns for call in ledger.calls),
    )


def few(texts: Sequence[str]) -> str:
    """How many, and the first of them."""
    shown = "; ".join(texts[:_FEW])
    return f"{len(texts)}: {shown}" if texts else "0"

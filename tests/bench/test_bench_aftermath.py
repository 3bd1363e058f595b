"""From what the database and the callers saw to figures of what is done after calls, on values made by hand."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import attrs
import pytest

from agent.core.steps import STEPS
from bench.after_calls.aftermath import (
    Aftermath,
    KillFigures,
    Ledger,
    Received,
    Verdict,
    burst_figures,
    few,
    judge,
    restart_figures,
)
from bench.after_calls.rows import burst_rows, keeping_row, kills_row, queries_row, restart_rows
from bench.generator.observations import CarrierCall, CarrierReport, Spell
from bench.generator.plan import LoadPlan, call_sid
from bench.parts.keeping import KeepingFigures
from bench.parts.pg_queries import QueryFigures

UNIX_S = 1_000_000.0
"""What Unix time is ahead of the monotonic clock here."""


def made(call: int, **changes: Any) -> Aftermath:
    """A call of which everything was done."""
    whole = Aftermath(
        call_sid=call_sid(call),
        outcome="caller_hung_up",
        steps=dict.fromkeys(STEPS, "done"),
        finished_at_s=UNIX_S + 105.0 + call,
        leads=1,
        appointments=0,
        delivered=1,
        turns=4,
        has_record=True,
    )
    return attrs.evolve(whole, **changes)


def key(call: int) -> str:
    return f"call.completed-{call_sid(call)}"


def ledger(*calls: Aftermath, **changes: Any) -> Ledger:
    """A ledger of these calls, each with its lead and its webhook."""
    received = Received({f"call.completed-{call.call_sid}": 1 for call in calls}, {}, 0, len(calls))
    whole = Ledger(
        calls=calls, leads=len(calls), appointments=sum(call.appointments for call in calls), received=received
    )
    return attrs.evolve(whole, **changes)


def expected(calls: int) -> dict[str, int]:
    return {call_sid(call): 0 for call in range(calls)}


def lost(found: Ledger) -> tuple[str, ...]:
    verdict = judge(expected(1), found)
    assert verdict.duplicated == ()
    return verdict.lost


def duplicated(found: Ledger) -> tuple[str, ...]:
    verdict = judge(expected(1), found)
    assert verdict.lost == ()
    return verdict.duplicated


def test_all_done_once_is_nothing_lost_and_nothing_twice() -> None:
    found = ledger(made(0, appointments=2), made(1))
    assert judge({call_sid(0): 2, call_sid(1): 0}, found) == Verdict((), (), 0)


def test_what_is_missing_is_lost() -> None:
    """A call, a step, a lead, an appointment, a webhook: each one is named."""
    sid = call_sid(0)
    assert lost(ledger(received=Received({}, {}, 0, 0))) == (f"{sid} is not in the database",)
    steps = {**dict.fromkeys(STEPS, "done"), "lead": "dead", "status": "pending"}
    assert lost(ledger(made(0, steps=steps))) == (f"{sid}: lead, status not done",)
    assert lost(ledger(made(0, leads=0))) == (f"{sid}: 0 leads instead of 1",)
    assert lost(ledger(made(0, delivered=0))) == (f"{sid}: 0 deliveries in the ledger instead of 1",)
    assert lost(ledger(made(0), received=Received({}, {}, 0, 0))) == (f"{sid}: no webhook came",)
    assert judge({sid: 1}, ledger(made(0))).lost == (f"{sid}: 0 appointments instead of 1",)


def test_what_happened_twice_is_duplicated() -> None:
    sid = call_sid(0)
    assert duplicated(ledger(made(0, leads=2))) == (f"{sid}: 2 leads instead of 1",)
    assert duplicated(ledger(made(0, delivered=2))) == (f"{sid}: 2 deliveries in the ledger instead of 1",)
    assert duplicated(ledger(made(0), leads=2)) == ("2 leads of 1 callers",)
    assert duplicated(ledger(made(0), appointments=1)) == ("1 appointments of 0",)
    strange = Received({key(0): 1, "another": 1}, {}, 0, 2)
    assert duplicated(ledger(made(0), received=strange)) == ("a webhook came under another",)
    changed = Received({key(0): 2}, {key(0): 1}, 0, 2)
    assert duplicated(ledger(made(0), received=changed)) == (f"{key(0)} came with another body",)
    assert judge({}, ledger(made(0), leads=0, received=Received({}, {}, 0, 0))).duplicated == (
        f"{sid} was not to be worked on",
    )


def test_a_webhook_may_come_again_under_its_key() -> None:
    again = Received({key(0): 3}, {}, 0, 3)
    assert judge(expected(1), ledger(made(0), received=again)) == Verdict((), (), 1)


def caller(call: int, hung_up_s: float, *arrivals_s: float, failure: str = "") -> CarrierCall:
    """A caller who heard one talk spurt."""
    return CarrierCall(
        call, 90.0, [Spell(1, list(arrivals_s), [160] * len(arrivals_s))], hung_up_s=hung_up_s, failure=failure
    )


def report(*calls: CarrierCall) -> CarrierReport:
    return CarrierReport(100.0, 130.0, list(calls))


def test_a_burst_is_measured_from_the_first_hang_up_to_the_last_webhook() -> None:
    """Two hang up at 100 s and 100.9 s, done at 105 s and 106 s; of the third, only what it heard then counts."""
    others = caller(2, 130.0, 98.0, 98.5, 99.99, 100.02, 100.05)
    calls = report(caller(0, 100.0, 99.0, 99.02), caller(1, 100.9, 99.0, 99.5), others)
    third = made(2, steps={}, finished_at_s=None, has_record=False, leads=0)
    found = ledger(made(0), made(1), third, leads=2, received=Received({key(0): 1, key(1): 1}, {}, 0, 2))
    seen = burst_figures(calls, found, expected(2), monotonic_to_unix_s=UNIX_S, asked=8)
    assert (seen.calls, seen.others, seen.problems, seen.asked) == (2, 1, (), 8)
    assert seen.completed_s == pytest.approx(6.0)
    assert seen.half_s == pytest.approx(6.0)
    assert seen.max_gap_ms == pytest.approx(30.0)
    assert [row.ok for row in burst_rows(seen)] == [True, True]


def test_a_burst_that_is_not_completed_is_missed() -> None:
    calls = report(caller(0, 100.0, 99.0), caller(1, 130.0, 110.0, failure="it broke"))
    steps = {**dict.fromkeys(STEPS, "done"), "webhook": "failed"}
    found = ledger(made(0, finished_at_s=None, steps=steps))
    seen = burst_figures(calls, found, expected(1), monotonic_to_unix_s=UNIX_S, asked=0)
    assert seen.completed_s == inf
    assert isnan(seen.max_gap_ms)
    assert seen.problems == (f"{call_sid(0)}: webhook not done", "call 1: it broke")
    assert [row.ok for row in burst_rows(seen)] == [False, False]


def test_each_must_of_a_burst_is_looked_at() -> None:
    calls = report(caller(0, 100.0, 99.0), caller(1, 130.0, 110.0, 110.02))
    good = burst_figures(calls, ledger(made(0)), expected(1), monotonic_to_unix_s=UNIX_S, asked=4)
    assert [row.ok for row in burst_rows(attrs.evolve(good, completed_s=20.0))] == [False, True]
    assert [row.ok for row in burst_rows(attrs.evolve(good, problems=("one",)))] == [False, True]
    assert [row.ok for row in burst_rows(attrs.evolve(good, max_gap_ms=60.0))] == [True, False]


def test_kills_are_good_when_nothing_is_lost_or_twice() -> None:
    good = KillFigures(calls=8, kills=2, in_a_step=1, verdict=Verdict((), (), 3), seed=7, seconds=9.0)
    assert kills_row(good).ok
    assert "seed 7" in kills_row(good).measured
    assert kills_row(attrs.evolve(good, verdict=Verdict(("one",), (), 0))).ok is False
    assert kills_row(attrs.evolve(good, verdict=Verdict((), ("one",), 0))).ok is False


def test_restarts_that_harm_nobody() -> None:
    calls = report(caller(0, 130.0, 110.0, 110.02, 110.06))
    seen = restart_figures(calls, ledger(made(0)), {call_sid(0): 4}, [], restarts=10, away_s=8.0)
    assert (seen.harmed, seen.lost, seen.turns) == ((), (), 4)
    assert seen.max_gap_ms == pytest.approx(40.0)
    assert [row.ok for row in restart_rows(seen)] == [True, True]
    slow = attrs.evolve(seen, max_gap_ms=61.0)
    assert [row.ok for row in restart_rows(slow)] == [False, True]


def test_calls_that_a_restart_harmed() -> None:
    """A failure, a silence, an error in the log, another outcome: each one is named."""
    silent = CarrierCall(1, 90.0, protocol_errors=["nonsense"])
    calls = report(caller(0, 130.0, 110.0, failure="it broke"), silent)
    found = ledger(made(0, outcome="error"), made(1))
    turns = {call_sid(0): 4, call_sid(1): 4}
    seen = restart_figures(calls, found, turns, ["CALL_ERROR"], restarts=10, away_s=8.0)
    assert seen.harmed == (
        "call 0: it broke",
        "call 1: nonsense",
        "call 1 heard nothing",
        "the agent logged CALL_ERROR",
        f"{call_sid(0)} ended as error",
    )
    assert [row.ok for row in restart_rows(seen)] == [False, True]


def test_records_that_a_restart_lost() -> None:
    """No row, a row without its record, a turn too few, and a call without a durable record."""
    calls = report(*(caller(call, 130.0, 110.0, 110.02) for call in range(4)))
    found = ledger(made(1, has_record=False), made(2, turns=3))
    turns = {call_sid(call): 4 for call in range(3)}
    seen = restart_figures(calls, found, turns, [], restarts=10, away_s=8.0)
    assert seen.lost == (
        "1 records were not kept",
        f"{call_sid(0)}: no record in the database",
        f"{call_sid(1)}: no record in the database",
        f"{call_sid(2)}: 3 of 4 turns",
    )
    assert [row.ok for row in restart_rows(seen)] == [True, False]


def test_keeping_and_queries() -> None:
    assert keeping_row(KeepingFigures(enqueue_us=2, turn_us=999, longest_us=100)).ok
    assert keeping_row(KeepingFigures(enqueue_us=2, turn_us=1000, longest_us=100)).ok is False
    assert queries_row(QueryFigures(trio_us=119, asyncio_us=100)).ok
    assert queries_row(QueryFigures(trio_us=121, asyncio_us=100)).ok is False


def test_the_first_of_many_problems_are_told() -> None:
    assert few(()) == "0"
    assert few(("a", "b", "c", "d")) == "4: a; b; c"


def test_who_leaves_leaves_within_a_second() -> None:
    plan = LoadPlan(calls=70, leaving=50, leaving_within_s=1.0)
    times = [plan.leave_s(call, 100.0, 130.0) for call in range(plan.calls)]
    assert times[0] == 100.0
    assert 100.9 < times[49] < 101.0
    assert set(times[50:]) == {130.0}

"""The largest number of calls that a server carries: doubled until it fails, then bisected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio

from bench.load import RunResult, Variant, plan_of, run_valid
from bench.rig.contestants import Contestant
from bench.rig.processes import BenchError, Say

START: Final = 20
STEP: Final = 10
RUNS: Final = 3
"""All of them have to pass."""


@attrs.define
class Bracket:
    """Between the most calls that passed and the fewest that did not. Pure."""

    passed: int = 0
    failed: int | None = None
    start: int = START
    most: int = 1000

    def next_calls(self) -> int | None:
        """How many calls to try next; None when it is known to a STEP."""
        if self.failed is None:
            more = min(self.passed * 2 or self.start, self.most)
            return more if more > self.passed else None
        if self.failed - self.passed <= STEP:
            return None
        middle = (self.passed + self.failed) // 2 // STEP * STEP
        return middle if middle > self.passed else self.passed + STEP

    def note(self, calls: int, *, passed: bool) -> None:
        """So many calls were tried."""
        if passed:
            self.passed = max(self.passed, calls)
        else:
            self.failed = calls if self.failed is None else min(self.failed, calls)


@attrs.frozen
class Largest:
    """What a search found: ``calls`` passed RUNS times; why it did not look further."""

    contestant: str
    calls: int
    ended: str


async def find_largest(
    contestant: Contestant,
    *,
    seconds: float,
    variant: Variant,
    budget_s: float,
    most: int,
    say: Say,
    keep: Callable[[RunResult], None],
) -> Largest:
    """Search within ``budget_s``, no run beginning later; each run is given to ``keep``. A cancel kills all."""
    bracket = Bracket(most=most)
    until_s = trio.current_time() + budget_s
    ended = f"{most} calls were not looked beyond"
    while (calls := bracket.next_calls()) is not None:
        say(f"{contestant.name}: {calls} calls, up to {RUNS} runs of {seconds:.0f} s")
        try:
            passed = 0
            while passed < RUNS:
                if trio.current_time() > until_s:
                    return Largest(contestant.name, bracket.passed, f"the time of {budget_s:.0f} s was over")
                result = await run_valid(contestant, plan_of(calls, seconds, variant), variant, say)
                keep(result)
                if not result.passed:
                    ended = f"{calls} calls failed: {'; '.join(result.faults)}"
                    break
                passed += 1
        except BenchError as error:
            return Largest(contestant.name, bracket.passed, str(error))
        bracket.note(calls, passed=passed == RUNS)
    return Largest(contestant.name, bracket.passed, ended)

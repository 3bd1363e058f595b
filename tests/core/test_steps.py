"""The plan of post-call work: whatever comes of each try, every step is settled, in order, the webhook last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.steps import (
    NEVER_READY_S,
    RETRY_POLICIES,
    SETTLED,
    STEPS,
    RetryPolicy,
    State,
    look_again_s,
    next_step,
    steps_from,
)

Outcome = Literal["done", "failed", "hopeless", "not ready"]
OUTCOMES: tuple[Outcome, ...] = ("done", "failed", "hopeless", "not ready")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def work(outcomes: Sequence[Outcome], jitter: float) -> tuple[list[str], dict[str, State], float]:
    """Work on a call whose tries end as ``outcomes`` say (then well); what was tried, the states, how long."""
    states: dict[str, State] = dict.fromkeys(STEPS, "pending")
    tries = dict.fromkeys(STEPS, 0)
    tried: list[str] = []
    now_s, waiting = 0.0, iter(outcomes)
    while (step := next_step(states)) is not None:
        before = STEPS[: STEPS.index(step)]
        assert all(states[name] in SETTLED for name in before), f"{step} was begun before {before} were settled"
        tried.append(step)
        match next(waiting, "done"):
            case "done":
                states[step] = "done"
            case "hopeless":
                states[step] = "dead"
            case "failed":
                tries[step] += 1
                rest_s = RETRY_POLICIES[step].rest_s(tries[step], jitter)
                states[step] = "dead" if rest_s is None else "failed"
                now_s += rest_s or 0.0
            case "not ready":
                again_s = look_again_s(now_s)
                states[step] = "dead" if again_s is None else "pending"
                now_s += again_s or 0.0
    return tried, states, now_s


@given(st.lists(st.sampled_from(OUTCOMES), max_size=400), st.floats(0, 1))
def test_pc_2_whatever_happens_every_step_is_settled_in_order_and_the_webhook_is_last(
    outcomes: list[Outcome], jitter: float
) -> None:
    tried, states, _ = work(outcomes, jitter)
    assert set(states.values()) <= set(SETTLED)
    assert sorted(set(tried), key=STEPS.index) == list(STEPS), "each is tried"
    assert tried == sorted(tried, key=STEPS.index), "none is tried again once a later one was"
    assert tried[-1] == STEPS[-1] == "webhook"


@pytest.mark.parametrize("outcome", ["failed", "not ready"])
def test_what_never_ends_well_is_given_up_within_days(outcome: Outcome) -> None:
    """Bounded in tries and in time, even where each of the seven steps uses up all of its patience."""
    tried, states, took_s = work([outcome] * 100_000, jitter=1.0)
    assert set(states.values()) == {"dead"}
    assert len(tried) < 200
    assert took_s < 3 * DAY_S


@given(
    st.dictionaries(st.sampled_from(STEPS), st.sampled_from(["pending", "running", "done", "failed", "dead"])),
)
def test_the_next_step_is_the_first_that_is_not_settled(states: dict[str, State]) -> None:
    """A row that is missing is one that was not begun; one left running by a dead worker is begun again."""
    step = next_step(states)
    if step is None:
        assert set(states) == set(STEPS)
        assert set(states.values()) <= set(SETTLED)
    else:
        assert states.get(step, "pending") not in SETTLED
        assert all(states.get(name) in SETTLED for name in STEPS[: STEPS.index(step)])


@pytest.mark.parametrize("step", STEPS)
@given(jitter=st.floats(0, 1))
def test_rests_grow_and_differ_by_a_fifth_at_most(step: str, jitter: float) -> None:
    retry = RETRY_POLICIES[step]
    rests = [retry.rest_s(failures, 0.0) for failures in range(1, retry.attempts)]
    assert None not in rests
    assert rests == sorted(rests, key=lambda rest: rest or 0.0)
    for failures, rest_s in enumerate(rests, 1):
        shaken_s = retry.rest_s(failures, jitter)
        assert rest_s is not None
        assert shaken_s is not None
        assert rest_s <= shaken_s <= rest_s * 1.2 + 1e-9


def test_the_first_try_again_is_quick_and_the_webhook_is_tried_for_a_day() -> None:
    for step in STEPS:
        first_s = RETRY_POLICIES[step].rest_s(1, 0.0)
        assert first_s is not None
        assert first_s <= 10.0
    webhook = RETRY_POLICIES["webhook"]
    rests = [webhook.rest_s(failures, 0.0) or 0.0 for failures in range(1, webhook.attempts)]
    assert 10 <= webhook.attempts <= 15
    assert 18 * HOUR_S < sum(rests) < 30 * HOUR_S
    assert max(rests) < 8 * HOUR_S, "a receiver that is back in the morning hears of it by noon"


@given(st.integers(1, 20), st.integers(1, 40), st.floats(0, 1))
def test_after_the_last_attempt_there_is_no_rest(attempts: int, failures: int, jitter: float) -> None:
    rest_s = RetryPolicy(attempts, 1.0).rest_s(failures, jitter)
    assert (rest_s is None) == (failures >= attempts)


def test_what_is_not_ready_is_looked_for_often_at_first_and_not_for_ever() -> None:
    looks, now_s = 0, 0.0
    while (again_s := look_again_s(now_s)) is not None:
        now_s += again_s
        looks += 1
        assert looks < 200
    assert look_again_s(0.0) == 15.0
    assert NEVER_READY_S <= now_s < NEVER_READY_S + 700


@pytest.mark.parametrize("step", STEPS)
def test_a_step_done_again_has_all_after_it_done_again(step: str) -> None:
    assert steps_from(step)[0] == step
    assert steps_from(step)[-1] == "webhook"
    assert steps_from(step) == STEPS[STEPS.index(step) :]

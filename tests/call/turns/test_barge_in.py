"""The barge-in policy by itself: what a speech start means, and what protects the greeting (BI-2, BI-5)."""

from __future__ import annotations

import pytest

from agent.call.turns.barge_in import BargeInDecision, BargeInPolicy


def test_bi_2_whoever_speaks_into_an_answer_interrupts_it() -> None:
    policy = BargeInPolicy(500)
    assert policy.speech_started(1.0, speaking=True, greeting_heard_ms=None) is BargeInDecision.INTERRUPT
    assert policy.caller_speaking


def test_whoever_speaks_into_silence_interrupts_nobody() -> None:
    policy = BargeInPolicy(500)
    assert policy.speech_started(1.0, speaking=False, greeting_heard_ms=None) is BargeInDecision.NOTHING
    assert policy.caller_speaking


@pytest.mark.parametrize(
    ("heard_ms", "decision"),
    [(0, BargeInDecision.PROTECT), (499, BargeInDecision.PROTECT), (500, BargeInDecision.INTERRUPT)],
)
def test_bi_5_the_greeting_is_protected_for_what_was_heard_of_it(
    heard_ms: int, decision: BargeInDecision
) -> None:
    policy = BargeInPolicy(500)
    assert policy.speech_started(1.0, speaking=True, greeting_heard_ms=heard_ms) is decision
    assert policy.protecting is (decision is BargeInDecision.PROTECT)


def test_bi_5_no_protection_is_a_protection_of_zero() -> None:
    assert BargeInPolicy(0).speech_started(1.0, speaking=True, greeting_heard_ms=0) is BargeInDecision.INTERRUPT


def protected() -> BargeInPolicy:
    """A policy with a protected speech start."""
    policy = BargeInPolicy(500)
    policy.speech_started(1.0, speaking=True, greeting_heard_ms=100)
    return policy


def test_bi_5_it_is_decided_when_the_protection_is_over() -> None:
    """Once, and by our own ear."""
    policy = protected()
    assert policy.due_interruption(greeting_heard_ms=480, voiced=True) is BargeInDecision.PROTECT
    assert policy.due_interruption(greeting_heard_ms=500, voiced=True) is BargeInDecision.INTERRUPT
    assert policy.due_interruption(greeting_heard_ms=520, voiced=True) is BargeInDecision.NOTHING
    assert policy.caller_speaking


def test_bi_5_a_cough_is_over_by_then() -> None:
    """It is silent when the protection ends, and its end is reported before it is heard again."""
    policy = protected()
    assert policy.due_interruption(greeting_heard_ms=500, voiced=False) is BargeInDecision.PROTECT
    policy.speech_stopped()
    assert policy.due_interruption(greeting_heard_ms=900, voiced=True) is BargeInDecision.NOTHING
    assert not policy.protecting


def test_bi_5_a_breath_at_the_end_of_the_protection_only_postpones() -> None:
    policy = protected()
    assert policy.due_interruption(greeting_heard_ms=500, voiced=False) is BargeInDecision.PROTECT
    assert policy.due_interruption(greeting_heard_ms=760, voiced=True) is BargeInDecision.INTERRUPT


def test_bi_5_speech_that_ended_needs_no_decision() -> None:
    policy = protected()
    policy.speech_stopped()
    assert policy.due_interruption(greeting_heard_ms=500, voiced=True) is BargeInDecision.NOTHING
    assert not policy.caller_speaking


def test_bi_5_a_greeting_that_is_over_needs_no_protection() -> None:
    policy = protected()
    assert policy.due_interruption(greeting_heard_ms=None, voiced=True) is BargeInDecision.NOTHING
    assert not policy.protecting


def test_without_a_protected_start_there_is_nothing_to_look_at() -> None:
    assert BargeInPolicy(500).due_interruption(greeting_heard_ms=600, voiced=True) is BargeInDecision.NOTHING

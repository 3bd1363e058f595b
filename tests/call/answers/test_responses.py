"""Responses asked for, active and owed: the bookkeeping of DESIGN D7 by itself.

Its races with a provider are in ``test_conversation_machine``.
"""

from __future__ import annotations

import pytest

from agent.audio.generation import Purpose
from agent.call.answers.responses import ANSWER_GRACE_S, FREED_GRACE_S, Debt, ResponseTracker, Session, Stage
from agent.core.units import ResponseId

R1, R2, R3 = ResponseId("r1"), ResponseId("r2"), ResponseId("r3")


def born(
    turns: ResponseTracker, response: ResponseId, *, speaking: bool = False, says: str = ""
) -> tuple[Purpose, Stage] | None:
    """A response begins, with what its metadata says."""
    new = turns.created(response, Purpose(says) if says else None, caller_speaking=speaking)
    return None if new is None else (new.purpose, new.stage)


def tracker() -> ResponseTracker:
    """Of a session that may be asked."""
    return ResponseTracker(Session(ready=True))


def test_an_answer_of_the_providers_own() -> None:
    turns = tracker()
    turns.committed(0.0)
    assert turns.owes_answer
    assert born(turns, R1) == (Purpose.ANSWER, Stage.GENERATING)
    assert turns.busy
    assert not turns.owes_answer
    turns.done(R1, 1.0)
    assert not turns.busy
    assert turns.owed_at is None


def test_an_answer_we_asked_for_is_known_by_what_it_repeats() -> None:
    turns = tracker()
    turns.asked(Purpose.GREETING)
    turns.asked(Purpose.TOOL)
    assert born(turns, R1, says="tool") == (Purpose.TOOL, Stage.GENERATING)
    assert born(turns, R2, says="greeting") == (Purpose.GREETING, Stage.GENERATING)


def test_an_answer_without_metadata_is_the_one_asked_for_unless_a_turn_waits() -> None:
    """A provider that repeats no metadata: the oldest request is met first."""
    turns = tracker()
    turns.asked(Purpose.GREETING)
    assert born(turns, R1) == (Purpose.GREETING, Stage.GENERATING)
    turns.asked(Purpose.IDLE)
    turns.committed(0.0)
    assert born(turns, R2) == (Purpose.ANSWER, Stage.GENERATING)
    assert turns.busy, "the idle prompt is still asked for"


@pytest.mark.parametrize("purpose", ["greeting", "idle", "farewell"])
def test_bi_6_an_answer_with_words_of_its_own_leaves_a_turn_waiting(purpose: str) -> None:
    """The caller who asked something is not served with an 'Are you still there?'."""
    turns = tracker()
    turns.asked(Purpose(purpose))
    turns.committed(0.0)
    born(turns, R1, says=purpose)
    assert turns.owes_answer
    turns.done(R1, 1.0)
    assert turns.answer_due(1.0 + FREED_GRACE_S, caller_speaking=False)


def test_bi_3_a_response_is_cancelled_once_and_only_while_active() -> None:
    turns = tracker()
    assert not turns.cancel(R1)
    born(turns, R1)
    assert turns.barge_in() == [R1]
    assert turns.barge_in() == []
    assert not turns.cancel(R1)
    turns.done(R1, 0.0)
    assert not turns.session.responses[R1].active
    assert turns.barge_in() == []


def test_bi_3_a_response_that_was_asked_for_is_cancelled_at_its_birth() -> None:
    turns = tracker()
    turns.asked(Purpose.TURN)
    assert turns.barge_in() == []
    assert born(turns, R1, says="turn") == (Purpose.TURN, Stage.CANCELLED)
    assert not turns.cancel(R1), "its cancel was sent at its birth"
    turns.asked(Purpose.TURN)
    assert born(turns, R2, says="turn") == (Purpose.TURN, Stage.GENERATING), "only that one"


def test_bi_3_a_refused_request_takes_its_cancel_with_it() -> None:
    turns = tracker()
    request = turns.asked(Purpose.TURN)
    turns.barge_in()
    assert turns.refused(request)
    assert not turns.refused(request)
    turns.asked(Purpose.TURN)
    assert born(turns, R1, says="turn") == (Purpose.TURN, Stage.GENERATING)


def test_an_answer_to_half_a_turn_is_unwanted_a_greeting_is_not() -> None:
    turns = tracker()
    assert born(turns, R1, speaking=True) == (Purpose.ANSWER, Stage.CANCELLED)
    turns.asked(Purpose.GREETING)
    assert born(turns, R2, speaking=True, says="greeting") == (Purpose.GREETING, Stage.GENERATING)


def test_bi_6_a_turn_is_due_after_the_grace_and_once() -> None:
    turns = tracker()
    turns.committed(10.0)
    assert turns.owed_at == 10.0 + ANSWER_GRACE_S
    assert not turns.answer_due(10.0 + ANSWER_GRACE_S - 0.001, caller_speaking=False)
    assert not turns.answer_due(10.0 + ANSWER_GRACE_S, caller_speaking=True)
    assert turns.answer_due(10.0 + ANSWER_GRACE_S, caller_speaking=False)
    assert not turns.answer_due(1e9, caller_speaking=False)


def test_bi_6_a_turn_committed_into_an_answer_is_due_soon_after_its_end() -> None:
    turns = tracker()
    born(turns, R1)
    turns.committed(10.0)
    assert turns.owed_at is None, "not while an answer is active"
    assert not turns.answer_due(1e9, caller_speaking=False)
    turns.done(R1, 11.0)
    assert turns.owed_at == 11.0 + FREED_GRACE_S


def test_what_is_owed_when_free_is_due_only_when_free() -> None:
    turns = tracker()
    born(turns, R1)
    turns.owe(Debt.WHEN_FREE)
    assert not turns.answer_due(1e9, caller_speaking=False)
    turns.done(R1, 1.0)
    assert turns.answer_due(1.0 + FREED_GRACE_S, caller_speaking=False)


@pytest.mark.parametrize("ends", ["refused", "done"])
def test_what_is_owed_when_free_outlasts_a_turn_that_was_owed_before(ends: str) -> None:
    """Keys pressed while an answer to earlier ones is asked for: that answer does not meet them."""
    turns = tracker()
    turns.committed(0.0)
    request = turns.asked(Purpose.IDLE if ends == "refused" else Purpose.KEYS)
    turns.owe(Debt.WHEN_FREE)
    if ends == "refused":
        turns.refused(request)
    else:
        born(turns, R1, says="keys")
        assert not turns.answer_due(1e9, caller_speaking=False)
        turns.done(R1, 1.0)
    assert turns.answer_due(1.0 + FREED_GRACE_S, caller_speaking=False)


def test_responses_known_are_not_born_again() -> None:
    turns = tracker()
    born(turns, R1)
    assert born(turns, R1) is None
    turns.done(R1, 0.0)
    assert born(turns, R1) is None
    turns.done(R2, 0.0)
    assert born(turns, R2) is None, "done came first"
    assert not turns.busy


def test_a_lost_session_owes_what_it_did_not_finish() -> None:
    for interrupted in (False, True):
        turns = tracker()
        born(turns, R1)
        if interrupted:
            turns.barge_in()
        turns.session_lost()
        assert turns.owes_answer is not interrupted, "who was cut off by a barge-in is owed nothing"
        assert not turns.busy


@pytest.mark.parametrize(("purpose", "owed"), [("turn", True), ("tool", True), ("keys", True), ("idle", False)])
def test_a_lost_session_owes_what_was_asked_for_a_callers_sake(purpose: str, *, owed: bool) -> None:
    turns = tracker()
    turns.asked(Purpose(purpose))
    turns.session_lost()
    turns.session.ready = True
    assert turns.answer_due(0.0, caller_speaking=False) is owed


def test_a_greeting_that_was_not_begun_is_owed_to_nobody() -> None:
    """The next session is asked for a greeting, not for an answer."""
    turns = tracker()
    turns.asked(Purpose.GREETING)
    born(turns, R3, says="greeting")
    turns.session_lost()
    assert not turns.owes_answer


def test_names_may_come_again_in_another_session() -> None:
    turns = tracker()
    born(turns, R1)
    turns.done(R1, 0.0)
    turns.session_lost()
    assert born(turns, R1) is not None

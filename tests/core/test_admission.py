"""NB-6: over its capacity a server refuses new calls before it harms running ones; MO-4: none into silence."""

from __future__ import annotations

import pytest

from agent.core.admission import BEATS, BUSY, LATE_S, LIMITED, OVERLOADED, TICKS_LEAST, Admission
from agent.core.errors import AdmissionError


def test_lines_are_counted_and_so_are_those_that_were_promised() -> None:
    promised = 0
    admission = Admission(2, promised=lambda: promised)
    admission.take_line()
    assert admission.refusal(0.0) == ""
    promised = 1
    assert admission.refusal(0.0) == BUSY
    admission.take_line()  # the promised one
    with pytest.raises(AdmissionError):
        admission.take_line()
    promised = 0
    admission.give_back()
    assert admission.refusal(0.0) == ""


def test_the_lines_of_all_processes_are_counted_together() -> None:
    """AGENT_MAX_CALLS is the server's: what others promised keeps only new calls out."""
    others, told = (1, 1), []
    admission = Admission(3, others=lambda: others, tell=lambda admission: told.append(admission.lines))
    assert admission.refusal(0.0) == ""
    admission.take_line()
    assert admission.refusal(0.0) == BUSY
    admission.take_line()
    assert admission.is_full
    with pytest.raises(AdmissionError):
        admission.take_line()
    others = (0, 0)
    assert not admission.is_full
    assert told == [1, 2, 3, 2], "a line is taken before it is looked whether there is one, and given back"


def test_without_a_number_only_the_load_refuses() -> None:
    admission = Admission(others=lambda: (100_000, 0))
    admission.take_line()
    assert admission.refusal(0.0) == ""
    assert not admission.is_full


def test_whatever_makes_us_not_ready_is_said_first() -> None:
    admission = Admission(0, lambda: "the server is stopping")
    assert admission.refusal(0.0) == "the server is stopping"


def test_mo_4_a_limited_rate_refuses_new_calls_for_its_time() -> None:
    admission = Admission(10)
    admission.limited(8.0)
    admission.limited(4.0)  # a shorter limit ends no longer one
    assert admission.refusal(7.9) == LIMITED
    assert admission.refusal(8.0) == ""


def test_nb_6_a_core_that_is_busy_takes_no_more_until_it_is_back() -> None:
    admission = Admission(1000)
    admission.beat(0.86)
    assert admission.refusal(0.0) == OVERLOADED
    admission.beat(0.80)
    assert admission.refusal(0.0) == ""


def test_nb_6_calls_that_were_just_taken_count_before_they_show() -> None:
    """A hundred calls have 0.6 of a core; of fifty more in the same moment only some are taken."""
    admission = Admission(1000)
    for _ in range(100):
        admission.take_line()
    for _ in range(BEATS):
        admission.beat(0.6)
    taken = 0
    while not admission.refusal(0.0):
        admission.take_line()
        taken += 1
    assert taken == pytest.approx((0.85 - 0.6) / 0.006, abs=1)
    for _ in range(BEATS):
        admission.beat(0.8)  # they were cheaper than that
    assert admission.refusal(0.0) == ""


def test_nb_6_the_first_calls_of_all_are_taken_by_what_a_call_may_cost() -> None:
    admission = Admission(1000)
    taken = 0
    while not admission.refusal(0.0):
        admission.take_line()
        taken += 1
    assert 50 <= taken <= 100


def test_nb_6_late_ticks_refuse_and_are_forgotten_after_five_seconds() -> None:
    admission = Admission(1000)
    for _ in range(980):
        admission.tick(0.001)
    for _ in range(20):
        admission.tick(LATE_S + 0.001)
    assert admission.refusal(0.0) == OVERLOADED
    for _ in range(BEATS):
        assert admission.refusal(0.0) == OVERLOADED
        admission.beat(0.1)
    assert admission.refusal(0.0) == ""


def test_a_few_ticks_say_nothing() -> None:
    admission = Admission(1000)
    for _ in range(TICKS_LEAST - 1):
        admission.tick(1.0)
    assert admission.refusal(0.0) == ""

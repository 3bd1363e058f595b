"""NB-6: over its capacity a server refuses new calls before it harms running ones; MO-4: none into silence."""

from __future__ import annotations

import pytest

from agent.core.admission import (
    BEATS,
    BUSY,
    CALL_SHARE,
    CALL_SHARE_LEAST,
    CALL_SHARE_MOST,
    LATE_S,
    LIMITED,
    OVERLOADED,
    TICKS_LEAST,
    Admission,
)
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
    for _ in range(30):
        admission.beat(0.6)
    assert admission.call_share == pytest.approx(0.006, rel=0.01)
    taken = take_all(admission)
    assert taken == pytest.approx((0.85 - 0.6) / 0.006, abs=1)
    admission.beat(0.7)
    assert take_all(admission) == pytest.approx((0.85 - 0.7) / 0.006 - taken / 2, abs=1), "half of them show"
    for _ in range(2):
        admission.beat(0.8)  # they were cheaper than that
    assert admission.refusal(0.0) == ""


def take_all(admission: Admission) -> int:
    """Take calls until one is refused; how many were taken."""
    taken = 0
    while not admission.refusal(0.0):
        admission.take_line()
        taken += 1
    return taken


def test_nb_6_the_first_calls_of_all_are_taken_by_what_a_call_may_cost() -> None:
    assert 100 <= take_all(Admission(1000)) <= 150


def test_nb_6_a_server_that_carries_two_hundred_takes_them_within_five_seconds() -> None:
    """After a day on which a call cost 0.4 % of a core; of an idle one 85 were taken in that time before."""
    admission, share = Admission(), 0.004
    for _ in range(50):
        admission.take_line()
    for _ in range(60):
        admission.beat(50 * share)
    for _ in range(50):
        admission.give_back()
    for _ in range(3):
        admission.beat(0.01)
    for _ in range(5):
        for _ in range(40):
            assert admission.refusal(0.0) == "", admission.lines
            admission.take_line()
        admission.beat((admission.lines - 20) * share)
    assert admission.lines == 200


def test_nb_6_what_is_learnt_is_bounded_whatever_strangers_cost() -> None:
    """They are in the share of the loop as well; and what begins costs more than what goes on."""
    admission = Admission()
    for _ in range(10):
        admission.take_line()
    admission.beat(0.5)
    assert admission.call_share == CALL_SHARE, "they have just begun"
    for _ in range(60):
        admission.beat(0.8)
    assert admission.call_share == pytest.approx(CALL_SHARE_MOST, rel=0.01)
    for _ in range(60):
        admission.beat(0.001)
    assert admission.call_share == pytest.approx(CALL_SHARE_LEAST, rel=0.01)


def test_nb_6_calls_that_were_told_to_come_count_until_they_come_or_have_hung_up() -> None:
    """Three hundred webhooks of one second were all connected: not one stream was there yet."""
    promised = 0
    admission = Admission(promised=lambda: promised)
    while not admission.refusal(0.0):
        admission.promise()
        promised += 1
    assert 100 <= promised <= 150
    for _ in range(2):
        admission.beat(0.01)
    assert admission.refusal(0.0) == "", "their tokens are good for a minute; they come within a second, or never"


def test_nb_6_ticks_that_are_late_for_strangers_refuse_nobody() -> None:
    """A thousand who ask in one instant take 15 ms once a second: more than one tick of a hundred."""
    crowd = True
    admission = Admission(crowded=lambda: crowd)
    for _ in range(TICKS_LEAST):
        admission.tick(2 * LATE_S)
    assert admission.refusal(0.0) == ""
    crowd = False
    for _ in range(TICKS_LEAST):
        admission.tick(2 * LATE_S)
    assert admission.refusal(0.0) == OVERLOADED


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

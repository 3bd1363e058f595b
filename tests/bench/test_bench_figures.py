"""From what the two sides of a load saw to figures: each figure on observations made by hand."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import attrs
import msgspec
import pytest

from agent.core.units import FRAME_S, SILENCE_FRAME
from bench.generator.observations import (
    CarrierCall,
    CarrierReport,
    Clear,
    ModelCall,
    ModelReport,
    Response,
    Spell,
    Truncation,
)
from bench.generator.plan import LoadPlan, read_signature, silence
from bench.reporting.figures import LoadFigures, evaluate, faults, lateness_ms, percentile, recovery_s


def spell(number: int, begin_s: float, frames: int, *, late: dict[int, float] | None = None) -> Spell:
    """A lead of five frames at once, then one each 20 ms; ``late`` by frame, in seconds."""
    late = late or {}
    times = [begin_s + max(frame - 4, 0) * FRAME_S + late.get(frame, 0.0) for frame in range(frames)]
    return Spell(number, times, [160] * frames)


def response(number: int, begin_s: float, frames: int) -> Response:
    """An answer generated all at once."""
    return Response(number, begin_s - 0.2, [begin_s - 0.002], [160 * frames])


def figures(carrier: CarrierCall, model: ModelCall, *, lead_ms: int | None = 100, **more: Any) -> LoadFigures:
    """The figures of one call, all of it measured."""
    carrier.hung_up_s = carrier.hung_up_s or 100.0
    report = CarrierReport(0.0, 100.0, [carrier], [0.001])
    return evaluate(report, ModelReport([model], [0.002]), lead_ms=lead_ms, **more)


@pytest.mark.parametrize("call", [0, 1, 79, 255, 60_000])
def test_a_call_is_read_from_its_silence(call: int) -> None:
    assert read_signature(silence(call)) == call


def test_silence_and_speech_of_others_name_no_call() -> None:
    assert read_signature(SILENCE_FRAME) is None
    assert read_signature(b"\x20" * 160) is None
    assert read_signature(b"\xfe") is None


def test_a_cycle_is_a_question_and_two_interruptions() -> None:
    """The first two answers are longer than a caller's patience, the third ends before the next question."""
    plan = LoadPlan()
    lengths = [plan.answer(0, number).length_ms for number in range(1, 7)]
    assert [length > plan.every_s * 1000 for length in lengths] == [True, True, False] * 2
    assert plan.answer(5, 0) == plan.greeting
    assert {plan.answer(call, 1).length_ms for call in range(3)} == set(lengths)


def test_lateness_is_against_the_schedule_and_leaves_the_lead_out() -> None:
    late = lateness_ms(spell(1, 10.0, 50, late={20: 0.007}).arrivals_s, 100)
    assert len(late) == 45
    assert max(late) == pytest.approx(7.0)
    assert percentile(late, 50) == pytest.approx(0.0, abs=1e-6)


def test_the_lateness_of_who_does_not_pace_is_against_the_deltas() -> None:
    heard = Spell(1, [10.001, 10.104], [2000, 1200])
    model = ModelCall(7, responses=[Response(1, 9.8, [10.0, 10.1], [2000, 1200])])
    seen = figures(CarrierCall(7, 9.0, [heard]), model, lead_ms=None)
    assert seen.late_ms == pytest.approx((1.0, 4.0, 4.0))


def test_an_interruption_is_measured_from_speech_started() -> None:
    """The last frame 15 ms after it, the clear 16 ms after it, 400 ms heard and 397 told."""
    answer = spell(3, 10.0, 24)
    last_s = answer.arrivals_s[-1]
    carrier = CarrierCall(7, 9.0, [answer], [Clear(last_s + 0.001, 0, 400.0)])
    model = ModelCall(7, [last_s - 0.015], [response(3, 10.0, 500)], [Truncation(last_s + 0.005, 3, 397)])
    seen = figures(carrier, model)
    assert seen.silenced_ms == pytest.approx((15.0, 15.0))
    assert seen.cleared_ms == pytest.approx((16.0, 16.0))
    assert seen.truncate_ms == pytest.approx((3.0, 3.0))
    assert seen.first_audio_ms == pytest.approx((2.0, 2.0))
    assert (seen.stale, seen.uninterrupted, seen.interruptions, seen.problems) == (0, 0, 1, ())
    assert seen.call_seconds == pytest.approx(91.0)
    assert seen.late_tick_ms == pytest.approx(2.0)


def test_frames_delivered_are_counted_against_frames_due() -> None:
    """Of 100 frames all came; of 100 that were due in two seconds until a clear, ten did not."""
    whole = figures(CarrierCall(7, 9.0, [spell(3, 10.0, 100)]), ModelCall(7, responses=[response(3, 10.0, 100)]))
    assert (whole.due, whole.delivered) == (100, 100)
    carrier = CarrierCall(7, 9.0, [spell(3, 10.0, 91)], [Clear(12.001, 0, 0.0)])
    cut = figures(carrier, ModelCall(7, responses=[response(3, 10.0, 500)]))
    assert (cut.due, cut.delivered) == (101, 91)


def test_an_answer_of_which_nothing_came_was_due() -> None:
    """Until the caller spoke again, a second later; one withdrawn at once was not."""
    model = ModelCall(7, [11.0], [response(3, 10.0, 500)])
    assert figures(CarrierCall(7, 9.0), model).due == 50
    assert figures(CarrierCall(7, 9.0), attrs.evolve(model, speech_started_s=[10.1])).due == 0


def test_frames_behind_the_clear_are_stale_also_of_an_answer_never_heard() -> None:
    """Answer 3 goes on after its clear; answer 4, told to be unheard, comes; answer 5 is a new one."""
    first = spell(3, 10.0, 24)
    clear = Clear(11.0, 0, 400.0)
    carrier = CarrierCall(7, 9.0, [first, spell(3, 11.1, 2), spell(4, 11.2, 3), spell(5, 12.0, 9)], [clear])
    model = ModelCall(7, [10.99], truncations=[Truncation(11.01, 3, 400), Truncation(11.01, 4, 0)])
    assert figures(carrier, model).stale == 5


def test_a_number_that_comes_round_again_is_not_stale() -> None:
    carrier = CarrierCall(7, 9.0, [spell(3, 10.0, 24), spell(3, 70.0, 9)], [Clear(11.0, 0, 400.0)])
    assert figures(carrier, ModelCall(7, [10.99])).stale == 0


def test_an_answer_that_goes_on_under_the_caller_s_speech_is_counted() -> None:
    carrier = CarrierCall(7, 9.0, [spell(3, 10.0, 240)])
    seen = figures(carrier, ModelCall(7, [11.0]))
    assert (seen.uninterrupted, seen.interruptions) == (1, 0)
    assert isnan(seen.silenced_ms[1])


def test_complaints_of_either_side_and_unmatched_calls_are_problems() -> None:
    carrier = CarrierCall(7, 9.0, failure="it broke", protocol_errors=["nonsense"])
    seen = figures(carrier, ModelCall(8, errors=["no active response"]))
    assert seen.lost == 1
    assert seen.problems == (
        "call 7: it broke",
        "call 7: the model never heard it",
        "call 7: nonsense",
        "call 8: no active response",
    )


def test_recovery_is_when_lateness_is_back_for_good() -> None:
    """Late for 0.5 s, on time from then on; or once more a second later; or to the end."""
    steady = [(10.0 + step / 50, 1.0 if step > 25 else 50.0) for step in range(200)]
    assert recovery_s(steady, 10.0, 14.0) == pytest.approx(0.6)
    assert recovery_s([*steady, (11.5, 20.0)], 10.0, 14.0) == pytest.approx(1.6)
    assert recovery_s([(at_s, 50.0) for at_s, _ in steady], 10.0, 14.0) == inf
    assert recovery_s([], 10.0, 14.0) == inf


def test_after_a_stop_the_schedule_of_the_rest_is_a_new_one() -> None:
    """What waited is late by as long as it was; what follows, a lead and then each 20 ms, is not."""
    before, after = spell(3, 10.0, 50), spell(3, 11.4, 100)
    heard = Spell(3, before.arrivals_s + after.arrivals_s, before.sizes + after.sizes)
    carrier = CarrierCall(7, 9.0, [heard], underruns_s=[11.4], hung_up_s=14.0)
    seen = figures(carrier, ModelCall(7, responses=[response(3, 10.0, 500)]), stopped_until_s=11.3)
    assert seen.recovery_s == pytest.approx(0.2)
    assert seen.late_ms[2] > 400


GOOD = figures(CarrierCall(7, 9.0, [spell(3, 10.0, 100)]), ModelCall(7, responses=[response(3, 10.0, 100)]))


def test_a_good_run_has_no_faults() -> None:
    assert faults(GOOD, paced=True) == faults(GOOD, paced=False) == []


@pytest.mark.parametrize(
    ("change", "paced", "unpaced"),
    [
        ({"underruns": 1}, True, True),
        ({"delivered": 99}, True, True),
        ({"due": 0, "delivered": 0}, True, True),
        ({"lost": 1}, True, True),
        ({"max_gap_ms": 60.0}, True, False),
        ({"late_ms": (1.0, 2.0, 10.0)}, True, False),
        ({"late_ms": (1.0, 2.0, float("nan"))}, True, False),
        ({"stale": 1}, True, False),
        ({"problems": ("call 3: it broke",)}, True, False),
    ],
)
def test_each_must_is_looked_at(change: dict[str, Any], paced: bool, unpaced: bool) -> None:  # noqa: FBT001 - a table
    """Who does not pace passes when no playback runs dry, nothing is missing and no call is lost."""
    worse = attrs.evolve(GOOD, **change)
    assert bool(faults(worse, paced=True)) is paced
    assert bool(faults(worse, paced=False)) is unpaced


def test_a_stopped_run_passes_when_lateness_is_back_and_no_call_is_lost() -> None:
    stopped = attrs.evolve(GOOD, underruns=40, max_gap_ms=300.0, delivered=90, recovery_s=0.4)
    assert faults(stopped, paced=True, stopped=True) == []
    assert faults(attrs.evolve(stopped, recovery_s=inf), paced=True, stopped=True)
    assert faults(attrs.evolve(stopped, lost=1), paced=True, stopped=True)


def test_who_knocked_and_was_let_in_is_a_call_like_any_other() -> None:
    """Who was told that we are busy is none; who heard neither is a call that was lost."""
    first = CarrierCall(0, 1.0, [spell(0, 10.0, 60)], hung_up_s=100.0)
    let_in = CarrierCall(1, 50.0, [spell(0, 60.0, 60)], hung_up_s=100.0)
    busy = CarrierCall(2, 0.0, refused=True, failure="busy", hung_up_s=55.0)
    models = ModelReport(
        [ModelCall(call, responses=[response(0, at_s, 60)]) for call, at_s in ((0, 10.0), (1, 60.0))]
    )
    carrier = CarrierReport(0.0, 100.0, [first], [0.001], [let_in, busy])
    seen = evaluate(carrier, models, lead_ms=100)
    assert (seen.let_in, seen.refused, seen.lost, seen.problems) == (1, 1, 0, ())
    assert (seen.due, seen.delivered) == (120, 120)
    let_in.spells[0].arrivals_s[40:] = [at_s + 0.2 for at_s in let_in.spells[0].arrivals_s[40:]]
    assert evaluate(carrier, models, lead_ms=100).max_gap_ms == pytest.approx(220)
    unheard = attrs.evolve(carrier, knockers=[CarrierCall(3, 0.0, failure="ReadTimeout", hung_up_s=70.0)])
    assert any("1 calls lost" in fault for fault in faults(evaluate(unheard, models, lead_ms=100), paced=True))


def test_reports_go_through_message_pack() -> None:
    carrier = CarrierReport(0.0, 1.0, [CarrierCall(7, 9.0, [spell(3, 10.0, 6)], [Clear(1.0, 0, 2.5)])], [0.5])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(carrier), type=CarrierReport) == carrier

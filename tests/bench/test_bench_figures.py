"""From what the simulators saw to figures: each figure on observations made by hand."""

from __future__ import annotations

from math import isnan

import msgspec
import pytest

from agent.core.units import FRAME_S, SILENCE_FRAME
from bench.figures import LoadFigures, evaluate, lateness_ms, percentile
from bench.observations import CarrierCall, CarrierReport, Clear, ModelCall, ModelReport, Spell, Truncation
from bench.plan import read_signature, signature


def spell(number: int, begin_s: float, frames: int, *, late: dict[int, float] | None = None) -> Spell:
    """A lead of five frames at once, then one each 20 ms; ``late`` by frame, in seconds."""
    late = late or {}
    times = [begin_s + max(frame - 4, 0) * FRAME_S + late.get(frame, 0.0) for frame in range(frames)]
    return Spell(number, 0, times)


def figures(carrier: CarrierCall, model: ModelCall) -> LoadFigures:
    """The figures of one call, all of it measured."""
    report = CarrierReport(0.0, 100.0, [carrier], worst_tick_s=0.001, cpu_share=0.1)
    return evaluate(report, ModelReport([model], cpu_share=0.1), lead_ms=100)


@pytest.mark.parametrize("call", [0, 1, 79, 255, 65534])
def test_a_signature_is_read_back(call: int) -> None:
    assert read_signature(signature(call)) == call


def test_silence_and_speech_are_no_signature() -> None:
    assert read_signature(SILENCE_FRAME) is None
    assert read_signature(b"\x20" * 160) is None
    assert read_signature(b"\xfe") is None


def test_lateness_is_against_the_schedule_and_leaves_the_lead_out() -> None:
    late = lateness_ms(spell(1, 10.0, 50, late={20: 0.007}), 100)
    assert len(late) == 45
    assert max(late) == pytest.approx(7.0)
    assert percentile(late, 50) == pytest.approx(0.0, abs=1e-6)


def test_an_interruption_is_measured_from_speech_started() -> None:
    """The last frame 15 ms after it, the clear 16 ms after it, 400 ms heard and 397 told."""
    answer = spell(3, 10.0, 24)
    last_s = answer.arrivals_s[-1]
    carrier = CarrierCall(7, 9.0, [answer], [Clear(last_s + 0.001, 0, 400.0)])
    model = ModelCall(7, [last_s - 0.015], [Truncation(last_s + 0.005, 15, 397)])
    seen = figures(carrier, model)
    assert seen.silenced_ms == [pytest.approx(15.0)]
    assert seen.cleared_ms == [pytest.approx(16.0)]
    assert seen.truncate_errors_ms == [pytest.approx(3.0)]
    assert seen.first_audio_ms == [pytest.approx(1000.0)]
    assert (seen.stale_frames, seen.uninterrupted, seen.failures) == (0, 0, [])


def test_frames_behind_the_clear_are_stale_also_of_an_answer_never_heard() -> None:
    """Answer 3 goes on after its clear; answer 4, told to be unheard, comes; answer 5 is a new one."""
    first = spell(3, 10.0, 24)
    clear = Clear(11.0, 0, 400.0)
    carrier = CarrierCall(7, 9.0, [first, spell(3, 11.1, 2), spell(4, 11.2, 3), spell(5, 12.0, 9)], [clear])
    model = ModelCall(7, [10.99], [Truncation(11.01, 3, 400), Truncation(11.01, 4, 0)])
    assert figures(carrier, model).stale_frames == 5


def test_a_number_that_comes_round_again_is_not_stale() -> None:
    carrier = CarrierCall(7, 9.0, [spell(3, 10.0, 24), spell(3, 60.0, 9)], [Clear(11.0, 0, 400.0)])
    assert figures(carrier, ModelCall(7, [10.99], [])).stale_frames == 0


def test_an_answer_that_goes_on_under_the_caller_s_speech_is_counted() -> None:
    carrier = CarrierCall(7, 9.0, [spell(3, 10.0, 240)])
    seen = figures(carrier, ModelCall(7, [11.0], []))
    assert seen.uninterrupted == 1
    assert seen.silenced_ms == []
    assert isnan(percentile(seen.silenced_ms, 99))


def test_complaints_of_either_side_and_unmatched_calls_are_failures() -> None:
    carrier = CarrierCall(7, 9.0, failure="it broke", protocol_errors=["nonsense"])
    seen = figures(carrier, ModelCall(8, errors=["no active response"]))
    assert seen.failures == [
        "call 7: it broke",
        "call 7: nonsense",
        "call 8: no active response",
        "call 7: the model never heard it",
    ]


def test_reports_go_through_json() -> None:
    carrier = CarrierReport(0.0, 1.0, [CarrierCall(7, 9.0, [spell(3, 10.0, 6)], [Clear(1.0, 0, 2.5)])], 0.0, 0.5)
    again = msgspec.json.decode(msgspec.json.encode(carrier), type=CarrierReport)
    assert again == carrier

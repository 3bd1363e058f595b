"""What the pacer measures of itself: gaps, frames a second, slow writes, starvation (TX-3, TX-5)."""

from __future__ import annotations

import attrs
import pytest

from agent.audio.pacer_metrics import SEND_SLOW_S, STALL_S, PacerMetrics


@attrs.define(eq=False)
class Bench:
    """A meter and what it reported."""

    reports: list[tuple[str, float]] = attrs.field(factory=list)
    lateness: list[float] = attrs.field(factory=list)
    meter: PacerMetrics = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.meter = PacerMetrics(
            lambda event, s: self.reports.append((event, round(s, 6))), self.lateness.append
        )

    def frames(self, times: list[float], held_ms: float = 80.0) -> None:
        """Frames at these times, while the carrier held so much."""
        for at in times:
            self.meter.frame(at, held_ms=held_ms)


def test_tx_3_fps_is_what_the_carrier_played() -> None:
    bench = Bench()
    bench.frames([index * 0.02 for index in range(101)])
    assert bench.meter.fps == pytest.approx(50)
    assert bench.meter.max_gap_s == pytest.approx(0.02)


def test_tx_3_the_lead_is_not_counted_as_speed() -> None:
    """Five frames at once, then one each 20 ms: the carrier played 50 a second, not 52."""
    bench = Bench()
    for index in range(5):
        bench.meter.frame(0.0, held_ms=index * 20)
    for index in range(1, 101):
        bench.meter.frame(index * 0.02, held_ms=80)
    assert bench.meter.fps == pytest.approx(50, abs=0.01)


def test_tx_3_a_carrier_that_ran_dry_played_less() -> None:
    bench = Bench()
    for index in range(100):
        bench.meter.frame(index * 0.04, held_ms=0)
    assert bench.meter.fps == pytest.approx(25, abs=0.3)


def test_there_is_no_fps_before_a_second_of_speech() -> None:
    bench = Bench()
    assert bench.meter.fps is None
    bench.frames([index * 0.02 for index in range(50)])
    assert bench.meter.fps is None


def test_a_pause_is_no_gap() -> None:
    bench = Bench()
    bench.frames([0.0, 0.02])
    bench.meter.pause(starved=False)
    bench.frames([10.0, 10.02])
    assert bench.meter.max_gap_s == pytest.approx(0.02)
    assert bench.reports == []


@pytest.mark.parametrize(("gap_s", "stalls"), [(STALL_S, 0), (STALL_S + 0.001, 1)])
def test_tx_5_a_gap_over_300_ms_is_a_stall(gap_s: float, stalls: int) -> None:
    bench = Bench()
    bench.frames([0.0, gap_s])
    assert bench.meter.stalls == stalls
    assert [event for event, _ in bench.reports] == ["TX_STALL"] * stalls


def test_tx_5_a_stall_is_reported_once() -> None:
    bench = Bench()
    bench.frames([0.0, 0.5, 0.52, 0.54])
    assert bench.reports == [("TX_STALL", 0.5)]


@pytest.mark.parametrize(("took_s", "slow"), [(SEND_SLOW_S, 0), (SEND_SLOW_S + 0.001, 1)])
def test_tx_5_a_write_over_50_ms_is_slow(took_s: float, slow: int) -> None:
    bench = Bench()
    bench.meter.write_took(took_s)
    assert [event for event, _ in bench.reports] == ["TX_SEND_SLOW"] * slow


def test_starvation_is_what_the_caller_did_not_hear() -> None:
    """Reported with the first frame after it, in the middle of an answer only."""
    bench = Bench()
    bench.frames([0.0])
    bench.meter.pause(starved=True)
    bench.meter.frame(1.0, held_ms=0, dry_s=0.9)
    bench.meter.pause(starved=False)
    bench.meter.frame(3.0, held_ms=0, dry_s=1.9)
    bench.meter.pause(starved=True)
    bench.meter.frame(3.05, held_ms=60, dry_s=-0.06)
    assert bench.reports == [("MODEL_STARVED", 0.9)]
    assert bench.meter.stalls == 0


def test_tx_8_the_recent_gap_is_since_it_was_asked_last() -> None:
    bench = Bench()
    bench.frames([0.0, 0.2, 0.22])
    assert bench.meter.take_recent_gap_s() == pytest.approx(0.2)
    assert bench.meter.take_recent_gap_s() == 0.0
    assert bench.meter.max_gap_s == pytest.approx(0.2)


def test_lateness_is_observed_as_it_is() -> None:
    bench = Bench()
    bench.meter.tick(0.003)
    assert bench.lateness == [0.003]

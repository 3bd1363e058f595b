"""What operators see: counters and histograms for Prometheus, in one place.

One instance per process, so that tests have their own registry. Every method is synchronous and cheap; nothing
here formats, writes or waits.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Final, TypeVar

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

LATENESS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.040, 0.060, 0.120, 0.300)
LATENCY_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.6, 2.5, 5.0)
POSTCALL_S: Final = (0.01, 0.05, 0.2, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0)
BARGE_IN_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.010, 0.020, 0.050, 0.100, 0.200)
_M = TypeVar("_M")


@attrs.define(eq=False)
class LatenessHistogram(Collector):
    """A histogram without a lock, for what is observed fifty times a second and call, on the event loop alone."""

    name: str
    text: str
    counts: list[int] = attrs.field(init=False, factory=lambda: [0] * (len(LATENESS_S) + 1))
    """Observations in each bucket, not of those below it; the last has all that were later."""
    total_s: float = attrs.field(init=False, default=0.0)

    def observe(self, late_s: float) -> None:
        """Count one."""
        self.counts[bisect_left(LATENESS_S, late_s)] += 1
        self.total_s += late_s

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See Collector."""
        bounds = [*map(str, LATENESS_S), "+Inf"]
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        yield HistogramMetricFamily(self.name, self.text, buckets=buckets, sum_value=self.total_s)


def _metric(kind: Callable[..., _M], name: str, text: str, labels: Sequence[str] = (), **more: Any) -> _M:
    """A field that has a metric of its own in the registry of its ``Telemetry``."""

    def make(telemetry: "Telemetry") -> _M:
        return kind(name, text, labels, registry=telemetry.registry, **more)

    return attrs.field(init=False, default=attrs.Factory(make, takes_self=True))


@attrs.frozen(eq=False)
class Telemetry:
    """The metrics of one process."""

    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)
    active_calls: Gauge = _metric(Gauge, "agent_active_calls", "Calls in progress")
    calls: Counter = _metric(Counter, "agent_calls", "Calls ended, by outcome", ["outcome"])
    events: Counter = _metric(
        Counter,
        "agent_events",
        "Counted events: stalls, drops, malformed messages, provider errors, refusals",
        ["event"],
    )
    frames: Counter = _metric(
        Counter, "agent_frames", "Audio frames of 20 ms, rx from callers and tx to callers", ["direction"]
    )
    frame_lateness: LatenessHistogram = attrs.field(init=False)
    barge_in_latency: Histogram = _metric(
        Histogram,
        "agent_barge_in_latency_seconds",
        "From the model's speech_started to the clear on the carrier's socket",
        buckets=BARGE_IN_S,
    )
    first_audio_latency: Histogram = _metric(
        Histogram,
        "agent_first_audio_seconds",
        "From the answer of the call to the first frame of the agent",
        buckets=LATENCY_S,
    )
    turn_latency: Histogram = _metric(
        Histogram,
        "agent_turn_latency_seconds",
        "From the end of the caller's speech to the first frame of the answer",
        buckets=LATENCY_S,
    )
    loop_gap: Histogram = _metric(
        Histogram,
        "agent_loop_gap_seconds",
        "Longest time per second in which the event loop did not run",
        buckets=LATENESS_S,
    )
    records_held: Gauge = _metric(
        Gauge,
        "agent_records_held",
        "Records of ended calls that no disk has taken yet: in memory, tried again",
    )
    browser_closes: Counter = _metric(
        Counter,
        "agent_browser_closes",
        "Connections of browsers lost in mid-call, by close code (1006: broken, or silent)",
        ["code"],
    )
    browser_reconnect: Histogram = _metric(
        Histogram,
        "agent_browser_reconnect_seconds",
        "From the loss of a browser's connection to the next one that carries its call",
        buckets=LATENCY_S,
    )
    browser_first_word: Histogram = _metric(
        Histogram,
        "agent_browser_first_word_seconds",
        "From the press of Call in a browser to the first audio there",
        buckets=LATENCY_S,
    )
    decode_cpu: Counter = _metric(
        Counter, "agent_browser_decode_cpu_seconds", "CPU time spent on decoding browsers' WebM/Opus"
    )
    decode_lag: Histogram = _metric(
        Histogram,
        "agent_browser_decode_lag_seconds",
        "From the coming of a chunk of WebM/Opus to its frames in the call",
        buckets=BARGE_IN_S,
    )

    postcall_open: Gauge = _metric(
        Gauge,
        "agent_postcall_open_calls",
        "Ended calls with post-call work left, in the whole database",
    )
    postcall_waiting: Gauge = _metric(
        Gauge,
        "agent_postcall_waiting_calls",
        "Ended calls that wait for the operator to name another model, in the whole database",
    )
    postcall_steps: Counter = _metric(
        Counter,
        "agent_postcall_steps",
        "Post-call steps tried, by step and outcome: done, failed, dead, postponed, waiting",
        ["step", "outcome"],
    )
    postcall_seconds: Histogram = _metric(
        Histogram,
        "agent_postcall_step_seconds",
        "How long a post-call step took",
        ["step"],
        buckets=POSTCALL_S,
    )

    @frame_lateness.default
    def _frame_lateness(self) -> LatenessHistogram:
        text = "How late after its deadline the pacer's tick ran"
        lateness = LatenessHistogram("agent_frame_lateness_seconds", text)
        self.registry.register(lateness)
        return lateness

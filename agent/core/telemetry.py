"""What operators see: counters and histograms for Prometheus, in one place.

One instance per process, so that tests have their own registry. Every method is synchronous and cheap; nothing
here formats, writes or waits.
"""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

LATENESS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.010, 0.015, 0.020, 0.040, 0.060, 0.120, 0.300)
LATENCY_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.6, 2.5, 5.0)
POSTCALL_S: Final = (0.01, 0.05, 0.2, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0)
BARGE_IN_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.010, 0.020, 0.050, 0.100, 0.200)


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


@attrs.frozen(eq=False)
class Telemetry:
    """The metrics of one process."""

    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)
    active_calls: Gauge = attrs.field(init=False)
    calls: Counter = attrs.field(init=False)
    events: Counter = attrs.field(init=False)
    frames: Counter = attrs.field(init=False)
    frame_lateness: LatenessHistogram = attrs.field(init=False)
    barge_in_latency: Histogram = attrs.field(init=False)
    first_audio_latency: Histogram = attrs.field(init=False)
    turn_latency: Histogram = attrs.field(init=False)
    loop_gap: Histogram = attrs.field(init=False)
    records_held: Gauge = attrs.field(init=False)
    browser_closes: Counter = attrs.field(init=False)
    browser_reconnect: Histogram = attrs.field(init=False)
    browser_first_word: Histogram = attrs.field(init=False)
    decode_cpu: Counter = attrs.field(init=False)
    decode_lag: Histogram = attrs.field(init=False)

    postcall_open: Gauge = attrs.field(init=False)
    postcall_waiting: Gauge = attrs.field(init=False)
    postcall_steps: Counter = attrs.field(init=False)
    postcall_seconds: Histogram = attrs.field(init=False)

    @active_calls.default
    def _active_calls(self) -> Gauge:
        return Gauge("agent_active_calls", "Calls in progress", registry=self.registry)

    @calls.default
    def _calls(self) -> Counter:
        return Counter("agent_calls", "Calls ended, by outcome", ["outcome"], registry=self.registry)

    @events.default
    def _events(self) -> Counter:
        text = "Counted events: stalls, drops, malformed messages, provider errors, refusals"
        return Counter("agent_events", text, ["event"], registry=self.registry)

    @frames.default
    def _frames(self) -> Counter:
        text = "Audio frames of 20 ms, rx from callers and tx to callers"
        return Counter("agent_frames", text, ["direction"], registry=self.registry)

    @frame_lateness.default
    def _frame_lateness(self) -> LatenessHistogram:
        text = "How late after its deadline the pacer's tick ran"
        lateness = LatenessHistogram("agent_frame_lateness_seconds", text)
        self.registry.register(lateness)
        return lateness

    @barge_in_latency.default
    def _barge_in_latency(self) -> Histogram:
        text = "From the model's speech_started to the clear on the carrier's socket"
        return Histogram("agent_barge_in_latency_seconds", text, buckets=BARGE_IN_S, registry=self.registry)

    @first_audio_latency.default
    def _first_audio_latency(self) -> Histogram:
        text = "From the answer of the call to the first frame of the agent"
        return Histogram("agent_first_audio_seconds", text, buckets=LATENCY_S, registry=self.registry)

    @turn_latency.default
    def _turn_latency(self) -> Histogram:
        text = "From the end of the caller's speech to the first frame of the answer"
        return Histogram("agent_turn_latency_seconds", text, buckets=LATENCY_S, registry=self.registry)

    @loop_gap.default
    def _loop_gap(self) -> Histogram:
        text = "Longest time per second in which the event loop did not run"
        return Histogram("agent_loop_gap_seconds", text, buckets=LATENESS_S, registry=self.registry)

    @records_held.default
    def _records_held(self) -> Gauge:
        text = "Records of ended calls that no disk has taken yet: in memory, tried again"
        return Gauge("agent_records_held", text, registry=self.registry)

    @browser_closes.default
    def _browser_closes(self) -> Counter:
        text = "Connections of browsers lost in mid-call, by close code (1006: broken, or silent)"
        return Counter("agent_browser_closes", text, ["code"], registry=self.registry)

    @browser_reconnect.default
    def _browser_reconnect(self) -> Histogram:
        text = "From the loss of a browser's connection to the next one that carries its call"
        return Histogram("agent_browser_reconnect_seconds", text, buckets=LATENCY_S, registry=self.registry)

    @browser_first_word.default
    def _browser_first_word(self) -> Histogram:
        text = "From the press of Call in a browser to the first audio there"
        return Histogram("agent_browser_first_word_seconds", text, buckets=LATENCY_S, registry=self.registry)

    @decode_cpu.default
    def _decode_cpu(self) -> Counter:
        text = "CPU time spent on decoding browsers' WebM/Opus"
        return Counter("agent_browser_decode_cpu_seconds", text, registry=self.registry)

    @decode_lag.default
    def _decode_lag(self) -> Histogram:
        text = "From the coming of a chunk of WebM/Opus to its frames in the call"
        return Histogram("agent_browser_decode_lag_seconds", text, buckets=BARGE_IN_S, registry=self.registry)

    @postcall_open.default
    def _postcall_open(self) -> Gauge:
        text = "Ended calls with post-call work left, in the whole database"
        return Gauge("agent_postcall_open_calls", text, registry=self.registry)

    @postcall_waiting.default
    def _postcall_waiting(self) -> Gauge:
        text = "Ended calls that wait for the operator to name another model, in the whole database"
        return Gauge("agent_postcall_waiting_calls", text, registry=self.registry)

    @postcall_steps.default
    def _postcall_steps(self) -> Counter:
        text = "Post-call steps tried, by step and outcome: done, failed, dead, postponed, waiting"
        return Counter("agent_postcall_steps", text, ["step", "outcome"], registry=self.registry)

    @postcall_seconds.default
    def _postcall_seconds(self) -> Histogram:
        text = "How long a post-call step took"
        return Histogram(
            "agent_postcall_step_seconds", text, ["step"], buckets=POSTCALL_S, registry=self.registry
        )

"""The metrics of a process: their names are what dashboards are built on."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from agent.core.telemetry import LATENESS_S, Telemetry


def test_each_instance_counts_for_itself() -> None:
    """So that tests, and processes of a load test, do not add up."""
    one, other = Telemetry(), Telemetry()
    one.events.labels(event="TX_STALL").inc()
    assert one.registry.get_sample_value("agent_events_total", {"event": "TX_STALL"}) == 1
    assert other.registry.get_sample_value("agent_events_total", {"event": "TX_STALL"}) is None


def test_the_names_that_operators_read() -> None:
    telemetry = Telemetry()
    telemetry.active_calls.inc()
    telemetry.calls.labels(outcome="caller_hung_up").inc()
    telemetry.frames.labels(direction="tx").inc(50)
    telemetry.frame_lateness.observe(0.0004)
    telemetry.barge_in_latency.observe(0.003)
    telemetry.first_audio_latency.observe(0.3)
    telemetry.turn_latency.observe(0.6)
    telemetry.loop_gap.observe(0.001)
    telemetry.postcall_open.set(3)
    telemetry.postcall_steps.labels(step="webhook", outcome="done").inc()
    telemetry.postcall_seconds.labels(step="webhook").observe(0.2)
    page = generate_latest(telemetry.registry).decode()
    for sample in (
        "agent_active_calls 1.0",
        'agent_calls_total{outcome="caller_hung_up"} 1.0',
        'agent_frames_total{direction="tx"} 50.0',
        'agent_frame_lateness_seconds_bucket{le="0.0005"} 1.0',
        'agent_barge_in_latency_seconds_bucket{le="0.005"} 1.0',
        'agent_first_audio_seconds_bucket{le="0.3"} 1.0',
        'agent_turn_latency_seconds_bucket{le="0.7"} 1.0',
        'agent_loop_gap_seconds_bucket{le="0.001"} 1.0',
        "agent_postcall_open_calls 3.0",
        'agent_postcall_steps_total{outcome="done",step="webhook"} 1.0',
        'agent_postcall_step_seconds_count{step="webhook"} 1.0',
    ):
        assert sample in page


def test_lateness_is_shown_as_any_histogram_is() -> None:
    """The light one and Prometheus's own have the same page, at the bounds too."""
    registry, own = CollectorRegistry(), Telemetry()
    text = "How late after its deadline the pacer's tick ran"
    theirs = Histogram("agent_frame_lateness_seconds", text, buckets=LATENESS_S, registry=registry)
    for late_s in (0.0, -0.001, *LATENESS_S, 0.0011, 0.5, 100.0):
        theirs.observe(late_s)
        own.frame_lateness.observe(late_s)
    pages = [generate_latest(each).decode().splitlines() for each in (registry, own.registry)]
    shown = [{line for line in page if "lateness" in line and "_created" not in line} for page in pages]
    assert shown[0] == shown[1]

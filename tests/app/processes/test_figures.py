"""The figures of several processes, shown as one's."""

from prometheus_client import generate_latest

from agent.app.processes.figures import add_up, without_gauges
from agent.core.telemetry import Telemetry


def figures(telemetry: Telemetry) -> str:
    return generate_latest(telemetry.registry).decode()


def busy(calls: int) -> Telemetry:
    telemetry = Telemetry()
    telemetry.active_calls.set(calls)
    telemetry.calls.labels(outcome='of "two\nlines"').inc(calls)
    telemetry.frame_lateness.observe(0.004)
    telemetry.turn_latency.observe(0.1 * calls)
    return telemetry


def test_one_process_shows_what_it_always_did() -> None:
    text = figures(busy(3))
    assert sorted(add_up([text]).splitlines()) == sorted(text.splitlines())


def test_calls_events_and_buckets_are_added_up() -> None:
    text = add_up([figures(busy(1)), "", figures(busy(3))])
    for line in (
        "agent_active_calls 4.0",
        'agent_calls_total{outcome="of \\"two\\nlines\\""} 4.0',
        'agent_frame_lateness_seconds_bucket{le="0.005"} 2.0',
        'agent_frame_lateness_seconds_bucket{le="0.002"} 0.0',
        "agent_turn_latency_seconds_count 2.0",
        'agent_turn_latency_seconds_bucket{le="0.2"} 1.0',
    ):
        assert line in text.splitlines()
    assert text.count("# TYPE agent_calls_total counter") == 1


def test_a_counter_began_when_the_first_of_them_did() -> None:
    first, second = ("# TYPE a_created gauge\na_created 10.0\n", "# TYPE a_created gauge\na_created 20.0\n")
    assert "a_created 10.0" in add_up([first, second])


def test_of_a_process_that_is_gone_what_it_counted_stays() -> None:
    """Else a sum would fall, which Prometheus takes for a restart, and counts all of it again."""
    text = add_up([without_gauges(figures(busy(2))), figures(busy(1))])
    assert "agent_active_calls 1.0" in text.splitlines()
    assert "agent_turn_latency_seconds_count 2.0" in text.splitlines()

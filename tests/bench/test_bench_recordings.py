"""What ``python -m bench recordings`` reads of a server, and says of it."""

import pytest
from prometheus_client import generate_latest

from agent.core.telemetry import Telemetry
from bench.parts.recordings.browsers import over_and_over, record
from bench.parts.recordings.order import CHUNK_S, LOOP_MS, BrowserReport
from bench.parts.recordings.rows import Figures, read_metrics, recording_rows


def figures(*, late: int = 0, decode_ms: float = 2.0, closed: list[str] | None = None) -> Figures:
    report = BrowserReport(frames=100_000, gap_ms=30.0, closed=closed or [], late_ms=1.0)
    return Figures(
        calls=100,
        seconds=20.0,
        decode_ms=decode_ms,
        server_share=0.6,
        chunks=7700,
        late=late,
        lag_ms=2.0,
        memory_kb=200.0,
        report=report,
    )


def test_the_servers_metrics_are_read() -> None:
    """By the names and the buckets that it really has (WB-8)."""
    telemetry = Telemetry()
    for lag_s in (0.002, 0.02, 0.15):
        telemetry.decode_cpu.inc(0.001)
        telemetry.decode_lag.observe(lag_s)
    decoded = read_metrics(generate_latest(telemetry.registry).decode())
    assert (decoded.chunks, decoded.in_time) == (3, 2)
    assert decoded.cpu_s == pytest.approx(0.003)
    assert decoded.lag_s == pytest.approx(0.172)


@pytest.mark.parametrize(
    ("seen", "missed"),
    [
        (figures(), []),
        (figures(late=1), ["behind"]),
        (figures(decode_ms=5.1), ["CPU"]),
        (figures(closed=["4413 more audio than time"]), ["lasted"]),
    ],
)
def test_what_must_be(seen: Figures, missed: list[str]) -> None:
    rows = [row for row in recording_rows(seen) if row.ok is False]
    assert len(rows) == len(missed)
    assert all(word in row.what for word, row in zip(missed, rows, strict=True))


def test_what_the_browsers_say() -> None:
    """In real time; the header comes once."""
    chunks = record()
    assert len(chunks) == pytest.approx(LOOP_MS / 1000 / CHUNK_S, abs=1)
    said = over_and_over(chunks)
    twice = [next(said) for _ in range(2 * len(chunks))]
    assert [chunk.startswith(b"\x1a\x45\xdf\xa3") for chunk in twice].count(True) == 1
    assert twice[: len(chunks)] == chunks

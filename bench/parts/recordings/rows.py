"""A hundred browsers in low bandwidth, one server, one core: what decoding costs, and if it keeps up (WB-8)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import httpx
import msgspec
import trio
from prometheus_client.parser import text_string_to_metric_families

from bench.parts.recordings.order import CHUNK_S, BrowserOrder, BrowserReport
from bench.reporting.table import Row
from bench.rig.players import ANSWER_S, open_server, until, until_ready, window_of
from bench.rig.processes import BenchError, Child, Say, cores, moved_to, open_child

LAG_S: Final = 0.1
CPU_MS: Final = 5.0
MEMORY_KB: Final = 400.0
OPERATOR: Final = "operator"
REST_S: Final = 1.0


@attrs.frozen(kw_only=True)
class Decoded:
    """The server's metrics at a moment: since its start."""

    cpu_s: float
    chunks: float
    in_time: float
    """Chunks whose frames were in their call within LAG_S."""
    lag_s: float
    """Of all chunks together."""


@attrs.frozen(kw_only=True)
class Figures:
    """Of one run."""

    calls: int
    seconds: float
    decode_ms: float
    """CPU time of decoding a second of one call."""
    server_share: float
    """Of a core, that the server used."""
    chunks: int
    late: int
    """Chunks that were decoded later than LAG_S."""
    lag_ms: float
    """Mean."""
    memory_kb: float
    """Of the server per call that lasted."""
    report: BrowserReport


def run_recordings(calls: int, seconds: float, folder: Path, say: Say) -> list[Row]:
    """One run, as rows. Raises BenchError."""
    server_core, load_core = cores() or (None, None)
    with moved_to(load_core):
        figures = trio.run(_run, calls, seconds, folder, server_core, load_core)
    say(f"{figures.report.frames} frames of the agent's, its longest gap {figures.report.gap_ms:.0f} ms")
    say(f"the load itself was {figures.report.late_ms:.1f} ms late (p99)")
    return recording_rows(figures)


def recording_rows(figures: Figures) -> list[Row]:
    """What must be, and what was."""
    who = f"{figures.calls} browsers sending WebM/Opus, one core"
    closed = figures.report.closed
    lasted = figures.calls - len(closed)
    return [
        Row(
            f"{who}: decoder behind by more than {LAG_S * 1000:.0f} ms",
            "never",
            f"{figures.late} of {figures.chunks} chunks; {figures.lag_ms:.1f} ms on average",
            figures.late == 0 and figures.chunks > 0,
        ),
        Row(
            f"{who}: CPU of decoding per call-second",
            f"<= {CPU_MS:.0f} ms",
            f"{figures.decode_ms:.2f} ms; the server {figures.server_share:.0%} of the core",
            figures.decode_ms <= CPU_MS,
        ),
        Row(
            f"{who}: calls that lasted",
            "all",
            f"{lasted}{f' ({closed[0]})' if closed else ''}",
            not closed,
        ),
        Row(f"{who}: memory per call", "", f"{figures.memory_kb:.0f} KB"),
    ]


async def _run(
    calls: int, seconds: float, folder: Path, server_core: int | None, load_core: int | None
) -> Figures:
    async with open_child(
        "model", ["-m", "bench.parts.recordings.model"], core=load_core, folder=folder
    ) as model:
        with trio.fail_after(ANSWER_S):
            model_url = msgspec.json.decode(await model.line(), type=str)
        settings = {
            "AGENT_HOST": "127.0.0.1",
            "AGENT_ADMIN_PORT": "0",
            "AGENT_ADMIN_TOKEN": OPERATOR,
            "AGENT_DATA_DIR": str(folder / "data"),
            "AGENT_DRAIN_S": "0",
            "AGENT_LOG_FORMAT": "json",
            "AGENT_MAX_CALLS": str(calls + 1),
            "AGENT_WORKER": "0",
            "OPENAI_API_KEY": "none",
            "OPENAI_REALTIME_URL": model_url,
        }
        async with open_server(folder, server_core, settings) as server:
            url = await until_ready(server)
            # One call first, so that everything is loaded.
            await _phone(
                BrowserOrder(url=url, result=str(folder / "first"), calls=1, seconds=1), folder, load_core
            )
            await trio.sleep(REST_S)
            idle_bytes = server.rss_bytes()
            order = BrowserOrder(url=url, result=str(folder / "report"), calls=calls, seconds=seconds)
            return await _measure(server, order, folder, load_core, idle_bytes)


async def _phone(order: BrowserOrder, folder: Path, core: int | None) -> None:
    arguments = ["-m", "bench.parts.recordings.browsers", msgspec.json.encode(order).decode()]
    async with open_child("browsers", arguments, core=core, folder=folder) as browsers:
        await browsers.until_done()


async def _measure(
    server: Child, order: BrowserOrder, folder: Path, core: int | None, idle_bytes: int
) -> Figures:
    arguments = ["-m", "bench.parts.recordings.browsers", msgspec.json.encode(order).decode()]
    async with open_child("browsers", arguments, core=core, folder=folder) as browsers:
        window = await window_of(browsers)
        await until(window.begin_s)
        cpu_s, before = server.cpu_s(), await _decoded(order.url)
        await until(window.end_s - 0.2)
        after, rss_bytes = await _decoded(order.url), server.rss_bytes()
        cpu_s = server.cpu_s() - cpu_s
        await browsers.until_done()
    report = msgspec.msgpack.decode(await trio.Path(order.result).read_bytes(), type=BrowserReport)
    chunks = after.chunks - before.chunks
    if not chunks:
        raise BenchError(f"nothing was decoded: {report.closed[:1] or server.last_words()}")
    return Figures(
        calls=order.calls,
        seconds=order.seconds,
        decode_ms=(after.cpu_s - before.cpu_s) * 1000 / (chunks * CHUNK_S),
        server_share=cpu_s / order.seconds,
        chunks=round(chunks),
        late=round(chunks - (after.in_time - before.in_time)),
        lag_ms=(after.lag_s - before.lag_s) * 1000 / chunks,
        memory_kb=(rss_bytes - idle_bytes) / 1024 / max(order.calls - len(report.closed), 1),
        report=report,
    )


async def _decoded(url: str) -> Decoded:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"{url}/metrics", headers={"Authorization": f"Bearer {OPERATOR}"})
        return read_metrics(answer.raise_for_status().text)
    except httpx.HTTPError as error:
        raise BenchError(f"the server's metrics cannot be read: {error or type(error).__name__}") from None


def read_metrics(text: str) -> Decoded:
    """What the server tells Prometheus of decoding."""
    samples = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("agent_browser_decode_")
    }
    return Decoded(
        cpu_s=samples["agent_browser_decode_cpu_seconds_total", ""],
        chunks=samples["agent_browser_decode_lag_seconds_count", ""],
        in_time=samples["agent_browser_decode_lag_seconds_bucket", str(LAG_S)],
        lag_s=samples["agent_browser_decode_lag_seconds_sum", ""],
    )

"""The demo's latency: from the end of the caller's speech to the agent's first audio, on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import trio

from agent.core.errors import LocalModelMissingError
from bench.rig.processes import BenchError, open_child

DEMO_S: Final = 240.0
"""The demo call takes 40 s; on a busy machine loading the embedded model takes long."""


class _Carrier(msgspec.Struct):
    median_latency_ms: float | None = None
    latencies_ms: list[float] = []


class _Call(msgspec.Struct):
    carrier: _Carrier


async def measure_demo(folder: Path) -> tuple[float, int]:
    """Run ``call-agent demo``; returns the median in milliseconds, and of how many answers.

    Raises BenchError when it cannot run, with the reason, and trio.TooSlowError.
    """
    try:
        from agent.local.process import check_installed  # noqa: PLC0415  (an extra)

        check_installed()
    except (ImportError, LocalModelMissingError) as error:
        raise BenchError(f"the [local] extra is missing ({error})") from None
    out = folder / "demo"
    with trio.fail_after(DEMO_S):
        arguments = ["-m", "agent", "demo", "--out", str(out)]
        async with open_child("demo", arguments, core=None, folder=folder) as demo:
            await demo.until_done()
    call = msgspec.json.decode((out / "call.json").read_bytes(), type=_Call).carrier
    if call.median_latency_ms is None:
        raise BenchError("the demo measured no answer")
    return call.median_latency_ms, len(call.latencies_ms)

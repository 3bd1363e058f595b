"""Many simulated calls at once from one process, and what the carrier saw of them."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs
import httpx
import trio

from agent.core.errors import AgentError
from agent.core.units import BYTES_PER_MS
from agent.sim.carrier.arrivals import GAP_LIMIT_S, Histogram
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.sounds import Utterance
from agent.sim.ticker import Ticker

_SHOWN: Final = (50, 99, 99.9)
PHASES: Final = 10
"""Streams tick in ten groups, 2 ms apart: real calls are not in step."""
Connect = Callable[[int, Ticker], AbstractAsyncContextManager[SimulatedStream]]
"""Opens the call with this number (counted from 0) on the shared ticker."""


@attrs.define(eq=False, kw_only=True)
class LoadReport:
    """What the carrier saw of all calls together."""

    calls: int
    failures: Counter[str] = attrs.field(factory=Counter)
    """Calls that failed, by reason."""
    streams: list[SimulatedStream] = attrs.field(factory=list)
    ended_early: int = 0
    """Calls that the agent ended."""
    ticker: Ticker

    @property
    def underruns(self) -> int:
        """How often playback ran dry inside a talk spurt."""
        return sum(len(stream.playback.underruns) for stream in self.streams)

    def rows(self) -> list[tuple[str, str]]:
        """The figures by name, for people."""
        gaps = Histogram.merged(stream.arrivals.gaps for stream in self.streams)
        lateness = Histogram.merged(stream.arrivals.lateness for stream in self.streams)
        heard_s = sum(stream.playback.played_bytes for stream in self.streams) / BYTES_PER_MS / 1000
        long_gaps = sum(stream.arrivals.long_gaps for stream in self.streams)
        clears = sum(stream.counts["tx clear"] for stream in self.streams)
        errors = sum(len(stream.protocol_errors) for stream in self.streams)
        return [
            ("calls connected / wanted", f"{len(self.streams)} / {self.calls}"),
            ("calls ended by the agent", str(self.ended_early)),
            ("agent audio heard", f"{heard_s:.1f} s in {lateness.total} messages"),
            ("underruns", str(self.underruns)),
            ("longest gap in a talk spurt", f"{_ms(gaps.max_s)} ms ({long_gaps} over {_ms(GAP_LIMIT_S)} ms)"),
            ("lateness p50 / p99 / p99.9", " / ".join(_ms(lateness.percentile_s(p)) for p in _SHOWN) + " ms"),
            ("clears", str(clears)),
            ("protocol errors of the agent", str(errors)),
            ("our own worst tick", f"{_ms(self.ticker.max_late_s)} ms late"),
        ]


def _ms(value_s: float) -> str:
    return f"{value_s * 1000:.1f}"


async def run_calls(
    connect: Connect,
    *,
    calls: int,
    duration_s: float,
    speech: Utterance,
    every_s: float,
    spread_s: float = 1.0,
) -> LoadReport:
    """Make ``calls`` calls, begun over ``spread_s``, each ``duration_s`` long, and report.

    Every ``every_s`` each caller says ``speech``, whether the agent speaks or not. A call that fails is
    counted, the others go on. A cancel hangs up on all.
    """
    ticker = Ticker(PHASES)
    report = LoadReport(calls=calls, ticker=ticker)

    async def call(index: int) -> None:
        await trio.sleep(spread_s * index / calls)
        try:
            async with connect(index, ticker) as stream:
                report.streams.append(stream)
                with trio.move_on_after(duration_s):
                    await _talk(stream, speech, every_s * (1 + index / calls), every_s)
                report.ended_early += stream.is_closed
        except (AgentError, httpx.HTTPError, OSError, trio.TooSlowError) as error:
            report.failures[str(error) or type(error).__name__] += 1

    async with trio.open_nursery() as clock:
        clock.start_soon(ticker.run)
        async with trio.open_nursery() as nursery:
            for index in range(calls):
                nursery.start_soon(call, index)
        clock.cancel_scope.cancel(reason="all calls are over")
    return report


async def _talk(stream: SimulatedStream, speech: Utterance, first_s: float, every_s: float) -> None:
    """Speak now and then until the stream is closed."""
    pause_s = first_s
    while not stream.is_closed:
        with trio.move_on_after(pause_s):
            await stream.until_closed()
        stream.say(speech)
        pause_s = every_s

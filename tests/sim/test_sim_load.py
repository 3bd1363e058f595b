"""Many simulated calls in one process, and the simulators from the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from agent.carrier.media_stream import OutboundEncoder, decode_message
from agent.core.caller_leg import Media
from agent.core.errors import SocketClosedError
from agent.core.units import StreamSid
from agent.sim.carrier.load import run_calls
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.memory import open_memory_sockets
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.sim.sounds import Utterance, tone
from agent.sim.ticker import Ticker
from agent.wire.websocket import TrioWebSocket, open_client

SIM = [sys.executable, "-m", "agent.sim"]


async def echo(socket: TrioWebSocket, stream_sid: str, *, frames: int) -> None:
    """An agent that says back what it hears, and closes after so many frames."""
    encoder = OutboundEncoder(StreamSid(stream_sid))
    try:
        while frames:
            message = decode_message(await socket.receive())
            if isinstance(message, Media):
                await socket.send(encoder.media(message.audio))
                frames -= 1
    except SocketClosedError:
        return
    await socket.aclose()


async def test_a_load_reports_what_the_carrier_saw(autojump_clock: MockClock) -> None:
    """Calls that fail and calls that the agent ends are told from those that last."""

    @asynccontextmanager
    async def connect(index: int, ticker: Ticker) -> AsyncIterator[SimulatedStream]:
        if index == 0:
            raise OSError("connection refused")
        async with open_memory_sockets() as (carrier_end, agent_end), trio.open_nursery() as nursery:
            nursery.start_soon(partial(echo, agent_end, "MZ1", frames=50 if index == 1 else 1000))
            async with open_simulated_stream(
                carrier_end, call_sid="CA1", stream_sid="MZ1", ticker=ticker, record=False
            ) as stream:
                yield stream

    speech = Utterance(tone(200))
    report = await run_calls(connect, calls=5, duration_s=4.0, speech=speech, every_s=1.0)
    assert report.failures == {"connection refused": 1}
    assert report.ended_early == 1
    assert report.underruns == 0
    rows = dict(report.rows())
    assert rows["calls connected / wanted"] == "4 / 5"
    assert rows["longest gap in a talk spurt"] == "20.0 ms (0 over 60.0 ms)"
    assert rows["our own worst tick"] == "0.0 ms late"
    assert all(stream.arrivals.messages in (50, 200, 201) for stream in report.streams)


@pytest.mark.sockets
async def test_the_carrier_command_phones_and_says_what_it_heard() -> None:
    """Exit status 0 when all calls went well, 1 with the reason when none connects."""
    command = [*SIM, "carrier", "--seconds", "1", "--calls", "2", "--every", "0.5"]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            model_url = await nursery.start(serve_realtime, 0, ScriptedRealtime)
            finished = await trio.run_process(
                [*command, "--url", model_url.replace("/v1/realtime", "/media-stream")],
                capture_stdout=True,
                check=False,
            )
            nursery.cancel_scope.cancel()
        assert b"calls connected / wanted         2 / 2" in finished.stdout
        refused = [
            await trio.run_process(
                [*command, "--url", url], capture_stdout=True, capture_stderr=True, check=False
            )
            for url in ("ws://127.0.0.1:1/media-stream", "http://127.0.0.1:1")
        ]
    assert finished.returncode == 0
    assert [process.returncode for process in refused] == [1, 1]
    assert all(b"2 calls failed" in process.stderr for process in refused)
    assert all(b"Traceback" not in process.stderr for process in refused)


@pytest.mark.sockets
async def test_the_realtime_command_serves_until_it_is_stopped() -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, [*SIM, "realtime", "--port", "0"], stdout=subprocess.PIPE)
            process = await nursery.start(start)
            assert process.stdout is not None
            line = (await process.stdout.receive_some()).decode()
            url = line.split(" at ")[1].split()[0]
            async with open_client(f"{url}?model=scripted") as socket:
                assert "session.created" in str(await socket.receive())
                taken = await trio.run_process(
                    [*SIM, "realtime", "--port", url.split(":")[2].split("/")[0]],
                    capture_stderr=True,
                    check=False,
                )
                assert taken.returncode == 1
                assert b"Cannot listen" in taken.stderr
            process.send_signal(signal.SIGTERM)
            await process.stdout.aclose()
    assert process.returncode == 0

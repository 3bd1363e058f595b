"""The simulators from the command line: ``python -m agent.sim --help``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import trio
import typer

from agent.sim.calling import place_call
from agent.sim.carrier import SimulatedStream, open_simulated_stream
from agent.sim.load import LoadReport, run_calls
from agent.sim.realtime import ScriptedRealtime, serve_realtime
from agent.sim.script import Answer
from agent.sim.sounds import Utterance, tone
from agent.sim.ticker import Ticker
from agent.websocket import open_client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stand-ins for an agent's two neighbours: the model it asks and the carrier that phones it.",
)


@app.command()
def realtime(
    port: Annotated[int, typer.Option(help="Port to listen on, on 127.0.0.1; 0 takes a free one.")] = 9001,
    answer_ms: Annotated[int, typer.Option(help="Length of each answer, in milliseconds of audio.")] = 4000,
    speed: Annotated[float, typer.Option(help="Answers come this many times faster than they play.")] = 4.0,
    first_delta_ms: Annotated[int, typer.Option(help="Milliseconds until an answer's first audio.")] = 200,
    vad_dbfs: Annotated[float, typer.Option(help="Caller audio louder than this is speech.")] = -40.0,
) -> None:
    """Be a speech-to-speech model: an OpenAI Realtime server that answers whenever the caller stops speaking.

    Point an agent at it:

        OPENAI_REALTIME_URL=ws://127.0.0.1:9001/v1/realtime OPENAI_API_KEY=none call-agent serve
    """
    answer = Answer("This is a simulated answer.", tone(answer_ms), speed=speed, first_delta_ms=first_delta_ms)

    def one_model() -> ScriptedRealtime:
        return ScriptedRealtime(default=answer, vad_dbfs=vad_dbfs, record=False)

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                url = await nursery.start(serve_realtime, port, one_model)
                typer.echo(f"Simulated model at {url} (Ctrl-C ends it)")
                async for _ in signals:
                    nursery.cancel_scope.cancel(reason="asked to stop")

    try:
        trio.run(main)
    except* OSError as failed:
        typer.echo(f"Cannot listen on port {port}: {failed.exceptions[0]}", err=True)
        sys.exit(1)


@app.command()
def carrier(
    url: Annotated[
        str,
        typer.Option(
            help="ws://host:port/media-stream opens media streams only (the agent must run with "
            "AGENT_ALLOW_UNSIGNED=1); http://host:port calls as Twilio does, webhook first."
        ),
    ],
    calls: Annotated[int, typer.Option(min=1, help="How many calls at once.")] = 1,
    seconds: Annotated[float, typer.Option(min=1, help="How long each call lasts.")] = 20.0,
    every: Annotated[float, typer.Option(min=0.5, help="Each caller speaks every so many seconds.")] = 7.5,
    speech_ms: Annotated[int, typer.Option(min=20, help="For how long a caller speaks.")] = 800,
) -> None:
    """Phone an agent with simulated callers and print what they heard: gaps, lateness, underruns.

    TWILIO_AUTH_TOKEN signs the requests when it is set. Exit status 1: a call failed, or playback ran dry.
    """
    token = os.environ.get("TWILIO_AUTH_TOKEN") or None

    @asynccontextmanager
    async def connect(index: int, ticker: Ticker) -> AsyncIterator[SimulatedStream]:
        number = f"+1555{index:07d}"
        if url.startswith("http"):
            calling = place_call(url, number, "+15550000000", auth_token=token, ticker=ticker, record=False)
            async with calling as stream:
                yield stream
            return
        async with (
            open_client(url) as socket,
            open_simulated_stream(
                socket, call_sid=f"CA{index:032x}", stream_sid=f"MZ{index:032x}", ticker=ticker, record=False
            ) as stream,
        ):
            yield stream

    async def main() -> LoadReport:
        speech = Utterance(tone(speech_ms))
        return await run_calls(connect, calls=calls, duration_s=seconds, speech=speech, every_s=every)

    report = trio.run(main)
    for name, value in report.rows():
        typer.echo(f"{name:32} {value}")
    for reason, count in report.failures.most_common():
        typer.echo(f"{count} calls failed: {reason}", err=True)
    raise typer.Exit(1 if report.failures or report.underruns else 0)


if __name__ == "__main__":
    app(prog_name="python -m agent.sim")

"""The simulators from the command line: ``python -m agent.sim --help``."""

import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import trio
import typer

from agent.core.errors import first_error
from agent.sim.carrier.dialling import place_call
from agent.sim.carrier.load import LoadReport, run_calls
from agent.sim.carrier.network import network_of
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.model.rest import OpenAiRest
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.sim.profile import Profile, ProfileName
from agent.sim.serving import serve_app
from agent.sim.sounds import Utterance, tone
from agent.sim.ticker import Ticker
from agent.sim.webhook_receiver import WebhookReceiver
from agent.wire.websocket import open_client

_Profile = Annotated[
    ProfileName,
    typer.Option(help="kind: only what is asked for goes wrong; real: what was seen of the real services."),
]
_Seed = Annotated[int, typer.Option(help="With --profile real: the same number, the same chance.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Stand-ins for an agent's neighbours: models, carrier, and its tenants' servers.",
)


@app.command()
def realtime(
    *,
    port: Annotated[int, typer.Option(help="Port to listen on, on 127.0.0.1; 0 takes a free one.")] = 9001,
    answer_ms: Annotated[int, typer.Option(help="Length of each answer, in milliseconds of audio.")] = 4000,
    speed: Annotated[float, typer.Option(help="Answers come this many times faster than they play.")] = 4.0,
    first_delta_ms: Annotated[int, typer.Option(help="Milliseconds until an answer's first audio.")] = 200,
    vad_dbfs: Annotated[float, typer.Option(help="Caller audio louder than this is speech.")] = -40.0,
    profile: _Profile = "kind",
    seed: _Seed = 0,
) -> None:
    """Be a speech-to-speech model: an OpenAI Realtime server that answers whenever the caller stops speaking.

    Point an agent at it:

        OPENAI_REALTIME_URL=ws://127.0.0.1:9001/v1/realtime OPENAI_API_KEY=none call-agent serve
    """
    answer = Answer("This is a simulated answer.", tone(answer_ms), speed=speed, first_delta_ms=first_delta_ms)

    calls = itertools.count()

    def one_model() -> ScriptedRealtime:
        world = Profile(profile, seed + next(calls))
        return ScriptedRealtime(default=answer, vad_dbfs=vad_dbfs, record=False, profile=world)

    _serve(partial(serve_realtime, port, one_model), "model", port)


@app.command()
def openai_rest(
    port: Annotated[int, typer.Option(help="Port to listen on, on 127.0.0.1; 0 takes a free one.")] = 9002,
    delay_ms: Annotated[int, typer.Option(min=0, help="Milliseconds until each answer.")] = 200,
) -> None:
    """Be OpenAI's REST API for what is done after a call: summary, particulars, transcription.

    Point an agent or a worker at it; GET /counts tells how often it was asked:

        OPENAI_BASE_URL=http://127.0.0.1:9002/v1 OPENAI_API_KEY=none call-agent worker
    """
    api = OpenAiRest(delay_s=delay_ms / 1000, record=False)
    _serve(partial(serve_app, api.make_app(), port), "OpenAI REST API", port)


@app.command()
def webhook_receiver(
    port: Annotated[int, typer.Option(help="Port to listen on, on 127.0.0.1; 0 takes a free one.")] = 9003,
    secret: Annotated[str, typer.Option(help="The tenant's webhook secret.")] = "whsec_test",  # noqa: S107 - for tests
    fail_every: Annotated[int, typer.Option(min=0, help="Answer every N-th request with 500; 0: none.")] = 0,
) -> None:
    """Be a tenant's server that receives call.completed; GET /received tells what came, by idempotency key.

    The agent must run with AGENT_ALLOW_INWARD_WEBHOOKS=1, its tenant have webhook_url http://127.0.0.1:9003/calls.
    """
    receiver = WebhookReceiver(secret, fail_every=fail_every)
    _serve(partial(serve_app, receiver.make_app(), port), "webhook receiver", port)


def _serve(serve: Callable[..., Awaitable[Any]], what: str, port: int) -> None:
    """Run a service that starts with its URL, until SIGINT or SIGTERM."""

    async def main() -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                url = await nursery.start(serve)
                typer.echo(f"Simulated {what} at {url} (Ctrl-C ends it)")
                async for _ in signals:
                    nursery.cancel_scope.cancel(reason="asked to stop")

    failed = None
    try:
        trio.run(main)
    except* OSError as group:
        failed = first_error(group)
    if failed is not None:
        typer.echo(f"Cannot listen on port {port}: {failed}", err=True)
        sys.exit(1)


@app.command()
def carrier(
    *,
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
    profile: _Profile = "kind",
    seed: _Seed = 0,
) -> None:
    """Phone an agent with simulated callers and print what they heard: gaps, lateness, underruns.

    TWILIO_AUTH_TOKEN signs the requests when it is set. Exit status 1: a call failed, or playback ran dry.
    """
    token = os.environ.get("TWILIO_AUTH_TOKEN") or None

    @asynccontextmanager
    async def connect(index: int, ticker: Ticker) -> AsyncIterator[SimulatedStream]:
        number, line = f"+1555{index:07d}", network_of(Profile(profile, seed + index))
        options: dict[str, Any] = {"ticker": ticker, "network": line, "record": False}
        if url.startswith("http"):
            async with place_call(url, number, "+15550000000", auth_token=token, **options) as stream:
                yield stream
            return
        async with (
            open_client(url) as socket,
            open_simulated_stream(
                socket, call_sid=f"CA{index:032x}", stream_sid=f"MZ{index:032x}", **options
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

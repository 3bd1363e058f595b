"""The command line of ``call-agent demo``."""

import shlex
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import attrs
import trio
import typer
from rich.console import Console
from rich.text import Text

from agent.app.cli.calls.view import tell_call
from agent.app.demo.agent_process import DATA
from agent.app.demo.checks import broken
from agent.app.demo.progress import open_progress
from agent.app.demo.report import tell_checks, tell_metrics
from agent.app.demo.run import Demo, run_demo

_FAILED: Final = 1
_SIGNALLED: Final = 128
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.define(eq=False)
class _Run:
    """What became of the demo: at most one of them is set."""

    demo: Demo | None = None
    signal: int = 0


app: Final = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def command(
    *,
    caller: Annotated[
        Path | None,
        typer.Option(metavar="WAV", help="Phone with your own recording: any PCM WAV, English speech."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the call's files go.")] = Path("demo-call"),
) -> None:
    """Phone the agent on this machine, no key needed, and see what was heard of it.

    A simulated caller interrupts the greeting and one answer, asks two questions, gives a name and a city and
    says goodbye; the agent hangs up. Then the recording is fetched and written down, the call summarised, a lead
    made and its webhook delivered, all on this machine; the report ends with **call-agent calls show**.

    Leaves call.wav (stereo: caller left, agent right, as heard), timeline.png and call.json. Exit status 1: the
    call, or what came after it, broke a requirement.
    """
    console = Console(highlight=False, soft_wrap=False)
    run = trio.run(_run, caller, out, console)
    if run.signal:
        raise typer.Exit(_SIGNALLED + run.signal)
    if run.demo is not None:
        tell(console, run.demo)


async def _run(caller: Path | None, out: Path, console: Console) -> _Run:
    """Run the demo until it is done or a signal ends it. Raises what ``run_demo`` does, in groups."""
    run = _Run()
    with trio.open_signal_receiver(*_ENDING) as signals:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                async for number in signals:
                    run.signal = number
                    nursery.cancel_scope.cancel(reason=signal.Signals(number).name)

            nursery.start_soon(stop)
            with open_progress(console) as progress:
                run.demo = await run_demo(caller, out, progress)
            nursery.cancel_scope.cancel(reason="the demo is over")
    return run


def tell(console: Console, demo: Demo) -> None:
    """Print the report of a call. Raises typer.Exit(1), the reason told, if the call broke a requirement."""
    console.print()
    console.print(tell_metrics(demo.record.metrics, demo.seen))
    console.print()
    console.print(tell_checks(demo.checks))
    console.print()
    for path, what in (
        (demo.files.wav, "stereo: caller left, agent right, as heard"),
        (demo.files.picture, "who spoke when, what was heard, where it was interrupted"),
        (demo.files.json, "the record, what the carrier saw, the checks"),
    ):
        console.print(Text(f"{path}  ").append(what, "dim"), soft_wrap=True)
    console.print()
    data_dir = shlex.quote(str(demo.files.json.parent / DATA))
    shows = f"AGENT_DATA_DIR={data_dir} call-agent calls show {demo.after.line.id}"
    console.print(Text(f"$ {shows}", "dim"), soft_wrap=True)
    console.print(tell_call(demo.after, datetime.now(UTC)))
    if reason := broken(demo.checks):
        typer.echo(f"call-agent: the call broke a requirement: {reason}", err=True)
        raise typer.Exit(_FAILED)

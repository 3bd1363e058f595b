"""The command line. What a command needs is imported when it runs, so ``--help`` answers at once."""

import importlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Never

import trio
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agent.app.cli.errors import FAILED, errors_in_one_sentence
from agent.core.settings import load_settings

app = typer.Typer(
    name="call-agent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A phone agent: it answers a Twilio number with a speech-to-speech model, and can be interrupted.\n\n"
    "Without any key, **call-agent demo** phones it on this machine. With OPENAI_API_KEY and a Twilio "
    "number, **call-agent serve** answers real calls; **call-agent doctor** says what is missing.\n\n"
    "Everything is set by environment variables or a .env file; docs/settings.md has the table.",
)

_ELSEWHERE: Final[dict[str, Any]] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
}
"""For commands whose options live in a package of their own, which is imported only when they run."""


@app.command()
def serve(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    public_url: Annotated[str | None, typer.Option(help="https URL by which Twilio reaches this server.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Directory of the call records.")] = None,
) -> None:
    """Answer calls until SIGTERM or Ctrl-C.

    Ready when /readyz answers 200. Point the voice webhook of a Twilio number at POST /voice/incoming. At the
    first signal running calls may go on (AGENT_DRAIN_S); the second ends them. With AGENT_PROCESSES, SIGHUP
    starts new processes for all new calls, and the old ones stay until their last call has ended.
    """
    with errors_in_one_sentence():
        given = {"port": port, "host": host, "public_url": public_url, "data_dir": data_dir}
        settings = load_settings(**given)
        if settings.processes == 1:
            trio.run(_imported("agent.app.server").serve, settings)
        else:
            trio.run(_imported("agent.app.processes.parent").supervise, settings, given)


@app.command()
def talk(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = None,
    *,
    opens: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Phone the agent from a browser on this machine; no key needed.

    As **call-agent serve**, but nobody else reaches it.
    """
    with errors_in_one_sentence():
        settings = load_settings(port=port, host="127.0.0.1", browser=True, public_url="")
        trio.run(partial(_imported("agent.app.talk").talk, settings, opens=opens))


@app.command()
def worker(
    calls: Annotated[
        int | None, typer.Option(min=1, max=100, help="Calls worked on at the same time (AGENT_WORKER_CALLS).")
    ] = None,
) -> None:
    """Do what comes after calls, in a process of its own, until SIGTERM or Ctrl-C.

    Recording, transcription, summary, extraction, lead and webhook of every call in the database (DATABASE_URL,
    or the embedded one of AGENT_DATA_DIR). Any number of workers, on any number of machines, share the work: each
    call is taken by one, and a worker that dies gives its calls back at once. **call-agent serve** has one
    inside; AGENT_WORKER=0 there leaves the work to these.
    """
    with errors_in_one_sentence():
        settings = load_settings(worker_calls=calls)
        trio.run(_imported("agent.pipeline.worker_process").work, settings)


@app.command()
def dial(
    number: Annotated[str, typer.Argument(help="Number to call in E.164 form, such as +15551234567.")],
    *,
    detect_machine: Annotated[
        bool, typer.Option("--detect-machine", help="Hang up when an answering machine or a fax answers.")
    ] = False,
) -> None:
    """Have the agent call NUMBER.

    Needs a running **call-agent serve** that Twilio reaches at AGENT_PUBLIC_URL, and TWILIO_ACCOUNT_SID,
    TWILIO_AUTH_TOKEN and TWILIO_NUMBER.
    """
    with errors_in_one_sentence():
        settings = load_settings()
        call = partial(_imported("agent.app.cli.dial").dial, settings, number, machine_detection=detect_machine)
        typer.echo(f"calling {number}: {trio.run(call)}")


@app.command()
def doctor() -> None:
    """Check keys, public URL, Twilio, port, database, tenants and the embedded model, and say what to do.

    Changes nothing. Exit status 1 when something required is wrong.
    """
    with errors_in_one_sentence():
        settings = load_settings()
        findings = trio.run(_imported("agent.app.cli.doctor.checks").examine, settings)
        _show(findings)
        if not _imported("agent.app.cli.doctor.findings").is_healthy(findings):
            raise typer.Exit(FAILED)


@app.command(**_ELSEWHERE)
def tenants(context: typer.Context) -> None:
    """Add, list, show, edit and import the businesses whose calls are answered."""
    _run_app("agent.app.cli.tenants.commands", "tenants", context.args)


@app.command(**_ELSEWHERE)
def calls(context: typer.Context) -> None:
    """List calls and what became of them, show one, have failed post-call work done again."""
    _run_app("agent.app.cli.calls.commands", "calls", context.args)


@app.command(**_ELSEWHERE)
def demo(context: typer.Context) -> None:
    """Phone the agent on this machine with simulated speech, no key needed; see what was heard of it."""
    _run_app("agent.app.demo.command", "demo", context.args)


def main() -> Never:
    """Entry point of ``call-agent``."""
    app()
    raise AssertionError("typer exits by itself")


def _run_app(module: str, name: str, arguments: list[str]) -> None:
    """Run the subcommands that ``app`` of ``module`` declares."""
    with errors_in_one_sentence():
        _imported(module).app(args=arguments, prog_name=f"call-agent {name}")


def _imported(name: str) -> Any:
    return importlib.import_module(name)


def _show(findings: list[Any]) -> None:
    marks = {"ok": "[green]ok[/]", "todo": "[yellow]to do[/]", "problem": "[red]problem[/]"}
    table = Table("", "state", "found", "what to do", title="call-agent doctor", title_justify="left")
    for finding in findings:
        table.add_row(finding.subject, marks[finding.state], escape(finding.detail), escape(finding.advice))
    Console().print(table)

"""``call-agent calls``: what can be written on the command line. The work is in ``work.py``."""

import importlib
from typing import Annotated, Any, Final

import typer

DEFAULT_LIMIT: Final = 20
MOST: Final = 10_000

app: Final = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Call = Annotated[
    str, typer.Argument(metavar="CALL", help="Its number in the list, its call SID, or how the SID begins.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]


def _desk() -> Any:
    return importlib.import_module("agent.app.cli.calls.work")


@app.callback(invoke_without_command=True)
def list_(
    context: typer.Context,
    *,
    tenant: Annotated[str | None, typer.Option(metavar="TENANT", help="Only calls of this business.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only calls answered since: 90m, 12h, 3d, 2026-11-20, 2026-11-20T14:30."
        ),
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only calls that ended so: caller_hung_up, crashed, ...")
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Only calls whose post-call work is not finished, or waits.")
    ] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Only calls of which a step was given up.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=MOST, help="At most so many, the latest ones.")
    ] = DEFAULT_LIMIT,
    as_json: AsJson = False,
) -> None:
    """List the latest calls and what became of them; show one; have failed work done again.

    Without a command: the list, times in the local zone of this machine.

    Examples: **call-agent calls --since 3d --dead**, **call-agent calls show 17**, **call-agent calls retry 17
    --step webhook**
    """
    if context.invoked_subcommand is None:
        _desk().list_all(
            tenant=tenant, since=since, outcome=outcome, open_=open_, dead=dead, limit=limit, as_json=as_json
        )


@app.command()
def show(call: Call, *, as_json: AsJson = False) -> None:
    """Show everything about one call: who, when, what was said and heard, and each step of its post-call work.

    Example: **call-agent calls show CA5f2c**
    """
    _desk().show(call, as_json=as_json)


@app.command()
def retry(
    call: Call,
    *,
    step: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="This step and those after it, also if they were done."),
    ] = None,
) -> None:
    """Have the post-call work that failed, waits or was given up done again, at once, and what comes after it.

    A running **call-agent serve** or **call-agent worker** does it. Example: **call-agent calls retry 17 --step
    transcription**
    """
    _desk().retry(call, step)


@app.command()
def redeliver(call: Call) -> None:
    """Send the call.completed webhook of a call once more, with the same Idempotency-Key.

    The same as **call-agent calls retry CALL --step webhook**.
    """
    _desk().retry(call, "webhook")

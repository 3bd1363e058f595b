"""``call-agent tenants``: what can be written on the command line. The work is in ``work.py``."""

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final

import typer

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The businesses whose calls are answered: their numbers, how the agent speaks for them, and who is told "
    "of their calls.\n\n"
    'Example: **call-agent tenants add "Harbour Dental" --number +15552223333 --language en --time-zone '
    "Europe/London --service implants --webhook-url https://example.com/calls**\n\n"
    "A call to any other number is taken by the tenant *default*, or refused (AGENT_UNKNOWN_NUMBER). A running "
    "server hears of every change at once.",
)

Region = Annotated[
    str | None, typer.Option("--region", help="Country of numbers without +, in two letters, such as US or IL.")
]
_FIELDS: Final[dict[str, Any]] = {
    "numbers": Annotated[
        list[str] | None,
        typer.Option("--number", "-n", help="Number it is called on, E.164 or with --region. Repeatable."),
    ],
    "region": Region,
    "language": Annotated[
        str | None, typer.Option(help="Language of the callers: en, he, pt-BR. Unset: found out.")
    ],
    "time_zone": Annotated[str | None, typer.Option(help="IANA time zone, such as Europe/London.")],
    "greeting": Annotated[str | None, typer.Option(help='First words of the agent; "": the caller begins.')],
    "instructions": Annotated[str | None, typer.Option(help="What the agent is told about the business.")],
    "instructions_file": Annotated[
        Path | None, typer.Option(help="Read the instructions from a UTF-8 file.", exists=True, dir_okay=False)
    ],
    "voice": Annotated[str | None, typer.Option(help="Voice of the model.")],
    "tools": Annotated[
        list[str] | None,
        typer.Option("--tool", help="Tool the agent may use, built in or your own. Repeatable; none: no tool."),
    ],
    "transfer_numbers": Annotated[
        list[str] | None,
        typer.Option("--transfer-number", help="A number calls may be transferred to. Repeatable."),
    ],
    "services": Annotated[
        list[str] | None, typer.Option("--service", help="A service callers may ask for. Repeatable.")
    ],
    "webhook_url": Annotated[str | None, typer.Option(help="Where call.completed is sent, by https.")],
    "webhook_secret": Annotated[
        str | None, typer.Option(help="Key of the webhook's signature; made when not given.")
    ],
    "delete_recordings": Annotated[
        bool | None,
        typer.Option(
            "--delete-recordings/--keep-recordings", help="Delete recordings at Twilio once downloaded."
        ),
    ],
    "lookup": Annotated[
        str | None,
        typer.Option(
            help="What the agent learns of a known number. guarded: a first name, and more once the caller gave "
            "their full name or an appointment's date; open: everything at once."
        ),
    ],
    "origins": Annotated[
        list[str] | None,
        typer.Option(
            "--origin", help="Site whose pages may phone it by the widget: https://shop.example. Repeatable."
        ),
    ],
}
"""The options of add and edit, each under the name of its parameter, in the order of their help."""
Name = Annotated[str | None, typer.Argument(help='Name of the business, such as "Harbour Dental".')]
Id = Annotated[str, typer.Argument(metavar="TENANT", help="Id of the tenant, such as harbour-dental.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
WithSecret = Annotated[bool, typer.Option("--secret", help="Show the webhook's secret.")]


def is_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty()


def _desk() -> Any:
    return importlib.import_module("agent.app.cli.tenants.work")


def _with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with an option for each field of a tenant; it takes their values as a dict, ``given``."""
    own = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in _FIELDS.items()]

    @wraps(command)
    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name in _FIELDS}
        given["instructions"] = _read(given["instructions"], given.pop("instructions_file"))
        given["tools"] = [] if given["tools"] == ["none"] else given["tools"]
        command(**values, region=given.pop("region") or "", given=_set_ones(given))

    run.__signature__ = own.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[
            parameter
            for name, its in own.parameters.items()
            if name != "region"
            for parameter in (options if name == "given" else [its])
        ]
    )
    return run


@app.command()
@_with_fields
def add(
    name: Name = None,
    *,
    id_: Annotated[str | None, typer.Option("--id", help="Made of the name when not given.")] = None,
    given: dict[str, Any],
    region: str,
) -> None:
    """Add a business. Only the name is required; without it you are asked, on a terminal.

    Example: **call-agent tenants add "Harbour Dental" -n +15552223333 --service implants --service "teeth
    cleaning" --transfer-number +15552224444**
    """
    asked = _ask(given) if name is None and is_terminal() else {}
    _desk().add(_set_ones({"id": id_, "name": name, **given, **asked}), region)


@app.command("list")
def list_(*, as_json: AsJson = False, secret: WithSecret = False) -> None:
    """List the businesses. What --json prints can be imported again."""
    _desk().list_all(as_json=as_json, with_secret=secret)


@app.command()
def show(tenant: Id, *, as_json: AsJson = False, secret: WithSecret = False) -> None:
    """Show everything about one business; its webhook's secret only with --secret."""
    _desk().show(tenant, as_json=as_json, with_secret=secret)


@app.command()
@_with_fields
def edit(
    tenant: Id,
    *,
    name: Annotated[str | None, typer.Option(help="New name; the id stays.")] = None,
    given: dict[str, Any],
    region: str,
    clear: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Put a field back to its default, such as greeting. Repeatable."),
    ] = None,
) -> None:
    """Change the given fields of a business, and no other. A list that is given replaces the old one.

    Example: **call-agent tenants edit harbour-dental --greeting "Good morning, Harbour Dental." --clear voice**

    **--clear webhook_secret** makes a new secret, which is shown once.
    """
    cleared = [field.replace("-", "_") for field in clear or ()]
    _desk().edit(tenant, _set_ones({"name": name, **given}), cleared, region)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .json, .toml or .csv file.", exists=True, dir_okay=False)],
    *,
    region: Region = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Add and change many businesses at once: all of the file, or nothing when anything in it is wrong.

    A row names its business by *id* or *name*, and one that is there already keeps what the row does not name.
    The fields are those **call-agent tenants show TENANT --json** prints. In CSV they are the first line's
    cells, and the items of a list are divided by semicolons.

    Example: **call-agent tenants import clinics.csv --region IL --dry-run**
    """
    _desk().import_file(file, region or "", dry_run=dry_run)


def _read(text: str | None, path: Path | None) -> str | None:
    if path is None:
        return text
    if text is not None:
        raise typer.BadParameter("give the instructions or their file, not both", param_hint="--instructions")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8 text", param_hint="--instructions-file") from None


def _set_ones(values: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in values.items() if value is not None}


def _ask(given: dict[str, Any]) -> dict[str, Any]:
    """What a business needs, asked for; only what was not given."""
    typer.echo("A new business. Enter takes what is in brackets; everything can be changed later.")
    answers: dict[str, Any] = {"name": typer.prompt("Name")}
    for field, question, default in (
        ("numbers", "Numbers it is called on, divided by commas", ""),
        ("language", "Language of its callers, such as en; empty: found out", ""),
        ("time_zone", "Time zone", "UTC"),
        ("webhook_url", "Webhook that is told of its calls; empty: none", ""),
    ):
        if field not in given:
            answers[field] = typer.prompt(question, default=default, show_default=bool(default)) or None
    return answers

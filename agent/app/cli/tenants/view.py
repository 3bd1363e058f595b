"""Tenants for people to read, and for scripts. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import attrs
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agent.app.cli.grids import facts_table
from agent.app.cli.terminal_text import shown
from agent.core.tenant import FIELDS, Tenant

_UNSET: Final = {
    "numbers": "(none)",
    "language": "(found out by listening)",
    "greeting": "(AGENT_GREETING)",
    "instructions": "(AGENT_INSTRUCTIONS)",
    "voice": "(AGENT_VOICE)",
    "tools": "(all built in ones)",
    "transfer_numbers": "(none: calls are not transferred)",
    "services": "(none)",
    "webhook_url": "(none: nobody is told of calls)",
    "webhook_secret": "(none)",
    "origins": "(AGENT_BROWSER_ORIGINS alone)",
}
_TAIL: Final = 4


def as_json(tenant: Tenant, *, with_secret: bool = False) -> dict[str, Any]:
    """Every field; without the secret it can be imported again, and leaves the secret as it is."""
    whole = attrs.asdict(tenant, recurse=False)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in whole.items()
        if with_secret or name != "webhook_secret"
    }


def masked(secret: str) -> str:
    """Enough of a secret to tell it from another, not enough to use it."""
    return f"{secret[: len('whsec_')]}\N{HORIZONTAL ELLIPSIS}{secret[-_TAIL:]}"


def tell_list(tenants: Sequence[Tenant]) -> RenderableType:
    """A row for each tenant."""
    table = Table(
        Column("tenant", no_wrap=True),
        Column("name", overflow="fold"),
        Column("numbers", no_wrap=True),
        "language",
        Column("time zone", overflow="fold"),
        Column("webhook", overflow="fold"),
        box=SIMPLE,
        header_style="dim",
        pad_edge=False,
    )
    for tenant in tenants:
        table.add_row(
            tenant.id,
            Text(shown(tenant.name)),
            Text("\n".join(tenant.numbers) or "-"),
            tenant.language or "-",
            tenant.time_zone,
            Text(shown(tenant.webhook_url or "-")),
        )
    return table


def tell_tenant(tenant: Tenant, *, with_secret: bool = False) -> RenderableType:
    """Every field of one tenant; of those that are not set, what holds instead."""
    table = facts_table()
    for name in FIELDS:
        table.add_row(name, _value(name, getattr(tenant, name), with_secret=with_secret))
    return Group(Text(shown(tenant.name), "bold"), table)


def tell_changes(before: Tenant | None, after: Tenant) -> RenderableType:
    """What ``after`` changes: fields with their old and new values; all that is set when it is new."""
    if before == after:
        return Text.assemble(("unchanged  ", "dim"), after.id)
    table = facts_table()
    for name in changed_fields(before, after):
        words = _value(name, getattr(after, name), with_secret=False)
        if before is not None:
            old = _value(name, getattr(before, name), with_secret=False)
            words = Text.assemble(old, (" \N{RIGHTWARDS ARROW} ", "bold"), words)
        table.add_row(f"  {name}", words)
    what = ("new        ", "bold green") if before is None else ("changed    ", "bold yellow")
    return Group(Text.assemble(what, after.id), table)


def changed_fields(before: Tenant | None, after: Tenant) -> list[str]:
    """The fields that differ; of a new tenant those that are not at their defaults."""
    old = before or Tenant(id="", name="")
    return [name for name in FIELDS if name != "id" and getattr(old, name) != getattr(after, name)]


def _value(name: str, value: Any, *, with_secret: bool) -> Text:
    if name == "webhook_secret" and value and not with_secret:
        return Text(masked(value))
    if name == "tools" and value == ():
        return Text("(none)", "dim")
    if name == "greeting" and value == "":
        return Text("(empty: the caller begins)", "dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if value in (None, "", ()):
        return Text(_UNSET[name], "dim")
    return Text(shown(", ".join(value) if isinstance(value, tuple) else value))

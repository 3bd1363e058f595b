"""The database of a process: found or started, migrated, and reached through one pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import attrs
import psycopg
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from agent.embedded_postgres import open_embedded_postgres
from agent.errors import DatabaseError
from agent.eventlog import EventLog
from agent.pg import Connection, Pool, open_connection, open_pool
from agent.settings import Settings
from agent.store.migrating import migrate

APPLICATION: Final = "call-agent"
"""What the server shows our connections as."""
CONNECT_S: Final = 10
"""libpq's connect_timeout for each host, unless DATABASE_URL says otherwise."""
FIRST_TRIES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses between the first tries of a process that cannot do without: a database that is being restarted."""
LATER_TRY_S: Final = 5.0
AWAY: Final = (DatabaseError, psycopg.OperationalError, psycopg.InterfaceError)
"""What using a database raises that is not there, or not any more: what was to be done can be done later."""


@attrs.define(eq=False)
class Database:
    """One database: ``connection`` for pieces of work; a listener opens one of its own to ``conninfo``."""

    conninfo: str = attrs.field(repr=False)
    pool: Pool
    ready: trio.Event = attrs.field(factory=trio.Event)
    """Set once the schema is known to be as this program wants it."""
    problem: str = "the database was not reached yet"
    """Why it is not ready."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection[TupleRow]]:
        """A connection with autocommit on. Raises DatabaseError until ready, and see AWAY."""
        if not self.ready.is_set():
            raise DatabaseError(self.problem)
        async with self.pool.connection() as connection:
            yield connection

    async def make_ready(self) -> list[int]:
        """Connect and migrate; the versions applied. Raises DatabaseError in one sentence without secrets."""
        try:
            async with self.pool.connection() as connection:
                applied = await migrate(connection)
        except (psycopg.Error, OSError) as error:
            raise DatabaseError(
                f"no database at {shown(self.conninfo)}: {' '.join(str(error).split())}"
            ) from None
        self.ready.set()
        return applied


@asynccontextmanager
async def open_database(
    settings: Settings, events: EventLog, *, must_be_there: bool = True, max_size: int = 8
) -> AsyncIterator[Database]:
    """The database that DATABASE_URL names, or the embedded one in the data directory; migrated.

    With ``must_be_there`` it is ready when this returns, after some tries; else tries go on in the background,
    for a server whose calls must not wait for a database. The embedded one is started in any case. Raises
    DatabaseError, also where no try can help (another program's tables, a newer schema).
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            conninfo = await stack.enter_async_context(open_embedded_postgres(settings.data_dir))
        else:
            conninfo = _checked(settings.database_url.get_secret_value())
        pool = await stack.enter_async_context(open_pool(conninfo, max_size=max_size, name=APPLICATION))
        database = Database(conninfo, pool)
        if must_be_there or settings.database_url is None:
            await _reach(database, events)
            yield database
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_trying, database, events)
            yield database
            nursery.cancel_scope.cancel(reason="the database is left")


@asynccontextmanager
async def open_listener(database: Database, *channels: str) -> AsyncIterator[Connection[TupleRow]]:
    """A connection of its own that listens on ``channels``: ``connection.notifies()``. Errors: see AWAY."""
    async with open_connection(database.conninfo, autocommit=True) as connection:
        for channel in channels:
            await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        yield connection


def shown(conninfo: str) -> str:
    """Where a connection string leads, without its password."""
    parts = conninfo_to_dict(conninfo)
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def _checked(conninfo: str) -> str:
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # What libpq says of it quotes it, password and all.
        raise DatabaseError(
            "DATABASE_URL is not what libpq understands, such as postgresql://user:password@host:5432/database"
        ) from None
    defaults = {"connect_timeout": CONNECT_S, "fallback_application_name": APPLICATION}
    whole: dict[str, Any] = {**defaults, **given}
    return make_conninfo(**whole)


async def _reach(database: Database, events: EventLog) -> None:
    for pause_s in (*FIRST_TRIES_S, None):
        try:
            applied = await database.make_ready()
        except DatabaseError as error:
            database.problem = str(error)
            if pause_s is None or not isinstance(error.__context__, psycopg.Error | OSError):
                raise
            events.emit("DATABASE_AWAY", "warning", error=str(error), next_try_in_s=pause_s)
            await trio.sleep(pause_s)
        else:
            events.emit("DATABASE_READY", applied=applied, at=shown(database.conninfo))
            return


async def _keep_trying(database: Database, events: EventLog) -> None:
    """Make it ready as soon as it can be; what no try can help is logged each time, and a person may."""
    while True:
        try:
            applied = await database.make_ready()
        except DatabaseError as error:
            database.problem = str(error)
            events.emit("DATABASE_AWAY", "error", error=str(error), next_try_in_s=LATER_TRY_S)
            await trio.sleep(LATER_TRY_S)
        else:
            events.emit("DATABASE_READY", applied=applied, at=shown(database.conninfo))
            return

"""The database of a process: found or started, migrated, and reached through one pool."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

import attrs
import psycopg
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.settings import Settings
from agent.store.embedded_postgres import open_embedded_postgres, run_watch
from agent.store.migrating import migrate
from agent.store.pg import Connection, Pool, open_connection, open_pool

APPLICATION: Final = "call-agent"
"""What the server shows our connections as."""
_DEFAULTS: Final = {
    "fallback_application_name": APPLICATION,
    "connect_timeout": 10,  # seconds, for each host
    # A server that vanished without a word is noticed within a minute, not after hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""What libpq is told unless DATABASE_URL says otherwise."""
_PORTS: Final = re.compile(r"[0-9, ]*")
FIRST_TRIES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses between the first tries of a process that cannot do without: a database that is being restarted."""
LATER_TRY_S: Final = 5.0
HOPELESS_TRY_S: Final = 60.0
"""Pauses between the tries of one that can do without."""
_GONE: Final = (psycopg.OperationalError, psycopg.InterfaceError, OSError)
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
        applied = await _make_ready(self.conninfo)
        self.ready.set()
        return applied


class _AwayError(DatabaseError):
    """It may come back."""


@asynccontextmanager
async def open_database(
    settings: Settings, events: EventLog, *, must_be_there: bool = True, max_size: int = 8
) -> AsyncIterator[Database]:
    """The database that DATABASE_URL names, or the embedded one in the data directory; migrated.

    With ``must_be_there`` it is ready when this returns, after some tries; else tries go on in the background,
    for a server whose calls must not wait for a database. The embedded one is started in any case, and started
    again when it is killed. Raises DatabaseError, also where no try can help (another
    program's tables, a newer schema).
    """
    async with AsyncExitStack() as stack:
        embedded = settings.database_url is None
        if settings.database_url is None:
            conninfo = await stack.enter_async_context(open_embedded_postgres(settings.data_dir))
        else:
            conninfo = settings.database_url.get_secret_value()
        conninfo = completed(conninfo)
        if wait := must_be_there or embedded:
            await _reach(conninfo, events)
        pool = await stack.enter_async_context(open_pool(conninfo, max_size=max_size, name=APPLICATION))
        database = Database(conninfo, pool)
        async with trio.open_nursery() as nursery:
            if wait:
                database.ready.set()
            else:
                nursery.start_soon(_reach, conninfo, events, database)
            if embedded:
                nursery.start_soon(run_watch, settings.data_dir)
            yield database
            nursery.cancel_scope.cancel(reason="the database is left")


@asynccontextmanager
async def open_listener(database: Database, *channels: str) -> AsyncIterator[Connection[TupleRow]]:
    """A connection of its own that listens on ``channels``: ``connection.notification()``. Errors: see AWAY."""
    async with open_connection(database.conninfo) as connection:
        for channel in channels:
            await connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
        yield connection


def shown(conninfo: str) -> str:
    """Where a connection string leads, without its password."""
    parts = conninfo_to_dict(conninfo)
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname') or ''}"


def completed(conninfo: str) -> str:
    """A connection string with what it leaves open set on purpose. Raises DatabaseError without a word of it."""
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # What libpq says of it quotes it, password and all.
        raise DatabaseError(
            "DATABASE_URL is not what libpq understands, such as postgresql://user:password@host:5432/database"
        ) from None
    if "@" in str(given.get("host", "")) or not _PORTS.fullmatch(str(given.get("port", ""))):
        # Half of the password is taken for the host, or its port, and would be in every message.
        raise DatabaseError("DATABASE_URL: in the password @ is written as %40, and / as %2F")
    whole: dict[str, Any] = {**_DEFAULTS, **given}
    return make_conninfo(**whole)


async def _reach(conninfo: str, events: EventLog, database: Database | None = None) -> None:
    """Connect and migrate. Raises DatabaseError: after some tries, or at once where they cannot help.

    With ``database``, which is told, the tries go on: what none of them helps a person may, and is told of it
    now and then.
    """
    for number in count():
        try:
            applied = await _make_ready(conninfo)
        except DatabaseError as error:
            away = isinstance(error, _AwayError)
            if database is not None:
                database.problem = str(error)
                pause_s = LATER_TRY_S if away else HOPELESS_TRY_S
            elif away and number < len(FIRST_TRIES_S):
                pause_s = FIRST_TRIES_S[number]
            else:
                raise
            events.emit(
                "DATABASE_AWAY", "error" if database else "warning", error=str(error), next_try_in_s=pause_s
            )
            await trio.sleep(pause_s)
        else:
            if database is not None:
                database.ready.set()
            events.emit("DATABASE_READY", applied=applied, at=shown(conninfo))
            return


async def _make_ready(conninfo: str) -> list[int]:
    """Connect and migrate. Raises DatabaseError in one sentence without secrets."""
    try:
        # A connection of its own: the lock that migrating takes is freed with it, whatever happens.
        async with open_connection(conninfo) as connection:
            return await migrate(connection)
    except _GONE as error:
        raise _AwayError(f"no database at {shown(conninfo)}: {_one_line(error)}") from None
    except psycopg.Error as error:
        raise DatabaseError(f"the database at {shown(conninfo)} cannot be used: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""The database under a command: opened for the moment, with a word when that takes a while.

With the embedded Postgres a command shares the server of a running ``call-agent serve``, or starts it.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import trio

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog, open_logging
from agent.core.settings import Settings, load_settings
from agent.core.telemetry import Telemetry
from agent.store import Database, open_database

PATIENCE_S: Final = 1.0
"""After this long a command says what it waits for."""

T = TypeVar("T")


def run_with_database(work: Callable[[Settings, Database], Awaitable[T]], *, make: bool = False) -> T:
    """Open the database, do ``work`` and close it; ``make``: an embedded one that is not there yet is made.

    Raises SettingsError, DatabaseError, and what ``work`` raises, in groups.
    """
    settings = load_settings()
    if not make:
        check_there_is_one(settings)

    async def run() -> T:
        with open_warnings() as events:
            async with open_with_a_word(settings, events) as database:
                return await work(settings, database)

    return trio.run(run)


def check_there_is_one(settings: Settings) -> None:
    """Raises DatabaseError, saying how to make one, when no database was ever made here."""
    if settings.database_url is None and not has_embedded_database(settings):
        raise DatabaseError(
            f"there is no database in {settings.data_dir.absolute()} yet. call-agent serve and call-agent "
            "tenants add make one. Or say where it is: AGENT_DATA_DIR, or DATABASE_URL for a Postgres of your own"
        )


def has_embedded_database(settings: Settings) -> bool:
    """Whether the embedded Postgres was ever started for this data directory."""
    return (settings.data_dir / "postgres" / "PG_VERSION").exists()


@asynccontextmanager
async def open_with_a_word(settings: Settings, events: EventLog) -> AsyncIterator[Database]:
    """``open_database``, saying on standard error what is waited for when it takes over PATIENCE_S."""
    doing = "starting the embedded Postgres" if settings.database_url is None else "connecting to the database"
    speaking = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_later, f"call-agent: {doing} ...", speaking)
        async with open_database(settings, events) as database:
            speaking.cancel(reason="the database is open")
            yield database


async def _say_later(text: str, scope: trio.CancelScope) -> None:
    with scope:
        await trio.sleep(PATIENCE_S)
        print(text, file=sys.stderr, flush=True)  # noqa: T201  (what a command says, not a log)


@contextmanager
def open_warnings() -> Iterator[EventLog]:
    """Log on standard error what is a warning or worse: people read a command's own words."""
    telemetry = Telemetry()
    with open_logging("warning", "auto", telemetry):
        yield EventLog(telemetry)

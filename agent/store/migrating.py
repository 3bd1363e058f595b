"""The database's schema: numbered SQL, applied in order under a lock, forward only.

A migration is a file ``agent/store/migrations/NNNN_name.sql``. It runs in one transaction with its row in
``schema_migrations``. One that was applied must not change any more: its checksum is kept and compared.
"""

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

import attrs
import psycopg
import trio

from agent.core.errors import DatabaseError
from agent.store.pg import Connection

LOCK: Final = 0x63616C6C
"""The advisory lock that processes which migrate at the same time queue at."""
UNLOCK_S: Final = 2.0
"""A server that takes longer to free it is cut off, and frees it by that."""
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_BOOKS: Final = """
CREATE TABLE schema_migrations (
  version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)"""


@attrs.frozen
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str = attrs.field(repr=False)

    @property
    def sha256(self) -> str:
        """What tells a changed file from the applied one."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def migrations() -> tuple[Migration, ...]:
    """All of them, in order."""
    found = []
    for entry in files("agent.store").joinpath("migrations").iterdir():
        match = _FILE.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


async def migrate(connection: Connection, steps: tuple[Migration, ...] | None = None) -> list[int]:
    """Bring the schema up to ``steps`` (all there are); returns the versions that were applied.

    Several processes may do so at once: one works, the others wait for it. A cancel leaves whole migrations.
    Raises DatabaseError for a database that is newer than this program, has another history, or holds tables of
    something else; psycopg.Error.
    """
    steps = migrations() if steps is None else steps
    await connection.execute("SELECT pg_advisory_lock(%(lock)s)", {"lock": LOCK})
    try:
        return await _migrate(connection, steps)
    finally:
        with trio.move_on_after(UNLOCK_S, shield=True):
            if not connection.closed:
                await connection.execute("SELECT pg_advisory_unlock(%(lock)s)", {"lock": LOCK})


async def _migrate(connection: Connection, steps: tuple[Migration, ...]) -> list[int]:
    if not await _has_books(connection):
        await connection.execute(_BOOKS)
    books = await connection.fetch_all("SELECT version, name, sha256 FROM schema_migrations")
    applied = {version: (name, sha256) for version, name, sha256 in books}
    known = {step.version: step for step in steps}
    newer = sorted(set(applied) - set(known))
    if newer:
        raise DatabaseError(
            f"the database is newer than this program: it has migration {newer[-1]:04} "
            f"({applied[newer[-1]][0]}); update call-agent"
        )
    done = []
    for step in steps:
        if step.version not in applied:
            await _apply(connection, step)
            done.append(step.version)
        elif applied[step.version][1] != step.sha256:
            raise DatabaseError(
                f"migration {step.version:04} ({step.name}) is not the one this database was made with: it was "
                "changed after it had been applied"
            )
    return done


async def _apply(connection: Connection, step: Migration) -> None:
    try:
        async with connection.transaction():
            # Without parameters the whole file goes as one simple query; the text is ours.
            await connection.execute(step.sql)
            await connection.execute(
                """
                INSERT INTO schema_migrations (version, name, sha256)
                VALUES (%(version)s, %(name)s, %(sha256)s)
                """,
                {"version": step.version, "name": step.name, "sha256": step.sha256},
            )
    except psycopg.OperationalError:  # it went away, and may come back
        raise
    except psycopg.Error as error:
        raise DatabaseError(f"migration {step.version:04} ({step.name}) failed: {error}") from error


async def _has_books(connection: Connection) -> bool:
    """Whether our schema was begun here. A database with tables, none of which is ours, was meant for others."""
    found = await connection.fetch_all(
        """
        SELECT c.relname::text, array_agg(a.attname::text)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p') AND c.relnamespace = quote_ident(current_schema())::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')  -- of extensions
        GROUP BY c.relname
        ORDER BY c.relname
        """
    )
    columns: dict[str, list[str]] = dict(found)
    # Many programs call theirs so, but not its columns.
    if {"version", "name", "sha256"} <= set(columns.get("schema_migrations", ())):
        return True
    if columns:
        raise DatabaseError(
            f"the database holds tables of something else ({next(iter(columns))}, for one): give call-agent "
            "one of its own"
        )
    return False

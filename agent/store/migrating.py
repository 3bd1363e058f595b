"""The database's schema: numbered SQL, applied in order under a lock, forward only.

A migration is a file ``agent/store/migrations/NNNN_name.sql``. It runs in one transaction with its row in
``schema_migrations``. One that was applied must not change any more: its checksum is kept and compared.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final

import attrs
import psycopg

from agent.errors import DatabaseError
from agent.pg import Connection

LOCK: Final = 0x63616C6C
"""The advisory lock that processes which migrate at the same time queue at."""
_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_BOOKS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
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
    await connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    try:
        return await _migrate(connection, steps)
    finally:
        if not connection.closed:
            await connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


async def _migrate(connection: Connection, steps: tuple[Migration, ...]) -> list[int]:
    await _check_ours(connection)
    await connection.execute(_BOOKS)
    cursor = await connection.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    applied = {version: (name, sha256) for version, name, sha256 in await cursor.fetchall()}
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
                "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
                [step.version, step.name, step.sha256],
            )
    except psycopg.Error as error:
        raise DatabaseError(f"migration {step.version:04} ({step.name}) failed: {error}") from error


async def _check_ours(connection: Connection) -> None:
    """A database with tables, none of which is ours, was meant for something else."""
    cursor = await connection.execute(
        "SELECT count(*) FILTER (WHERE tablename = 'schema_migrations'), min(tablename) FROM pg_tables "
        "WHERE schemaname = current_schema()"
    )
    row = await cursor.fetchone()
    if row is not None and not row[0] and row[1] is not None:
        raise DatabaseError(
            f"the database holds tables of something else ({row[1]}, for one): give call-agent one of its own"
        )

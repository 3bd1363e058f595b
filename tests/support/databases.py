"""A real Postgres for tests: one cluster a session, one database a test, made from a migrated template."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg

from agent.store.embedded_postgres import Cluster
from agent.store.migrating import Migration, migrations

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
"""Tests that kill the server make a cluster of their own, without these."""
TEMPLATE = "migrated"


@attrs.define(eq=False)
class TestCluster:
    """The session's cluster."""

    __test__ = False

    server: str
    """Connection string of the server, with its maintenance database."""
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def make_database(self, *, migrated: bool = True) -> str:
        """A new database; its connection string."""
        name = f"test_{next(self._numbers)}"
        template = TEMPLATE if migrated else "template0"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.of(name)

    def drop(self, conninfo: str) -> None:
        """Drop a database, whoever is still connected to it."""
        name = conninfo.rpartition("dbname=")[2]
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def of(self, database: str) -> str:
        """The connection string of a database."""
        return f"{self.server.rpartition(' dbname=')[0]} dbname={database}"

    def run(self, sql: str) -> None:
        """Run a statement that wants no transaction around it."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(sql)


@contextmanager
def open_cluster() -> Iterator[TestCluster]:
    """Run the session's cluster."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        server = Cluster(Path(directory) / "postgres", FAST)
        lock = server.start()
        try:
            cluster = TestCluster(server.conninfo)
            cluster.run(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            apply(cluster.of(TEMPLATE), migrations())
            yield cluster
        finally:
            server.leave(lock)


def apply(conninfo: str, steps: tuple[Migration, ...]) -> None:
    """Apply migrations without the program's own migrating, which is tested elsewhere."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
            "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for step in steps:
            connection.execute(step.sql)
            connection.execute(
                "INSERT INTO schema_migrations VALUES (%s, %s, %s)", [step.version, step.name, step.sha256]
            )

"""A Postgres of the benchmark's own: durable as any, on the simulators' core, stopped and started at will."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import attrs
import psutil
import trio
from psycopg import sql
from psycopg.conninfo import make_conninfo

from agent.store.embedded_postgres import STOP_S, Cluster
from agent.store.embedded_postgres.programs import Programs, find_programs
from agent.store.embedded_postgres.system_user import runner_for
from agent.store.migrating import migrate
from agent.store.pg import open_connection

StopMode = Literal["fast", "immediate"]
"""``fast`` cuts the connections and writes everything down; ``immediate`` just ends, as in a power cut."""
_threads: Final = trio.CapacityLimiter(1)


@attrs.frozen
class OwnPostgres:
    """A running cluster. Made by ``open_postgres``. What goes wrong raises DatabaseError."""

    cluster: Cluster
    core: int | None

    async def make_database(self, name: str, *, migrated: bool = True) -> str:
        """A new database; its connection string."""
        async with open_connection(self.cluster.conninfo) as connection:
            await connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        conninfo = make_conninfo(self.cluster.conninfo, dbname=name)
        if migrated:
            async with open_connection(conninfo) as connection:
                await migrate(connection)
        return conninfo

    async def stop(self, mode: StopMode) -> None:
        """The server goes, and its connections with it. A cancel waits for that."""
        await trio.to_thread.run_sync(self._stop, mode, limiter=_threads)

    async def start(self) -> None:
        """It comes back, and recovers. A cancel waits for that."""
        await trio.to_thread.run_sync(self._start, limiter=_threads)

    def _stop(self, mode: StopMode) -> None:
        path = self.cluster.path
        programs = Programs(find_programs(None), runner_for(path))
        stop = ("stop", "-D", str(path), "-m", mode, "-w", "-t", str(STOP_S))
        programs.run("pg_ctl", *stop, within_s=STOP_S + 5)

    def _start(self) -> None:
        self.cluster.revive()
        self.pin()

    def pin(self) -> None:
        """Move all its processes to its core; those they start later are there, too."""
        if self.core is None:
            return
        server = psutil.Process(int((self.cluster.path / "postmaster.pid").read_text().split()[0]))
        for process in (server, *server.children()):
            try:
                os.sched_setaffinity(process.pid, {self.core})
            except ProcessLookupError:
                continue  # it has ended meanwhile


@asynccontextmanager
async def open_postgres(core: int | None) -> AsyncIterator[OwnPostgres]:
    """Make a cluster in a temporary directory and run it on ``core``; it is stopped and removed when left.

    Raises DatabaseError. A cancel waits until it is started or stopped.
    """
    # Not in the benchmark's own folder: the server may run as another user, who has to get there.
    with tempfile.TemporaryDirectory(prefix="call-agent-bench-pg-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory) / "postgres")
        lock = await trio.to_thread.run_sync(cluster.start, limiter=_threads)
        try:
            own = OwnPostgres(cluster, core)
            own.pin()
            yield own
        finally:
            with trio.CancelScope(shield=True):  # bounded by the cluster
                await trio.to_thread.run_sync(cluster.leave, lock, limiter=_threads)

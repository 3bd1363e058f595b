"""What the tests of psycopg on Trio need of a server: to strike at every checkpoint, to watch it, to kill it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import psycopg
import trio

from agent.store.embedded_postgres import Cluster
from agent.store.pg import Connection, open_connection

Operation = Callable[[int], Awaitable[None]]


@attrs.define(eq=False)
class StrikeAt(trio.abc.Instrument):
    """Cancels a scope when one task has stopped for the ``at``-th time since, while it waits there."""

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    at: int
    steps: int = 0
    struck: bool = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and strike once."""
        if task is not self.task:
            return
        if self.steps == self.at:
            self.struck = True
            self.scope.cancel(reason="the sweep")
        self.steps += 1


@attrs.frozen
class Struck:
    """How one run of an operation went."""

    at: int
    finished: bool
    """It ran to its end: the cancel came too late, or was held back until the end."""
    scope: trio.CancelScope

    def __str__(self) -> str:
        return f"cancelled at checkpoint {self.at}, {'finished' if self.finished else 'broken off'}"


async def sweep(operation: Operation) -> AsyncIterator[Struck]:
    """Run an operation, which gets the number of the run, cancelled at its first checkpoint, its second, ..."""
    at = 0
    while True:
        scope = trio.CancelScope()
        instrument = StrikeAt(trio.lowlevel.current_task(), scope, at)
        finished = False
        trio.lowlevel.add_instrument(instrument)
        try:
            with trio.fail_after(20), scope:
                await operation(at)
                finished = True
        finally:
            trio.lowlevel.remove_instrument(instrument)
        if not instrument.struck:
            assert finished
            return
        yield Struck(at, finished, scope)
        at += 1


@attrs.define(eq=False)
class Watcher:
    """Looks at the server from a connection of its own."""

    connection: Connection[Any]

    async def states(self) -> list[str]:
        """What the other connections to the database are doing."""
        cursor = await self.connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return [state for (state,) in await cursor.fetchall()]

    async def until_states(self, states: list[str]) -> None:
        """Wait until the others are doing this: the end of a closed connection takes the server a moment."""
        with trio.fail_after(5):
            while sorted(await self.states()) != sorted(states):  # noqa: ASYNC110 - the server tells nobody
                await trio.sleep(0.005)

    async def count(self, table: str, number: int) -> int:
        """How many rows of ``table`` have this ``n``."""
        cursor = await self.connection.execute(f"SELECT count(*) FROM {table} WHERE n = %s", [number])  # noqa: S608
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def open_watcher(conninfo: str) -> AsyncIterator[Watcher]:
    """Watch a database; a table ``marks (n)`` is made in it."""
    async with open_connection(conninfo) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS marks (n int)")
        yield Watcher(connection)


def open_files() -> int:
    """Files and sockets this process has open."""
    return int(psutil.Process().num_fds())


@contextmanager
def frozen(connection: Connection[Any]) -> Iterator[None]:
    """The server process behind a connection neither answers nor dies."""
    pid = connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@attrs.define(eq=False)
class Server:
    """A server that can be killed and started again. Blocks, as it does so."""

    cluster: Cluster
    conninfo: str

    def kill(self) -> None:
        """It goes without a word: connections are cut, nothing is written down."""
        self.cluster._ctl("stop", "-m", "immediate", "-w")

    def start(self) -> None:
        """It comes back, and recovers."""
        self.cluster._run_server()

    def sql(self, statement: str) -> None:
        """Run a statement."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def open_server() -> Iterator[Server]:
    """A server of one's own, durable."""
    # Not in pytest's directory: each new pytest takes that away from the user a server runs as.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        cluster = Cluster(Path(directory) / "postgres")
        lock = cluster.start()
        try:
            yield Server(cluster, cluster.conninfo)
        finally:
            cluster.leave(lock)

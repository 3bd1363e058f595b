"""One data directory of Postgres and its server: made, started, shared, stopped. All of it blocks."""

import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Literal

import attrs
import psutil
from psycopg.pq import PGconn, Ping

from agent.core.durable import sync_directory
from agent.core.errors import DatabaseError
from agent.store.embedded_postgres.programs import Programs, find_programs
from agent.store.embedded_postgres.sharing import (
    POLL_S,
    is_last,
    is_of_this_place,
    lock_if_free,
    open_gate,
    share_lock,
    write_place,
)
from agent.store.embedded_postgres.socket_place import find_socket_dir, make_socket_dir, remove_socket_dir
from agent.store.embedded_postgres.system_user import let_through, runner_for
from agent.store.embedded_postgres.watchdog import STOPPED, start_watchdog

START_S: Final = 60
"""How long a start may take; 0.1 to 0.3 s are usual, the recovery after a crash of the machine is longer."""
STOP_S: Final = 10
"""How long the server may take to stop; it goes on stopping without us if it takes longer."""
MAKE_S: Final = 120
"""How long ``initdb`` may take; 0.8 s are usual."""
FREE_BYTES: Final = 200_000_000
"""What must be free on the disk before a cluster is made: its 40 MB, and some to live on."""
LOG_BYTES: Final = 5_000_000
"""A longer log of the server is put aside at the next start; one such is kept."""
_SOCKET: Final = ".s.PGSQL.5432"
_PING_S: Final = 2
_SETTLE_S: Final = 3
"""The last processes of a server that was stopped are gone some milliseconds after it said so."""
_UNSPEAKABLE: Final = re.compile(r'["`$\\\x00-\x1f]')
"""What a path must not have: pg_ctl puts it into a shell command, between quotes."""
_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # A small machine: some servers, workers and commands at once, and memory left for the model.
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "io_method": "sync",  # no processes that read ahead for a database that is in memory
    "jit": "off",
    "max_parallel_workers_per_gather": "0",  # they want shared memory, of which containers have little
    # What callers say is not for logs.
    "log_checkpoints": "off",
    "log_min_duration_statement": "1000",
    "log_parameter_max_length": "0",
}
_SINCE: Final = {"io_method": 18}
"""Settings that older versions do not know."""

_log = logging.getLogger("agent.store.embedded_postgres")


def _real(path: Path) -> Path:
    return path.resolve()


State = Literal["ready", "busy", "gone"]
"""It answers; it is there, but comes up, goes down or hangs; it is not there."""


@attrs.frozen
class Cluster:
    """The data directory ``path``. None of the methods is for the event loop; they raise DatabaseError."""

    path: Path = attrs.field(converter=_real)
    settings: Mapping[str, str] = attrs.field(factory=dict)
    """More settings of the server."""

    @property
    def conninfo(self) -> str:
        """How to connect."""
        return f"host='{find_socket_dir(self.path)}' port=5432 user=postgres dbname=postgres"

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.path / "server.log"

    def start(self) -> IO[bytes]:
        """See that the server runs; returns the lock that says that we use it, for ``leave``."""
        with self._explained():
            if _UNSPEAKABLE.search(str(self.path)):
                raise DatabaseError(
                    f"the embedded Postgres cannot be in {str(self.path)!r}: quotes, dollars and backslashes are "
                    "not for its programs; give another AGENT_DATA_DIR, or set DATABASE_URL"
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock_file("users").open("a+b")
            try:
                with self._gate(START_S + STOP_S):
                    alone = lock_if_free(lock)
                    share_lock(lock)
                    if not alone:
                        self._check_place(lock)
                    self._ensure_runs()
                    if alone:
                        write_place(lock)
            except BaseException:
                lock.close()
                raise
            return lock

    def leave(self, lock: IO[bytes]) -> None:
        """We use the server no more; stop it if nobody else does. Raises nothing: what goes wrong is logged."""
        try:
            with lock, self._explained(), self._gate(STOP_S):
                if is_last(lock):
                    if self.state() != "gone":
                        self._ctl("stop", "-m", "fast", "-w", "-t", str(STOP_S))
                        remove_socket_dir(self.path)
                    self._lock_file("watch").write_bytes(STOPPED)
        except DatabaseError as error:
            _log.warning("%s", error)

    def revive(self) -> bool:
        """Start the server if it is gone; whether it was. For whoever holds the lock.

        One that comes up or goes down is waited for a little, and then left alone.
        """
        if self._settled_state() != "gone":
            return False
        with self._explained(), self._gate(START_S + STOP_S):
            if self.state() != "gone":
                return False
            self._ensure_runs()
            return True

    def _settled_state(self) -> State:
        deadline = time.monotonic() + _SETTLE_S
        while (state := self.state()) == "busy" and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return state

    def state(self) -> State:
        """Ask the server; if it does not answer, look for its processes."""
        if (self.path / "postmaster.pid").exists():
            answer = PGconn.ping(f"{self.conninfo} connect_timeout={_PING_S}".encode())
            if answer == Ping.OK:
                return "ready"
            if answer == Ping.REJECT:
                return "busy"
        return "busy" if self._has_processes() else "gone"

    def _has_processes(self) -> bool:
        """Whether processes of Postgres work in the directory: the pid file may name a process of today's."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name().startswith("postgres") and process.cwd() == str(self.path):
                    return bool(process.status() != psutil.STATUS_ZOMBIE)
        return False

    def _ensure_runs(self) -> None:
        self._prepare()
        self._ensure_watched()
        deadline = time.monotonic() + START_S
        while (state := self.state()) == "busy":
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"the embedded Postgres in {self.path} is there, but did not answer for {START_S} s; "
                    f"its log is {self.log}"
                )
            time.sleep(POLL_S)
        if state == "gone":
            self._forget_server()
            self._run_server()

    def _ensure_watched(self) -> None:
        """Before the server is started: whoever starts it may be killed meanwhile."""
        programs = self._programs()
        stop = (str(programs.directory / "pg_ctl"), "stop", "-D", str(self.path), "-m", "fast", "-w")
        try:
            start_watchdog(
                (self._lock_file("watch"), self._lock_file("users"), self._lock_file("gate")),
                self.path / "postmaster.pid",
                stop,
                (programs.runner.uid, programs.runner.gid) if programs.runner else None,
            )
        except OSError as error:
            _log.warning("should all its users be killed, the embedded Postgres will go on: %s", error)

    def _forget_server(self) -> None:
        """Remove what a killed server left. Its number may be another process's by now, and would be believed."""
        socket_dir = find_socket_dir(self.path)
        for left in (self.path / "postmaster.pid", socket_dir / _SOCKET, socket_dir / f"{_SOCKET}.lock"):
            left.unlink(missing_ok=True)

    def _prepare(self) -> None:
        """The directory as ``initdb`` makes it, owned by whoever runs the server, who can get there."""
        programs = self._programs()
        if programs.runner is not None:
            let_through(programs.runner, programs.directory, self.path.parent)
        if (self.path / "PG_VERSION").exists():
            return
        for left in self.path.parent.glob(".postgres-*"):  # by a start that was killed
            shutil.rmtree(left, ignore_errors=True)
        free = shutil.disk_usage(self.path.parent).free
        if free < FREE_BYTES:
            raise DatabaseError(
                f"the embedded Postgres wants {FREE_BYTES // 1_000_000} MB on the disk of {self.path.parent}, "
                f"and {free // 1_000_000} MB are free"
            )
        # Made aside and renamed: a start that is killed leaves no half cluster behind.
        aside = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self.path.parent))
        try:
            if programs.runner is not None:
                os.chown(aside, programs.runner.uid, programs.runner.gid)
            options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres")
            programs.run("initdb", *options, "-D", str(aside), within_s=MAKE_S)
            if self.path.exists():
                self.path.rmdir()
            aside.rename(self.path)
            sync_directory(self.path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _run_server(self) -> None:
        socket_dir = find_socket_dir(self.path)
        if socket_dir != self.path:
            make_socket_dir(socket_dir, self._programs().runner)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        version = self._version() or 0
        own = {name: value for name, value in _SETTINGS.items() if version >= _SINCE.get(name, 0)}
        options = {**own, **self.settings, "unix_socket_directories": str(socket_dir)}
        line = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self._ctl("start", "-w", "-t", str(START_S), "-l", str(self.log), "-o", line)

    def _ctl(self, command: str, *arguments: str) -> None:
        told = self.log.stat().st_size if self.log.exists() else 0
        self._programs().run(
            "pg_ctl",
            command,
            "-D",
            str(self.path),
            *arguments,
            within_s=START_S + 5,
            log=lambda: self._said(told),
        )

    def _said(self, start: int) -> bytes:
        """What the server wrote to its log from there on, and where that is."""
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(start)
            return log.read(100_000)
        return b""

    def _programs(self) -> Programs:
        return Programs(find_programs(self._version()), runner_for(self.path))

    def _version(self) -> int | None:
        """Of the Postgres that made the cluster; None: it is not made yet."""
        try:
            written = (self.path / "PG_VERSION").read_text("ascii")
        except FileNotFoundError:
            return None
        return int(written)

    def _check_place(self, lock: IO[bytes]) -> None:
        """Others use the directory: a server that we can neither reach nor see might still be theirs."""
        if not is_of_this_place(lock) and self.state() == "gone":
            raise DatabaseError(
                f"{self.path} is used by a process in another container or on another machine, whose server "
                "cannot be reached from here: give each an AGENT_DATA_DIR of its own, or one DATABASE_URL to all"
            )

    def _gate(self, within_s: float) -> AbstractContextManager[None]:
        return open_gate(self._lock_file("gate"), within_s=within_s)

    def _lock_file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.lock")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = "no space is left on its disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise DatabaseError(
                f"the embedded Postgres cannot use {error.filename or self.path}: {what}; give another "
                "AGENT_DATA_DIR, or set DATABASE_URL"
            ) from error

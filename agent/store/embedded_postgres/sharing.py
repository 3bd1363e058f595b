"""Who uses a directory: locks that the operating system takes back from a process that was killed."""

import fcntl
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from agent.core.errors import DatabaseError

POLL_S: Final = 0.05
_TRIES: Final = 3


def lock_if_free(lock: IO[bytes]) -> bool:
    """Hold the lock alone, unless others hold it too; whether that was so. Raises OSError."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_last(lock: IO[bytes]) -> bool:
    """Whether nobody else holds the lock; it is ours alone then. Raises OSError.

    Tried again, because the watchdog holds it for a moment when it is let go of on the way from shared to alone.
    """
    for _ in range(_TRIES):
        if lock_if_free(lock):
            return True
        time.sleep(POLL_S)
    return False


def share_lock(lock: IO[bytes]) -> None:
    """Hold the lock with others. Blocks while one holds it alone; raises OSError."""
    fcntl.flock(lock, fcntl.LOCK_SH)


@contextmanager
def open_gate(path: Path, *, within_s: float) -> Iterator[None]:
    """One process at a time starts, stops, comes or leaves. Raises DatabaseError when it is shut for too long."""
    deadline = time.monotonic() + within_s
    with path.open("ab") as gate:
        while not lock_if_free(gate):
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"another process has been starting or stopping the embedded Postgres for {within_s:.0f} s; "
                    f"it holds {path}"
                )
            time.sleep(POLL_S)
        yield


def write_place(lock: IO[bytes]) -> None:
    """Write into the lock's file where its first holder is."""
    lock.truncate(0)
    lock.write(_place())
    lock.flush()


def is_of_this_place(lock: IO[bytes]) -> bool:
    """Whether its first holder, if it is known, is where we are, so that we can see its processes."""
    lock.seek(0)
    return lock.read() in (b"", _place())


def _place() -> bytes:
    """The same start of the same machine, the same container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()
    except OSError:
        return platform.node().encode()

"""Stops the server when the last process that uses it is gone, however it went: by ``kill -9``, too.

The users of a cluster share a file lock, which the operating system takes back from the dead. A process of its
own asks for that lock alone, and is given it when nobody is left. It runs as a program, with nothing imported
that it can do without: it needs little memory, and outlives what it watches.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STOPPED: Final = b"stopped"
"""What the file of the watchdog's lock says when the server was stopped by its last user: nothing is to do."""
START_S: Final = 10
"""How long its own start may take."""
TRIES: Final = 30
TRY_S: Final = 0.5
"""A server that was being started by a process that was killed is waited for so often, so long."""


def start_watchdog(
    locks: tuple[Path, Path, Path], pid_file: Path, stop: Sequence[str], identity: tuple[int, int] | None
) -> None:
    """Have one, unless there is one; it holds its lock when this returns. Raises OSError.

    ``locks`` are its own, the users' and the gate's; ``stop`` is the command that stops the server, run as the
    user and group of ``identity``; ``pid_file`` is there when there is a server to stop. Whoever calls this uses
    the cluster, and holds the gate.
    """
    watch = locks[0]
    with watch.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.truncate(0)
            return
        lock.truncate(0)
        fcntl.flock(lock, fcntl.LOCK_UN)
    places = map(str, (*locks, pid_file, *(identity or (-1, -1))))
    # Isolated and without site-packages, for the sake of memory.
    arguments = [sys.executable, "-I", "-S", __file__, *places, *stop]
    null = subprocess.DEVNULL
    try:
        subprocess.run(  # noqa: S603 - this file, our arguments
            arguments,
            stdin=null,
            stdout=null,
            stderr=null,
            cwd="/",
            start_new_session=True,
            timeout=START_S,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"the watchdog of the embedded Postgres was not started: {error}") from error


def run(locks: tuple[int, int, int], pid_file: str, stop: Sequence[str], identity: tuple[int, int]) -> None:
    """Wait until nobody uses the server, then stop it; return when there is none."""
    watch, users, gate = locks
    tries = TRIES
    while tries:
        fcntl.flock(users, fcntl.LOCK_EX)
        # Not held while waiting for the gate: who is behind it may wait for this lock.
        fcntl.flock(users, fcntl.LOCK_UN)
        fcntl.flock(gate, fcntl.LOCK_EX)
        if _is_free(users):
            stopped = os.pread(watch, len(STOPPED), 0) == STOPPED
            if stopped or (os.path.exists(pid_file) and _run(stop, identity) == 0):  # noqa: PTH110
                fcntl.flock(watch, fcntl.LOCK_UN)  # before the gate: who comes next starts another
                return
            tries -= 1
            fcntl.flock(users, fcntl.LOCK_UN)
        else:
            tries = TRIES
        fcntl.flock(gate, fcntl.LOCK_UN)
        time.sleep(TRY_S)


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run(command: Sequence[str], identity: tuple[int, int]) -> int:
    """The status of ``command``, run as somebody."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        uid, gid = identity
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.execv(command[0], list(command))  # noqa: S606 - what the cluster gave us
    finally:
        os._exit(1)


def _main() -> None:
    """Take the lock, leave the parent, ignore what ends others, and watch."""
    watch, users, gate = (os.open(path, os.O_RDWR) for path in sys.argv[1:4])
    if not _is_free(watch):
        return
    if os.fork():
        return
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    run((watch, users, gate), sys.argv[4], sys.argv[7:], (int(sys.argv[5]), int(sys.argv[6])))


if __name__ == "__main__":
    _main()

"""Where the server's unix socket is: in its data directory, or elsewhere if that path is not fit for sockets."""

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.core.errors import DatabaseError
from agent.store.embedded_postgres.system_user import Runner, let_through

PATH_BYTES: Final = 88
"""A socket's path has at most 103 bytes (sun_path of macOS; Linux has four more), and its name is 15 of them."""
ELSEWHERE: Final = Path("/tmp")  # noqa: S108 - who it belongs to is checked
"""Not the directory for temporary files that the environment names: each process may have another."""
_FIT: Final = re.compile(r"[A-Za-z0-9_/.@+-]+")
"""libpq and Postgres divide lists of hosts and directories by commas, and quote in ways of their own."""


def find_socket_dir(cluster: Path) -> Path:
    """The same for a cluster each time, whoever asks, so that nobody has to be told."""
    if len(os.fsencode(cluster)) <= PATH_BYTES and _FIT.fullmatch(str(cluster)):
        return cluster
    return ELSEWHERE / f"call-agent-pg-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:12]}"


def make_socket_dir(directory: Path, runner: Runner | None) -> None:
    """Make it, or see that it is its server's: anybody can make one there. Raises DatabaseError, OSError."""
    uid = os.geteuid() if runner is None else runner.uid
    try:
        directory.mkdir(mode=0o700)
        if runner is not None:
            os.chown(directory, runner.uid, runner.gid)
    except FileExistsError:
        pass
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        raise DatabaseError(
            f"{directory}, for the socket of the embedded Postgres, belongs to somebody else: remove it, or give "
            "AGENT_DATA_DIR a shorter path"
        )
    if runner is not None:
        let_through(runner, directory.parent)


def remove_socket_dir(cluster: Path) -> None:
    """Remove it if it is not the cluster itself, and empty."""
    if (directory := find_socket_dir(cluster)) != cluster:
        with suppress(OSError):
            directory.rmdir()

"""Files that survive the machine: what was written is there whole after a power cut, or not at all.

They are files of calls: nobody but us reads them, whatever the umask is.
"""

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

PRIVATE_FILE: Final = 0o600
PRIVATE_DIRECTORY: Final = 0o700
_ALL: Final = 0o777
_OTHERS: Final = 0o077


def write_durably(path: Path, data: bytes) -> None:
    """Write a file, and the directory it is in if there is none. Blocks; raises OSError, leaving no part."""
    make_private_directory(path.parent)
    # A name of its own: a thread that was left behind in a disk that hangs may still write the same file.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_native_id()}.part")
    try:
        with open(aside, "wb", opener=open_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise
    sync_directory(path.parent)


def open_private(path: str, flags: int) -> int:
    """For ``open``'s ``opener``: what is made is for us alone. Raises OSError."""
    descriptor = os.open(path, flags, PRIVATE_FILE)
    with suppress(PermissionError):  # somebody else's file, or a file system that knows no modes
        os.fchmod(descriptor, PRIVATE_FILE)
    return descriptor


def make_private_directory(path: Path) -> None:
    """Make it, and what is above it; what others could look into is closed to them. Raises OSError."""
    path.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    status = path.stat()
    if stat.S_IMODE(status.st_mode) & _ALL != PRIVATE_DIRECTORY and status.st_uid == os.geteuid():
        with suppress(PermissionError):
            path.chmod(PRIVATE_DIRECTORY)


def check_own_directory(path: Path) -> None:
    """For a place where anybody can make one: raises PermissionError if it is not ours alone, OSError."""
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or stat.S_IMODE(status.st_mode) & _OTHERS
    ):
        raise PermissionError(f"{path} is not a directory of this user alone")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Blocks; raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

"""Who runs Postgres when we are root, for Postgres refuses to be; and how that user gets to its files.

Directories on the way that are closed to others, such as /root, are opened to that one user by an access control
list, for passing only. Their mode for others stays as it is.
"""

import errno
import os
import pwd
import shutil
import stat
import struct
import subprocess
from pathlib import Path
from typing import Final

import attrs

from agent.core.errors import DatabaseError

SYSTEM_USER: Final = "call-agent-pg"
"""Made when it is first needed, and never otherwise."""
ADVICE: Final = "run call-agent as another user than root, or set DATABASE_URL"
_ACL: Final = "system.posix_acl_access"
_ACL_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
# Tags of entries, in the order the kernel wants them: linux/posix_acl.h.
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NOBODY: Final = 0xFFFFFFFF
_PASS: Final = 1


@attrs.frozen
class Runner:
    """A user who runs Postgres instead of us."""

    uid: int
    gid: int
    name: str


def runner_for(cluster: Path) -> Runner | None:
    """Who runs the server of a cluster: we, unless we are root. Then whoever owns it, or a user made for it.

    Raises DatabaseError if none can be made; OSError.
    """
    if os.geteuid() != 0:
        return None
    owner = cluster.stat().st_uid if cluster.exists() else 0
    return _runner(owner) if owner else _system_user()


def let_through(runner: Runner, *places: Path) -> None:
    """Let the runner pass to ``places`` through the directories above. Raises DatabaseError."""
    for directory in sorted({above for place in places for above in (place, *place.parents)}):
        if not _may_pass(runner, directory.stat()):
            try:
                _grant_passing(runner.uid, directory)
            except (OSError, AttributeError):  # not on this file system, not on this operating system
                raise DatabaseError(
                    f"the user {runner.name}, who runs the embedded Postgres as root may not, cannot pass "
                    f"through {directory}: chmod o+x {directory}, or give another AGENT_DATA_DIR, or {ADVICE}"
                ) from None


def _runner(uid: int) -> Runner:
    try:
        known = pwd.getpwuid(uid)
    except KeyError:  # of another container, say: its number is enough to run what is there
        return Runner(uid, uid, str(uid))
    return Runner(uid, known.pw_gid, known.pw_name)


def _system_user() -> Runner:
    try:
        known = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        try:
            subprocess.run(  # noqa: S603 - no input of anyone's
                [useradd or "useradd", *options, SYSTEM_USER], check=True, capture_output=True, timeout=30
            )
            known = pwd.getpwnam(SYSTEM_USER)
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            raise DatabaseError(
                f"Postgres does not run as root, and the user {SYSTEM_USER} could not be made to run it "
                f"({error}): {ADVICE}"
            ) from error
    return Runner(known.pw_uid, known.pw_gid, known.pw_name)


def _may_pass(runner: Runner, status: os.stat_result) -> bool:
    if status.st_uid == runner.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == runner.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _grant_passing(uid: int, directory: Path) -> None:
    """Add an entry to the directory's list. Raises OSError."""
    entries = _read_acl(directory)
    group = next(permissions for tag, permissions, _ in entries if tag == _GROUP)
    mask = next((permissions for tag, permissions, _ in entries if tag == _MASK), group)
    named = next((permissions for tag, permissions, number in entries if (tag, number) == (_USER, uid)), 0)
    if named & mask & _PASS:  # a chmod leaves the entry and closes the mask
        return
    kept = [entry for entry in entries if entry[0] != _MASK and entry[:1] + entry[2:] != (_USER, uid)]
    wanted = sorted([*kept, (_USER, _PASS, uid), (_MASK, mask | _PASS, _NOBODY)], key=lambda entry: entry[0])
    os.setxattr(directory, _ACL, _ACL_VERSION + b"".join(_ENTRY.pack(*entry) for entry in wanted))


def _read_acl(directory: Path) -> list[tuple[int, int, int]]:
    try:
        raw = os.getxattr(directory, _ACL)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        return [(tag, mode >> shift & 7, _NOBODY) for tag, shift in ((_OWNER, 6), (_GROUP, 3), (_OTHER, 0))]
    return [(tag, permissions, number) for tag, permissions, number in _ENTRY.iter_unpack(raw[4:])]

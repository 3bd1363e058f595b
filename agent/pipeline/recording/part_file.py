"""A file that arrives in parts: written aside, hashed on the way, resumable, whole or not there at all.

The name of the part carries a tag of what is being fetched, so that the rest of another version is never joined
to it. Everything here blocks: call it in a thread, ``close`` excepted.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO, Any, Final

import attrs

from agent.core.durable import make_private_directory, open_private, sync_directory

_TAG_LETTERS: Final = 12


def make_tag(*what: object) -> str:
    """A short name for a version of a file: of its ETag and its length, say."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:_TAG_LETTERS]


def hash_file(path: Path) -> tuple[Any, int]:
    """SHA-256 (of ``hashlib``) and size of a file, read in blocks. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256"), file.tell()


@attrs.define(eq=False)
class PartFile:
    """What there is of ``target`` so far."""

    target: Path
    tag: str = ""
    size: int = 0
    _digest: Any = attrs.field(factory=hashlib.sha256)
    _file: IO[bytes] | None = None

    @classmethod
    def find(cls, target: Path) -> PartFile:
        """The part an earlier attempt left, or an empty one; older leftovers are removed. Raises OSError."""
        make_private_directory(target.parent.parent)
        make_private_directory(target.parent)
        left = sorted(target.parent.glob(f"{target.stem}.*.part"), key=lambda path: path.stat().st_mtime)
        for path in left[:-1]:
            path.unlink(missing_ok=True)
        part = cls(target)
        if left:
            part.tag = left[-1].name.removeprefix(f"{target.stem}.").removesuffix(".part")
            part._digest, part.size = hash_file(part.path)
        return part

    @property
    def path(self) -> Path:
        """Where the part is."""
        return self.target.with_name(f"{self.target.stem}.{self.tag}.part")

    @property
    def sha256(self) -> str:
        """Of what there is, in hex."""
        return str(self._digest.hexdigest())

    def restart(self, tag: str) -> None:
        """Forget what there is and begin the version ``tag``."""
        self.discard()
        self.tag = tag

    def write(self, data: bytes) -> None:
        """Add ``data``. Raises OSError; what was written of it then counts."""
        if self._file is None:
            # Unbuffered: a cancel or a kill leaves on the disk what was counted.
            self._file = open(self.path, "ab", buffering=0, opener=open_private)  # noqa: SIM115
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)
            self._digest.update(rest[:written])
            self.size += written
            rest = rest[written:]

    def head(self, most: int) -> bytes:
        """The first bytes."""
        with self.path.open("rb") as file:
            return file.read(most)

    def finish(self) -> None:
        """Make it durable under its own name. Raises OSError."""
        self.close()
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        sync_directory(self.target.parent)

    def discard(self) -> None:
        """Remove what there is."""
        self.close()
        if self.tag:
            self.path.unlink(missing_ok=True)
        self.size, self._digest = 0, hashlib.sha256()

    def close(self) -> None:
        """Let go of the file; it is kept. Does not block: nothing is buffered."""
        if self._file is not None:
            self._file.close()
            self._file = None

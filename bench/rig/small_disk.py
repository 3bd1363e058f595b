"""A real disk that is full, and has room again: a small tmpfs, which only root can mount."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from bench.rig.processes import BenchError

_BLOCKS: Final = (bytes(1024 * 1024), bytes(4096))
"""The large ones are quick, the small ones leave no room."""


@attrs.frozen
class SmallDisk:
    """A mounted tmpfs. Made by ``open_small_disk``."""

    path: Path

    def fill(self) -> None:
        """Write until nothing more goes onto it."""
        with (self.path / "filling").open("ab", buffering=0) as file:
            for block in _BLOCKS:
                try:
                    while True:
                        file.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Remove what filled it."""
        (self.path / "filling").unlink()


@contextmanager
def open_small_disk(path: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """Mount it at ``path``. Raises BenchError where that is not allowed."""
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0755", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: S603 - ours
        raise BenchError("a small disk is mounted by root alone")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # noqa: S603, S607 - ours

"""A real disk that is full, and has room again: a small tmpfs, which only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

_BLOCK = bytes(4096)


@attrs.frozen
class SmallDisk:
    """A mounted tmpfs. Made by ``open_small_disk``."""

    path: Path

    @property
    def _filling(self) -> Path:
        return self.path / "filling"

    def fill(self) -> None:
        """Write until nothing more goes onto it."""
        with self._filling.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_BLOCK)
            except OSError:
                return

    def free(self) -> None:
        """Remove what filled it."""
        self._filling.unlink()


@contextmanager
def open_small_disk(path: Path, kilobytes: int = 1024) -> Iterator[SmallDisk]:
    """Mount it; skips the test where that is not allowed."""
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0755", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk is mounted by root alone")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)

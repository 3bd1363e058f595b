"""A small disk for a test, or the test is skipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.rig import small_disk
from bench.rig.processes import BenchError
from bench.rig.small_disk import SmallDisk


@contextmanager
def open_small_disk(path: Path, kilobytes: int = 1024) -> Iterator[SmallDisk]:
    """Mount it; skips the test where that is not allowed."""
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk.open_small_disk(path, kilobytes))
        except BenchError as error:
            pytest.skip(str(error))
        yield disk

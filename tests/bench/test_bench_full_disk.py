"""DO-3: calls that end on a full disk are completed when there is room, once, by the server that took them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from small_disks import open_small_disk

from bench.after_calls.aftermath import Verdict
from bench.after_calls.full_disk import FullDiskFigures, FullDiskPlan, run_full_disk
from bench.after_calls.rows import full_disk_row

pytestmark = pytest.mark.sockets
ALL_WELL = FullDiskFigures(
    plan=FullDiskPlan(calls=20),
    records=20,
    completed=20,
    verdict=Verdict((), (), 0),
    completed_s=4.0,
    held=2,
    is_alive=True,
)


@pytest.mark.parametrize(
    "miss",
    [
        {"records": 19},
        {"completed": 19},
        {"verdict": Verdict(("CA1 is not in the database",), (), 0)},
        {"verdict": Verdict((), ("CA1: 2 leads",), 0)},
        {"is_alive": False},
    ],
)
def test_each_way_to_lose_a_call_is_a_miss(miss: dict[str, Any]) -> None:
    assert full_disk_row(ALL_WELL).ok
    assert not full_disk_row(attrs.evolve(ALL_WELL, **miss)).ok


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in pytest's directory: each new pytest closes that to the user a server runs as."""
    with tempfile.TemporaryDirectory(prefix="disk-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("same_disk", [False, True], ids=["postgres-elsewhere", "postgres-on-it"])
async def test_do_3_a_disk_that_is_full_as_calls_end(folder: Path, *, same_disk: bool) -> None:
    """A real server, a real disk, real calls; with Postgres on the disk, killed while it cannot come back."""
    said: list[str] = []
    plan = FullDiskPlan(calls=3, full_s=3.0, same_disk=same_disk, talk_s=2.5, every_s=1.5, recorded=not same_disk)
    with trio.fail_after(150):
        with open_small_disk(folder / "tried"):  # else the test is skipped
            seen = await run_full_disk(plan, folder, said.append)
    assert seen.met, full_disk_row(seen).measured
    assert seen.held >= 1, "Postgres may have taken each at once, on the full disk, too"
    assert said

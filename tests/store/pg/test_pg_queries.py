"""The measuring of queries through Trio against asyncio, on a few queries: that it measures, not what."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.parts.pg_queries import QueryFigures, measure_queries
from bench.rig.processes import BenchError

pytestmark = pytest.mark.sockets


def test_the_ratio_is_ours_to_theirs() -> None:
    assert QueryFigures(trio_us=60.0, asyncio_us=80.0).ratio == 0.75


async def test_both_sides_are_measured(empty_postgres: str) -> None:
    figures = await measure_queries(empty_postgres, rounds=3, queries=20)
    assert 1 < figures.trio_us < 100_000
    assert 1 < figures.asyncio_us < 100_000


async def test_a_side_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.RaisesGroup(BenchError, allow_unwrapped=True, flatten_subgroups=True):
        await measure_queries(f"host={tmp_path}", rounds=1, queries=1)

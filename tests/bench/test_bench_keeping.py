"""The measurement of what keeping costs: it measures, and the promise holds by far."""

from __future__ import annotations

import pytest
import trio

from bench.parts.keeping import KeepingFigures, measure_keeping


@pytest.mark.sockets
async def test_nb_5_a_turn_costs_the_loop_less_than_a_millisecond(empty_postgres: str) -> None:
    """NB-1, NB-5. A machine that does ten things at once may be slower, but not by as much."""
    with trio.fail_after(60):
        figures = await measure_keeping(empty_postgres, turns=100)
    assert 0 < figures.enqueue_us < figures.turn_us
    assert figures.longest_us > 0
    assert figures.met


def test_a_promise_that_is_not_kept_shows() -> None:
    assert not KeepingFigures(enqueue_us=1, turn_us=1001, longest_us=500).met

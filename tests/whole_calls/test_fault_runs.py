"""A fault of any kind in a call in any state: 240 of the runs of ``fault_runs``, whose command runs any range."""

from __future__ import annotations

import pytest
from fault_runs import FAULTS, STATES, run_seeds

SHARDS = 12
EACH = 2 * len(FAULTS)
"""Every fault into two states; three shards have them all."""


@pytest.mark.parametrize("shard", range(SHARDS))
def test_mo_4_mo_7_a_fault_in_any_state_costs_no_silence_no_turn_and_no_truth(shard: int) -> None:
    """No silence over 8 s, nobody hung up on while speaking, a record that is true to the ear, nothing left."""
    met = run_seeds(range(shard * EACH, (shard + 1) * EACH))
    assert {fault for fault, _ in met} == set(FAULTS)
    assert {state for _, state in met} >= {STATES[2 * shard % len(STATES)], STATES[(2 * shard + 1) % len(STATES)]}

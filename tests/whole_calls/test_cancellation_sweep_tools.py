"""A call with tools, cancelled at every single checkpoint: what was begun for the caller is done, or never was.

The call makes an appointment (a write), looks something up, and is transferred, while it is kept. It is swept as
``test_cancellation_sweep`` sweeps a barge-in and a goodbye.
"""

from __future__ import annotations

import pytest
from sweeps import GRACE_S, STRIDE, CancelAt, run_virtually
from tool_script import DESKS, PERSON, run_script
from virtual_call import CALL_SID, FakeServices

from agent.call.tool_calls import WRITE_GRACE_S
from agent.core.records import Outcome
from agent.core.units import CallSid

SHARDS = 3


def is_whole(services: FakeServices, where: str) -> None:
    """What holds wherever the call was cancelled."""
    record = services.record
    desk = DESKS[-1]
    assert [new.tool_call_id for new, _ in desk.made] == desk.begun, where
    assert services.handed_over() == [CALL_SID], where
    transferred = record.outcome is Outcome.TRANSFERRED
    assert transferred or record.outcome is Outcome.SERVER_STOPPED, where
    assert services.rest.hung_up == ([] if transferred else [CALL_SID]), where
    assert services.rest.transferred == ({CallSid(CALL_SID): PERSON} if transferred else {}), where
    for fault in ("POST_CANCEL_AUDIO_VIOLATION", "CALL_ERROR", "GUEST_FAILED", "TOOL_FAILED", "KEEPING_FAILED"):
        assert fault not in record.metrics.events, where


def test_st_1_the_scripted_call_runs_through() -> None:
    """Uncancelled, the script is what the sweep needs."""
    instrument = CancelAt(None)
    services, stream, _ = run_virtually(instrument, run_script)
    record = services.record
    assert record.outcome is Outcome.TRANSFERRED
    assert record.tenant_id == "shop"
    assert record.metrics.events["TOOL_USED"] == 2
    assert len(DESKS[-1].begun) == 1
    assert stream.close_code == 1000
    guests = {"tool create_appointment", "tool lookup_caller", "tool transfer_call", "keeping"}
    assert guests <= instrument.tasks
    is_whole(services, "uncancelled")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_st_1_a_call_with_tools_cancelled_at_any_checkpoint_ends_whole(shard: int) -> None:
    """An appointment that was begun is made; a call that the carrier took is not hung up, any other one is."""
    total = CancelAt(None)
    run_virtually(total, run_script)
    for at in range(shard, total.steps, SHARDS * STRIDE):
        instrument = CancelAt(at)
        services, stream, over_s = run_virtually(instrument, run_script)
        where = f"cancelled before step {at} of {total.steps}"
        assert instrument.cancelled_at_s is not None, where
        assert over_s - instrument.cancelled_at_s <= GRACE_S + WRITE_GRACE_S, where
        assert stream.close_code == 1000, where
        assert not [entry for entry in stream.wire if entry.kind == "malformed"], where
        is_whole(services, where)

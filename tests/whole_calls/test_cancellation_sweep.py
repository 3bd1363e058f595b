"""A scripted call, cancelled at every single checkpoint it has: nothing is ever left half-done.

The call has a greeting, a barge-in, an answer, a tool and a hang-up. It is run once under the autojump clock
while a ``trio.abc.Instrument`` counts the steps of the call's own tasks; then once per step with the call
cancelled exactly there.
"""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing
from sweeps import GRACE_S, STRIDE, CancelAt, Result, run_virtually
from virtual_call import CALL_SID, open_call, open_services

from agent.core.records import Outcome
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

SHARDS = 4
"""The sweep runs in as many tests, so that a runner with workers can share it out."""


def make_model() -> ScriptedRealtime:
    return ScriptedRealtime(
        [
            Answer("Hello, how can I help?", 1200, first_delta_ms=40),
            Answer("Goodbye then.", 160, first_delta_ms=40, tool_call=ScriptedToolCall("end_call", {})),
        ],
        transcription_delay_ms=20,
    )


async def run_script(instrument: CancelAt) -> Result:
    """The scripted call; returns the house, the carrier's stream, and when the call was over."""
    model = make_model()
    async with open_services(
        memory_realtime(lambda: model), greeting_protect_ms=100, vad_silence_ms=100
    ) as services:
        instrument.services = services
        async with open_call(services) as stream, trio.open_nursery() as nursery:
            services.rest.streams[CALL_SID] = stream

            @nursery.start_soon
            async def _caller() -> None:
                await stream.until_heard_ms(300)
                stream.say(tone(120))

            with trio.fail_after(60):
                await stream.until_closed()
            nursery.cancel_scope.cancel()
        with trio.fail_after(GRACE_S):
            while services.calls.active:  # noqa: ASYNC110 - the end of a call is not an event of the house
                await trio.sleep(0.01)
        return services, stream, trio.current_time()


def test_st_1_the_scripted_call_runs_through() -> None:
    """Uncancelled, the script is what the sweep needs: a barge-in, a tool, all children, an orderly end."""
    instrument = CancelAt(None)
    services, stream, _ = run_virtually(instrument, run_script)
    record = services.record
    assert record.outcome is Outcome.AGENT_HUNG_UP
    assert record.metrics.barge_in_events == 1
    assert record.metrics.events["END_CALL_ASKED"] == 1
    assert record.recording_sid is not None
    assert stream.close_code == 1000
    children = {"ingress", "realtime", "TX pacer", "barge-in monitor", "watch", "keepalive", "generation 1"}
    assert children <= instrument.tasks
    assert instrument.steps > 300


@pytest.mark.parametrize("shard", range(SHARDS))
def test_st_1_a_call_cancelled_at_any_checkpoint_ends_whole(shard: int) -> None:
    """Cancelled before any of its steps, the call ends within its grace and leaves nothing behind.

    One outcome is recorded, made durable and handed over, once; the caller's leg is hung up; the carrier saw
    whole WebSocket frames and a close frame; no thread was left.
    """
    total = CancelAt(None)
    run_virtually(total, run_script)
    threads = threading.active_count()
    for at in range(shard, total.steps, SHARDS * STRIDE):
        instrument = CancelAt(at)
        services, stream, over_s = run_virtually(instrument, run_script)
        where = f"cancelled before step {at} of {total.steps}"
        record = services.record
        assert instrument.cancelled_at_s is not None, where
        assert over_s - instrument.cancelled_at_s <= GRACE_S, where
        assert services.handed_over() == [CALL_SID], where
        assert record.outcome in (Outcome.SERVER_STOPPED, Outcome.AGENT_HUNG_UP), where
        assert services.rest.hung_up == [CALL_SID], where
        assert not [entry for entry in stream.wire if entry.kind == "malformed"], where
        assert stream.close_code == 1000, where
        assert "POST_CANCEL_AUDIO_VIOLATION" not in record.metrics.events, where
        assert "CALL_ERROR" not in record.metrics.events, where
        assert "GUEST_FAILED" not in record.metrics.events, where
        assert threading.active_count() <= threads, where

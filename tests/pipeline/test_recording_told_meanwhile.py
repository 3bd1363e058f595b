"""After the call: a bell that rings while the worker looks elsewhere is heard."""

from __future__ import annotations

import pytest
from ended_calls import change, make_record, rows
from unkind_models import suppose

from agent.core.records import RecordingCallback
from agent.core.units import RecordingSid
from agent.store.pg import open_connection
from agent.store.sql.calls import keep_record
from agent.store.sql.claims import claim_call, release_call, settle_due
from agent.store.sql.ledger import postpone_step, start_step
from agent.store.sql.recordings import note_callback

pytestmark = pytest.mark.sockets


async def test_a_recording_that_completes_while_the_worker_asks_is_looked_at_soon(postgres: str) -> None:
    """The callback comes between the worker's question and its postponing: the call is due at once."""
    recording = RecordingSid("RE1")
    record = make_record(1, recording_sid=recording)
    async with (
        open_connection(postgres) as worker,
        open_connection(postgres) as claims,
    ):
        call_id = await keep_record(worker, record)
        change(postgres, "UPDATE calls SET due_at = now() - interval '1 s'")
        claim = await claim_call(claims, call_id, "worker")
        suppose(claim, "the call is there to be claimed")
        if claim is None:
            return
        await start_step(worker, claim, "recording", "worker")
        callback = RecordingCallback(record.call_sid, recording, "completed", "https://x", 40, 2)
        await note_callback(worker, callback)
        await postpone_step(worker, claim, "recording", "not ready", 150.0)
        await settle_due(worker, claim)
        await release_call(claims, claim)
    [(wait_s,)] = rows(postgres, "SELECT extract(epoch FROM due_at - now())::float FROM calls")
    assert wait_s < 5.0

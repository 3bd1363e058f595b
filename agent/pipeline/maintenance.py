"""What a worker does besides the calls' steps.

It ends the calls of dead servers, resumes what waited for a model that it has, tidies up at the carrier, counts.
None of it belongs to a step: a carrier that does not delete must not hold up anybody's webhook.
"""

from typing import Final

import httpx
import trio

from agent.core.errors import CarrierError, StepDeadError
from agent.core.event_log import EventLog
from agent.core.units import RecordingSid
from agent.pipeline.backends import Backends
from agent.pipeline.recording.download import RecordingSource
from agent.store import AWAY, Database
from agent.store.sql.backlog import count_left
from agent.store.sql.calls import end_crashed
from agent.store.sql.claims import resume_waiting
from agent.store.sql.recordings import mark_deleted, to_be_deleted

EVERY_S: Final = 15.0
AT_ONCE: Final = 20
"""Recordings deleted in one go."""
LONGEST_REST_S: Final = 3600.0
"""Between two tries to delete a recording; the first rest is EVERY_S, each further one twice as long."""


async def run_chores(database: Database, backends: Backends, events: EventLog) -> None:
    """Every EVERY_S, until cancelled. Several workers may do the same: each task may be done twice."""
    rests: dict[str, tuple[float, float]] = {}
    while True:
        try:
            await _end_crashed(database, events)
            async with database.connection() as connection:
                resumed = await resume_waiting(connection, backends.models)
                left, waiting = await count_left(connection)
            events.telemetry.postcall_open.set(left)
            events.telemetry.postcall_waiting.set(waiting)
            for call_sid in resumed:
                events.emit("POSTCALL_RESUMED", call=call_sid)
            if backends.carrier is not None:
                await _delete_recordings(database, backends.carrier, events, rests)
        except AWAY as error:
            events.emit("CHORES_WAIT", "warning", error=" ".join(str(error).split()))
        await trio.sleep(EVERY_S)


async def _end_crashed(database: Database, events: EventLog) -> None:
    async with database.connection() as connection:
        crashed = await end_crashed(connection)
    for call_sid in crashed:
        events.emit("CALL_CRASHED", "warning", call=call_sid)


async def _delete_recordings(
    database: Database, carrier: RecordingSource, events: EventLog, rests: dict[str, tuple[float, float]]
) -> None:
    """Delete at the carrier what is to be; ``rests`` says until when those rest that failed, and how long."""
    now_s = trio.current_time()
    resting = [sid for sid, (until_s, _) in rests.items() if until_s > now_s]
    async with database.connection() as connection:
        found = await to_be_deleted(connection, resting, AT_ONCE)
    for recording_sid in found:
        try:
            await carrier.delete_recording(RecordingSid(recording_sid))
        except (CarrierError, StepDeadError, httpx.HTTPError) as error:
            rest_s = min(2 * rests[recording_sid][1] if recording_sid in rests else EVERY_S, LONGEST_REST_S)
            rests[recording_sid] = (now_s + rest_s, rest_s)
            events.emit("RECORDING_NOT_DELETED", "warning", recording=recording_sid, error=str(error))
            continue
        rests.pop(recording_sid, None)
        async with database.connection() as connection:
            await mark_deleted(connection, recording_sid)
        events.emit("RECORDING_DELETED", recording=recording_sid)

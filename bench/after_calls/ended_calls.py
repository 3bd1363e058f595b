"""Calls that end one after the other, without having been: their records go the way that a server's go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import trio

from agent.call.tools.desk import StoreDesk
from agent.core.records import CallMetrics, CallRecord, Outcome, RecordingCallback, Turn
from agent.core.units import CallSid, RecordingSid, StreamSid
from agent.postcall import RecordMover
from agent.store import Database
from agent.store.spool import Spool
from agent.store.sql.recordings import note_callback
from agent.store.sql.values import NewAppointment
from bench.after_calls.recording_desk import recording_sid
from bench.generator.plan import OUR_NUMBER, call_sid, number_of

LASTED: Final = timedelta(seconds=40)
METRICS: Final = CallMetrics(
    duration_ms=40_000,
    barge_in_events=1,
    fps=50.0,
    max_gap_ms=21.0,
    first_audio_ms=310,
    turn_latencies_ms=(480,),
    frames_in=2000,
    frames_out=900,
    frames_dropped=0,
    reconnects=0,
    stalls=0,
)
_WANTED: Final = "My name is Dana Levi, I am from Haifa and I would like to book a cleaning."
_TURNS: Final = (
    Turn("agent", "item_1", "Hello, how can I help?", "Hello, how can I help?", 0, 1500, 1500, interrupted=False),
    Turn("caller", "item_2", _WANTED, _WANTED, 2000, 4000, 4000, interrupted=False),
    Turn("agent", "item_3", "It is booked. Goodbye.", "It is booked.", 7000, 2500, 1800, interrupted=True),
)


@attrs.define(eq=False)
class EndingCalls:
    """Ends calls: every second was recorded, in every third an appointment was made."""

    database: Database
    spool: Spool
    mover: RecordMover
    appointments: dict[str, int] = attrs.field(factory=dict)
    """How many were made, by the SIDs of the calls that have ended."""

    async def end(self, number: int) -> None:
        """A call ends. Raises what agent.store.AWAY names, OSError."""
        sid, ended_at = CallSid(call_sid(number)), datetime.now(UTC)
        booked, recorded = number % 3 == 0, number % 2 == 0
        if booked:
            new = NewAppointment("default", sid, "call_1", ended_at + timedelta(days=1), number_of(number))
            await StoreDesk(self.database).add_appointment(new, most_a_day=1)
        recording = RecordingSid(recording_sid(sid)) if recorded else None
        record = CallRecord(
            call_sid=sid,
            stream_sid=StreamSid(f"MZ{number:032x}"),
            direction="inbound",
            caller=number_of(number),
            called=OUR_NUMBER,
            answered_at=ended_at - LASTED,
            ended_at=ended_at,
            outcome=Outcome.CALLER_HUNG_UP,
            reason="stop",
            turns=_TURNS,
            metrics=METRICS,
            recording_sid=recording,
        )
        await self.spool.save(record)
        self.appointments[sid] = int(booked)
        self.mover.look()
        if recording is not None:
            async with self.database.connection() as connection:
                await note_callback(connection, RecordingCallback(sid, recording, "completed"))

    async def end_some(self, numbers: range, every_s: float) -> None:
        """End calls one after the other."""
        for number in numbers:
            await self.end(number)
            await trio.sleep(every_s)

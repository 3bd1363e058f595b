"""What all calls of a process share: made once by the server, or by a test with simulators in its place."""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files
from typing import Any

import attrs
import trio

from agent.carrier_rest import CarrierRest
from agent.eventlog import EventLog
from agent.metronome import Metronome
from agent.model_leg import Connector
from agent.realtime_events import make_session
from agent.record_store import RecordStore
from agent.records import CallRecord
from agent.settings import Settings
from agent.tools import END_CALL
from agent.units import CallSid


@attrs.define(eq=False, slots=False)
class CallHouse:
    """Shared by all calls; ``active`` holds the cancel scope of each call in progress.

    Cancelling one of those scopes ends that call in an orderly way: its ending is shielded and bounded.
    """

    settings: Settings
    events: EventLog
    metronome: Metronome
    rest: CarrierRest | None
    connect_model: Connector
    records: RecordStore
    hand_over: trio.MemorySendChannel[CallRecord]
    active: dict[CallSid, trio.CancelScope] = attrs.field(factory=dict)

    @cached_property
    def apology(self) -> bytes:
        """The bundled prompt for a model that cannot be reached: mu-law, English."""
        return (files("agent") / "prompts" / "unavailable.ulaw").read_bytes()

    @cached_property
    def session(self) -> dict[str, Any]:
        """The session object every call's model is given."""
        settings = self.settings
        detection: dict[str, Any] = {"type": settings.turn_detection}
        if settings.turn_detection == "server_vad":
            detection |= {"threshold": settings.vad_threshold, "silence_duration_ms": settings.vad_silence_ms}
        transcription = {"model": settings.transcription_model}
        if settings.language:
            transcription["language"] = settings.language
        noise_reduction = None if settings.noise_reduction == "off" else settings.noise_reduction
        return make_session(
            instructions=settings.instructions,
            voice=settings.voice,
            turn_detection=detection,
            transcription=transcription,
            noise_reduction=noise_reduction,
            tools=[END_CALL.declare()],
        )

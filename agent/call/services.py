"""What all calls of a process share: made once by the server, or by a test with simulators in its place."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import trio

from agent.audio.metronome import Metronome
from agent.call.tools.declare import Tool
from agent.carrier.rest import CarrierRest
from agent.core.admission import Admission
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.core.event_log import EventLog
from agent.core.provider_models import language_hint
from agent.core.settings import Settings
from agent.core.tenant import Tenant
from agent.core.units import CallSid
from agent.model.requests import make_session
from agent.model.session import Connector
from agent.store.call_writer import CallWriter
from agent.store.spool import RecordStore
from agent.store.tenant_directory import TenantDirectory, default_tenant


@attrs.define(eq=False, slots=False)
class CallServices:
    """Shared by all calls; ``active`` holds the cancel scope of each call in progress.

    Cancelling one of those scopes ends that call in an orderly way: its ending is shielded and bounded.
    """

    settings: Settings
    events: EventLog
    metronome: Metronome
    rest: CarrierRest | None
    connect_model: Connector
    records: RecordStore
    hand_over: trio.MemorySendChannel[CallSid]
    guests: trio.Nursery
    """Where code of others runs for the calls; it outlives them all (see agent.call.guests)."""
    tools: tuple[Tool, ...] = ()
    """What the model may use besides what a call does itself; each tenant allows some of them."""
    keeper: CallWriter | None = None
    """Keeps calls while they go on; None: there is no database."""
    tenants: TenantDirectory = attrs.field()
    admission: Admission = attrs.field()
    """Who is taken; calls tell it what they learn of the model's limits."""
    active: dict[CallSid, trio.CancelScope] = attrs.field(factory=dict)

    @admission.default
    def _by_settings(self) -> Admission:
        return Admission(self.settings.max_calls)

    @tenants.default
    def _no_tenants(self) -> TenantDirectory:
        return TenantDirectory(default_tenant(self.settings), self.settings.unknown_number)

    def tick_ran(self, late_s: float) -> None:
        """A pacer's tick ran ``late_s`` after its deadline."""
        self.admission.tick(late_s)
        self.events.telemetry.frame_lateness.observe(late_s)

    def greeting_of(self, tenant: Tenant) -> str:
        """The first words of the agent; empty: the caller begins."""
        return self.settings.greeting if tenant.greeting is None else tenant.greeting

    def session_of(
        self, tenant: Tenant, tools: Collection[Tool], now: datetime, audio: AudioFormat = ULAW_8K
    ) -> dict[str, Any]:
        """The session object that the model of a tenant's call is given; ``now`` is aware."""
        settings = self.settings
        detection: dict[str, Any] = {"type": settings.turn_detection}
        if settings.turn_detection == "server_vad":
            detection |= {"threshold": settings.vad_threshold, "silence_duration_ms": settings.vad_silence_ms}
        transcription = None
        if settings.transcribes_calls:
            model = settings.transcription_model
            transcription = {"model": model, **language_hint(model, tenant.language)}
        noise_reduction = None if settings.noise_reduction == "off" else settings.noise_reduction
        return make_session(
            audio=audio,
            instructions=_instructions(settings.instructions, tenant, now, timely=len(tools) > 1),
            voice=tenant.voice or settings.voice,
            turn_detection=detection,
            transcription=transcription,
            noise_reduction=noise_reduction,
            tools=[tool.declare() for tool in tools],
        )


def _instructions(default: str, tenant: Tenant, now: datetime, *, timely: bool) -> str:
    """What the model is told: the tenant's own words, and what it could not know; ``timely``: the time, too."""
    lines = [default if tenant.instructions is None else tenant.instructions]
    if tenant.name and tenant.instructions is None:
        lines.append(f"You are the assistant of {tenant.name}.")
    if tenant.services:
        lines.append(f"Services: {', '.join(tenant.services)}.")
    if tenant.language:
        lines.append(f"Speak the language {tenant.language} unless the caller prefers another.")
    if timely:
        local = now.astimezone(ZoneInfo(tenant.time_zone))
        lines.append(f"It is now {local:%A, %Y-%m-%d, %H:%M} ({tenant.time_zone}).")
    return "\n".join(lines)

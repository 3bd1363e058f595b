"""Whole calls in virtual time: the real nursery, the real WebSocket protocol, simulators at both ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from memory_rest import MemoryRest

from agent.app.call_answer import answer
from agent.audio.metronome import Metronome
from agent.call.services import CallServices
from agent.call.tools.declare import Tool
from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.settings import Settings, load_settings
from agent.core.telemetry import Telemetry
from agent.core.tenant import Tenant
from agent.core.units import CallSid
from agent.model.session import Connector
from agent.postcall import PostCallChannel
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.memory import memory_realtime, open_memory_sockets
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.store.call_writer import CallWriter

CALL_SID = "CA" + "1" * 32


@attrs.define(eq=False)
class MemoryRecords:
    """A record store without a disk: keeps what it is given, after a moment."""

    saved: list[CallRecord] = attrs.field(factory=list)
    delay_s: float = 0.01
    fails: bool = False

    async def save(self, record: CallRecord) -> Path | None:
        """See RecordStore."""
        with trio.CancelScope(shield=True):
            await trio.sleep(self.delay_s)
        if self.fails:
            raise OSError("the disk is full")
        self.saved.append(record)
        return None


@attrs.define(eq=False)
class FakeServices:
    """A house with its simulators."""

    calls: CallServices
    rest: MemoryRest
    records: MemoryRecords
    channel: PostCallChannel

    @property
    def record(self) -> CallRecord:
        """The one record of a test with one call."""
        [record] = self.records.saved
        return record

    def handed_over(self) -> list[CallSid]:
        """What arrived in the post-call channel."""
        arrived = []
        while self.channel.service_end.statistics().current_buffer_used:
            arrived.append(self.channel.service_end.receive_nowait())
        return arrived


def make_settings(**changes: Any) -> Settings:
    """Settings for tests: no environment, no waiting for idle prompts, the caller's words in text."""
    given = {"openai_api_key": "test", "idle_prompt_s": 0.0, "greeting": "Hello.", "transcription_model": "test"}
    return load_settings(**{**given, **changes})


@asynccontextmanager
async def open_services(
    connect: Connector,
    *,
    tools: tuple[Tool, ...] = (),
    tenant: Tenant | None = None,
    keeper: CallWriter | None = None,
    **changes: Any,
) -> AsyncIterator[FakeServices]:
    """A house whose metronome runs; all calls are those of ``tenant``, if one is given."""
    async with trio.open_nursery() as guests, trio.open_nursery() as nursery:
        records = MemoryRecords()
        rest = MemoryRest()
        channel = PostCallChannel.open()
        events = EventLog(Telemetry())
        metronome = Metronome()
        calls = CallServices(
            settings=make_settings(**changes),
            events=events,
            metronome=metronome,
            rest=rest,
            connect_model=connect,
            records=records,
            hand_over=channel.calls_end,
            guests=guests,
            tools=tools,
            keeper=keeper,
        )
        if tenant is not None:
            calls.tenants.default = tenant
        nursery.start_soon(metronome.run)
        yield FakeServices(calls, rest, records, channel)
        nursery.cancel_scope.cancel()


async def admit(start: Start) -> CallTicket:
    """Every stream is welcome."""
    await trio.lowlevel.checkpoint()
    return CallTicket(start.call_sid, "inbound", "+15551230001", "+15551230002")


@asynccontextmanager
async def open_call(
    services: FakeServices, *, call_sid: str = CALL_SID, at_most_s: float = 120.0, **stream: Any
) -> AsyncIterator[SimulatedStream]:
    """A carrier's stream, answered by the house; left when the agent's side is over.

    Raises trio.TooSlowError when the call is not over after ``at_most_s`` of virtual time.
    """
    with trio.fail_after(at_most_s):
        async with _open_call(services, call_sid, stream) as simulated:
            yield simulated


@asynccontextmanager
async def _open_call(
    services: FakeServices, call_sid: str, stream: dict[str, Any]
) -> AsyncIterator[SimulatedStream]:
    async with (
        open_memory_sockets() as (carrier_end, agent_end),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(answer, agent_end, services.calls, admit)
        async with open_simulated_stream(
            carrier_end, call_sid=call_sid, stream_sid="MZ" + call_sid[2:], **stream
        ) as simulated:
            yield simulated


@asynccontextmanager
async def open_scripted_call(
    answers: Sequence[Answer],
    *,
    settings: dict[str, Any] | None = None,
    transcripts: Sequence[str] = (),
    at_most_s: float = 120.0,
    **stream: Any,
) -> AsyncIterator[tuple[FakeServices, SimulatedStream, ScriptedRealtime]]:
    """One call to one scripted model."""
    model = ScriptedRealtime(answers, transcripts=transcripts)
    async with (
        open_services(memory_realtime(lambda: model), **(settings or {})) as services,
        open_call(services, at_most_s=at_most_s, **stream) as simulated,
    ):
        yield services, simulated, model


def tx(stream: SimulatedStream, kind: str) -> list[Any]:
    """The messages of one kind that the agent sent."""
    return [entry for entry in stream.wire if entry.direction == "tx" and entry.kind == kind]


def received(model: ScriptedRealtime, kind: str) -> list[dict[str, Any]]:
    """The events of one type that the model received."""
    return [event for _, event in model.received if event["type"] == kind]


def counts(record: CallRecord) -> Counter[str]:
    """The events counted during a call."""
    return Counter(record.metrics.events)

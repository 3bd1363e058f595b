"""Calls on which something goes wrong: raw legs, links that can be held, and a neighbour that must not notice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from virtual_call import CALL_SID, FakeServices, admit, open_call, open_services

from agent.app.call_answer import answer
from agent.carrier.media_stream import Start
from agent.carrier.stream_token import CallTicket
from agent.core.records import CallRecord, Outcome
from agent.core.units import CallSid, StreamSid
from agent.sim.carrier.codec import MessageWriter
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.link import HeldStream, memory_link
from agent.sim.memory import memory_realtime, open_memory_sockets
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.wire.websocket import TrioWebSocket

NEIGHBOUR = "CA" + "9" * 32
GREETING = Answer("Hello, this is the assistant, how can I help you today?", 3000)
SHORT = Answer("You are welcome.", 800)
LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 4000)

Admit = Callable[[Start], Awaitable[CallTicket]]


@attrs.define(eq=False)
class Leg:
    """One carrier leg: the carrier's socket to misbehave on, and the link underneath it."""

    socket: TrioWebSocket
    link: HeldStream
    agent_link: HeldStream
    writer: MessageWriter
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the agent's whole side of the connection, as a server's nursery is."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """The agent's side has ended."""

    async def send(self, *messages: str) -> None:
        """Write messages as they are."""
        for message in messages:
            await self.socket.send(message)


@asynccontextmanager
async def open_leg(
    services: FakeServices, *, call_sid: str = CALL_SID, admit: Admit = admit, at_most_s: float = 120.0
) -> AsyncIterator[Leg]:
    """A carrier's socket, answered by the house, on which nothing was said yet; waits for the agent's end."""
    carrier_link, agent_link = memory_link()
    with trio.fail_after(at_most_s):
        async with (
            open_memory_sockets((carrier_link, agent_link)) as (carrier_end, agent_end),
            trio.open_nursery() as nursery,
        ):
            writer = MessageWriter(StreamSid("MZ" + call_sid[2:]), CallSid(call_sid), "AC" + "0" * 32)
            leg = Leg(carrier_end, carrier_link, agent_link, writer)

            async def answer_leg() -> None:
                with leg.scope:
                    await answer(agent_end, services.calls, admit)
                leg.over.set()

            nursery.start_soon(answer_leg)
            yield leg
            await leg.over.wait()


@asynccontextmanager
async def open_faulty_call(
    services: FakeServices, *, call_sid: str = CALL_SID, at_most_s: float = 120.0, **stream: Any
) -> AsyncIterator[tuple[SimulatedStream, Leg]]:
    """A simulated carrier's call, and the leg it runs on."""
    async with (
        open_leg(services, call_sid=call_sid, at_most_s=at_most_s) as leg,
        open_simulated_stream(
            leg.socket, call_sid=call_sid, stream_sid="MZ" + call_sid[2:], link=leg.link, **stream
        ) as simulated,
    ):
        yield simulated, leg


@asynccontextmanager
async def open_one_call(
    model: ScriptedRealtime, *, settings: dict[str, Any] | None = None, **stream: Any
) -> AsyncIterator[tuple[FakeServices, SimulatedStream, Leg]]:
    """A house with one call to one scripted model."""
    async with (
        open_services(memory_realtime(lambda: model), **(settings or {})) as services,
        open_faulty_call(services, **stream) as (simulated, leg),
    ):
        yield services, simulated, leg


@asynccontextmanager
async def a_neighbour(services: FakeServices) -> AsyncIterator[None]:
    """A healthy call beside the one under test: it speaks all the time, and nothing of it may be touched."""
    model = ScriptedRealtime([Answer(f"Part {number}.", 20_000) for number in range(20)])
    connect, services.calls.connect_model = services.calls.connect_model, memory_realtime(lambda: model)
    async with open_call(services, call_sid=NEIGHBOUR, at_most_s=400.0) as stream:
        await stream.until_heard_ms(100)
        services.calls.connect_model = connect
        yield
        assert NEIGHBOUR in services.calls.active
        await stream.until_heard_ms(20_000)
        await stream.hang_up()
    record = record_of(services, NEIGHBOUR)
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert stream.playback.underruns == []
    assert stream.protocol_errors == []
    assert record.metrics.max_gap_ms is not None
    assert record.metrics.max_gap_ms < 60
    assert record.metrics.fps == pytest.approx(50, abs=0.5)
    assert not set(record.metrics.events) - ORDINARY


ORDINARY = {
    *("CALL_STARTED", "SPEAKING", "FIRST_FRAME_SENT", "RECORDING_STARTED", "ANSWER_HEARD"),
    "CALLER_AUDIO_REPAIRED",
}
"""Events of a call on which nothing happens but talk."""


def record_of(services: FakeServices, call_sid: str = CALL_SID) -> CallRecord:
    """The one record of a call; it was handed over, too, or would have been lost."""
    [record] = [record for record in services.records.saved if record.call_sid == call_sid]
    return record


def assert_over(services: FakeServices) -> None:
    """ST-1: nothing of any call is left in the house, and each record was handed over once."""
    assert services.calls.active == {}
    assert not services.calls.metronome._slots
    assert sorted(services.handed_over()) == sorted(record.call_sid for record in services.records.saved)

"""The demo's caller reacts to what it hears, in virtual time: it waits, interrupts, hangs up, or gives up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from agent.app.demo.phoning import ANSWER_S, HANG_UP_S, CallStuckError, follow_script, play_recording
from agent.app.demo.script import ScriptedLine, SpokenLine
from agent.carrier.media_stream import OutboundEncoder
from agent.core.errors import SocketClosedError
from agent.core.units import StreamSid
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.memory import open_memory_sockets
from agent.sim.sounds import tone
from agent.wire.websocket import MessageSocket

Agent = Callable[[MessageSocket], Awaitable[None]]
ENCODER = OutboundEncoder(StreamSid("MZ1"))


async def drain(socket: MessageSocket) -> None:
    try:
        while True:
            await socket.receive()
    except SocketClosedError:
        return


@asynccontextmanager
async def open_call(agent: Agent) -> AsyncIterator[SimulatedStream]:
    """A stream whose other end is ``agent``; what the caller sends is read and forgotten."""
    with trio.fail_after(200):
        async with open_memory_sockets() as (carrier_end, agent_end), trio.open_nursery() as nursery:
            nursery.start_soon(drain, agent_end)
            nursery.start_soon(agent, agent_end)
            async with open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1") as stream:
                yield stream
            nursery.cancel_scope.cancel()


async def silent(_: MessageSocket) -> None:
    await trio.sleep_forever()


def saying(*answers: tuple[float, int], hang_up_s: float) -> Agent:
    """An agent that at given seconds drops what it is saying for an answer of so many milliseconds."""

    async def run(socket: MessageSocket) -> None:
        begin_s = trio.current_time()
        for at_s, length_ms in answers:
            await trio.sleep_until(begin_s + at_s)
            await socket.send(ENCODER.clear)
            await socket.send(ENCODER.media(tone(length_ms)))
        await trio.sleep_until(begin_s + hang_up_s)
        await socket.aclose()

    return run


def spoken(*lines: ScriptedLine) -> list[SpokenLine]:
    return [SpokenLine(line, tone(500)) for line in lines]


def begins(stream: SimulatedStream) -> list[float]:
    return [span.start_s - stream.started_s for span in stream.said.spans]


async def test_a_line_interrupts_or_waits(autojump_clock: MockClock) -> None:
    """The first after 1 s was heard, the second when the answer has ended and 600 ms more."""
    told: list[str] = []
    async with open_call(saying((1.0, 3000), (2.1, 0), (6.0, 2000), (9.5, 500), hang_up_s=12)) as stream:
        script = spoken(ScriptedLine("Stop!", after_heard_ms=1000), ScriptedLine("And then?"))
        await follow_script(script, stream, told.append)
        assert begins(stream) == [pytest.approx(2.0, abs=0.05), pytest.approx(8.6, abs=0.05)]
        assert trio.current_time() - stream.started_s == pytest.approx(12, abs=0.1)
    assert told == ["caller interrupts after 1.0 s: Stop!", "caller says: And then?"]


async def test_a_silent_agent_is_given_up(autojump_clock: MockClock) -> None:
    async with open_call(silent) as stream:
        with pytest.raises(CallStuckError, match=r"heard 0\.0 s, before saying: Stop!"):
            await follow_script(spoken(ScriptedLine("Stop!", after_heard_ms=1000)), stream, print)
        assert trio.current_time() - stream.started_s == pytest.approx(ANSWER_S, abs=0.1)


async def test_an_agent_that_never_stops_or_never_hangs_up_is_given_up(autojump_clock: MockClock) -> None:
    async with open_call(saying((0.0, 60_000), hang_up_s=1000)) as stream:
        with pytest.raises(CallStuckError, match="without a pause"):
            await follow_script(spoken(ScriptedLine("Well?")), stream, print)
    async with open_call(saying((0.0, 500), hang_up_s=1000)) as stream:
        with pytest.raises(CallStuckError, match=f"did not hang up within {HANG_UP_S:.0f} s"):
            await follow_script(spoken(ScriptedLine("Bye!")), stream, print)


async def test_an_early_hang_up_ends_the_script(autojump_clock: MockClock) -> None:
    """What was missing the checks will say."""
    async with open_call(saying((0.0, 500), hang_up_s=0.9)) as stream:
        await follow_script(spoken(ScriptedLine("Well?"), ScriptedLine("And?")), stream, print)
        assert begins(stream) == []


async def test_a_recording_is_played_turn_by_turn_and_then_hung_up(autojump_clock: MockClock) -> None:
    """Each turn waits for the answer before it; an answer that does not come is not waited for for ever."""
    told: list[str] = []
    async with open_call(saying((0.5, 1000), (4.0, 1000), hang_up_s=1000)) as stream:
        await play_recording(spoken(ScriptedLine("1"), ScriptedLine("2")), stream, told.append)
        assert stream.is_closed
        assert begins(stream) == [pytest.approx(2.1, abs=0.05), pytest.approx(5.6, abs=0.05)]
    assert told == ["caller says part 1 of 2 (0.5 s)", "caller says part 2 of 2 (0.5 s)", "caller hangs up"]

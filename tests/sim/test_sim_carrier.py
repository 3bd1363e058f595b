"""The simulated media stream: it speaks as Twilio does, and what goes wrong with it goes wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agent.carrier.media_stream import CarrierMessage, Connected, OutboundEncoder, Start, decode_message
from agent.core.caller_leg import Dtmf, MarkReturned, Media, Stop
from agent.core.errors import SocketClosedError
from agent.core.units import CallSid, StreamSid
from agent.sim.carrier.network import Network
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.link import memory_link
from agent.sim.memory import open_memory_sockets
from agent.sim.sounds import Utterance, numbered, numbers_in, silence, tone
from agent.sim.ticker import Ticker
from agent.wire.websocket import EngineSocket, TrioWebSocket, open_client, open_server_over


@attrs.define(eq=False)
class Agent:
    """An agent that only remembers: every message with its time, and how the stream ended."""

    socket: EngineSocket
    encoder: OutboundEncoder = attrs.field(factory=lambda: OutboundEncoder(StreamSid("MZ1")))
    raw: list[dict[str, Any]] = attrs.field(factory=list)
    messages: list[tuple[float, CarrierMessage]] = attrs.field(factory=list)
    close_code: int | None = None

    async def run(self) -> None:
        """Receive until the stream is closed."""
        try:
            while True:
                raw = await self.socket.receive()
                self.raw.append(json.loads(raw))
                self.messages.append((trio.current_time(), decode_message(raw)))
        except SocketClosedError as closed:
            self.close_code = closed.code

    def media(self) -> list[tuple[float, Media]]:
        """Caller audio, with the time it came."""
        return [(t_s, message) for t_s, message in self.messages if isinstance(message, Media)]

    def times_of(self, kind: type[CarrierMessage]) -> list[float]:
        """When messages of this kind came."""
        return [t_s for t_s, message in self.messages if isinstance(message, kind)]


@asynccontextmanager
async def open_call(**options: Any) -> AsyncIterator[tuple[SimulatedStream, Agent]]:
    async with open_memory_sockets() as (carrier_end, agent_end), trio.open_nursery() as nursery:
        agent = Agent(agent_end)
        nursery.start_soon(agent.run)
        async with open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1", **options) as stream:
            yield stream, agent
        with trio.fail_after(2):
            while agent.close_code is None:  # noqa: ASYNC110  (the agent of these tests has no bell)
                await trio.sleep(0.01)


async def speaks_like_twilio(carrier_end: EngineSocket, agent_end: EngineSocket) -> None:
    """The contract of a media stream, whatever carries it."""
    agent = Agent(agent_end)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run)
        async with open_simulated_stream(
            carrier_end, call_sid="CA1", stream_sid="MZ1", custom_parameters={"token": "secret"}
        ) as stream:
            for _ in range(10):
                await agent_end.send(agent.encoder.media(b"\x11" * 160))
            await agent_end.send(agent.encoder.mark("greeting"))
            await stream.until_heard_ms(100)
            await agent_end.send(agent.encoder.clear)
            stream.say(tone(100))
            await stream.until_said()
            stream.press("5")
            await stream.until_quiet(0.1)
            await stream.hang_up()
            assert await stream.until_closed() == 1000
    kinds = [type(message) for _, message in agent.messages]
    assert kinds[0] is Connected
    assert agent.messages[1][1] == Start(
        stream_sid=StreamSid("MZ1"),
        call_sid=CallSid("CA1"),
        encoding="audio/x-mulaw",
        sample_rate=8000,
        channels=1,
        custom_parameters={"token": "secret"},
    )
    assert kinds.count(Dtmf) == kinds.count(MarkReturned) == 1
    assert kinds[-1] is Stop
    assert agent.close_code == 1000
    heard = b"".join(message.audio for _, message in agent.media())
    assert heard.count(tone(100)) == 1
    assert set(heard.replace(tone(100), b"")) == {0xFF}
    numbers = [message["sequenceNumber"] for message in agent.raw[1:]]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)], "counted from 1, as strings"
    chunks = [(item["media"]["chunk"], item["media"]["timestamp"]) for item in agent.raw if "media" in item]
    assert [chunk for chunk, _ in chunks[:3]] == ["1", "2", "3"]
    times_ms = [int(timestamp) for _, timestamp in chunks]
    assert times_ms == sorted(times_ms)
    assert 100 <= stream.heard_ms() <= 200
    assert stream.playback.heard("greeting").cleared_bytes == 1600 - stream.playback.played_bytes
    assert stream.playback.tape.audio() == b"\x11" * stream.playback.played_bytes
    assert stream.protocol_errors == []
    assert [entry.kind for entry in stream.wire if entry.direction == "tx"] == [*["media"] * 10, "mark", "clear"]


async def test_contract_in_virtual_time(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (carrier_end, agent_end):
        await speaks_like_twilio(carrier_end, agent_end)


@pytest.mark.sockets
async def test_contract_over_real_sockets() -> None:
    ready: trio.MemorySendChannel[TrioWebSocket]
    ready, accepted = trio.open_memory_channel(1)

    async def serve(stream: trio.SocketStream) -> None:
        async with open_server_over(stream) as handshake:
            ready.send_nowait(await handshake.accept())
            await trio.sleep_forever()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            port = listeners[0].socket.getsockname()[1]
            async with open_client(f"ws://127.0.0.1:{port}/media-stream") as carrier_end:
                await speaks_like_twilio(carrier_end, await accepted.receive())
            nursery.cancel_scope.cancel()
    ready.close()
    accepted.close()


async def test_frames_come_every_20_ms_on_absolute_deadlines(autojump_clock: MockClock) -> None:
    async with open_call() as (stream, agent):
        await trio.sleep(2.01)
        await stream.hang_up()
    times = agent.times_of(Media)
    assert times == pytest.approx([0.02 * number for number in range(len(times))])
    assert len(times) == 101


async def test_marks_come_back_at_the_sample_they_stand_at(autojump_clock: MockClock) -> None:
    """A played mark comes back when its audio was heard, a cleared one at once."""
    async with open_call() as (_, agent):
        await trio.sleep(0.013)
        await agent.socket.send(agent.encoder.media(bytes(804)))
        await agent.socket.send(agent.encoder.mark("played"))
        await agent.socket.send(agent.encoder.media(bytes(8000)))
        await agent.socket.send(agent.encoder.mark("cleared"))
        await trio.sleep(0.5)
        await agent.socket.send(agent.encoder.clear)
        await trio.sleep(0.1)
    assert agent.times_of(MarkReturned) == pytest.approx([0.013 + 804 / 8000, 0.513])


async def test_a_silent_line_can_send_nothing_at_all(autojump_clock: MockClock) -> None:
    """Without silence only speech is sent, with the timestamps of when it was spoken."""
    async with open_call(network=Network(silence=False)) as (stream, agent):
        await trio.sleep(3600)
        stream.say(tone(60))
        await stream.until_said()
        await trio.sleep(1)
    assert [message.timestamp_ms for _, message in agent.media()] == [3600000, 3600020, 3600040]


async def test_the_network_delays_jitters_and_loses(autojump_clock: MockClock) -> None:
    """Delay both ways, order kept, lost frames seen as jumping timestamps."""
    network = Network(delay_s=0.08, jitter_s=0.05, loss=0.1, seed=7)
    async with open_call(network=network) as (stream, agent):
        await trio.sleep(2)
        stream.lose(10)
        before = len(agent.media())
        await agent.socket.send(agent.encoder.media(bytes(160)))
        await trio.sleep(2)
    delays = [t_s - message.timestamp_ms / 1000 for t_s, message in agent.media()]
    assert min(delays) >= 0.08
    assert max(delays) <= 0.13 + 1e-9
    assert max(delays) - min(delays) > 0.02
    timestamps = [message.timestamp_ms for _, message in agent.media()]
    assert timestamps == sorted(timestamps)
    jumps = [later - earlier for earlier, later in pairwise(timestamps)]
    assert max(jumps[before - 5 :]) >= 220, "ten frames in a row"
    assert stream.counts["rx lost"] >= 15
    assert len(timestamps) <= stream.counts["rx media"]
    assert 2.08 <= stream.playback.tape.spans[0].start_s <= 2.13


async def test_hanging_up_closes_and_vanishing_does_not(autojump_clock: MockClock) -> None:
    async with open_call() as (stream, agent):
        await stream.hang_up()
        await stream.hang_up()
        stream.say(tone(100))
        await stream.until_said()
        assert await stream.until_closed() == 1000
    assert agent.times_of(Stop)
    assert agent.close_code == 1000
    async with open_call() as (stream, agent):
        await trio.sleep(0.1)
        await stream.vanish()
        assert await stream.until_closed() == 1006
    assert not agent.times_of(Stop)
    assert agent.close_code == 1006


async def test_the_agent_may_close_first(autojump_clock: MockClock) -> None:
    async with open_call() as (stream, agent):
        await trio.sleep(0.1)
        await agent.socket.aclose(1000)
        assert await stream.until_closed() == 1000
        await stream.until_quiet(5)
        await stream.until_heard_ms(1000)


async def test_a_carrier_that_stops_reading_makes_the_agents_writes_wait(autojump_clock: MockClock) -> None:
    """With the link held nothing is read, not even pings; when it is let go everything arrives in order."""
    link = memory_link(capacity_bytes=2000)
    async with (
        open_memory_sockets(link) as (carrier_end, agent_end),
        open_simulated_stream(
            carrier_end, call_sid="CA1", stream_sid="MZ1", link=link[0], network=Network(silence=False)
        ) as stream,
    ):
        encoder = OutboundEncoder(StreamSid("MZ1"))
        stream.stop_reading()
        with trio.move_on_after(5) as stuck:
            for _ in range(100):
                await agent_end.send(encoder.media(bytes(160)))
        assert stuck.cancelled_caught
        with trio.move_on_after(5) as unanswered:
            await agent_end.ping()
        assert unanswered.cancelled_caught
        assert stream.arrivals.messages == 0
        stream.read_again()
        await trio.sleep(0.5)
        assert stream.arrivals.messages > 5


async def test_what_twilio_would_not_take_is_named(autojump_clock: MockClock) -> None:
    async with open_call() as (stream, agent):
        for wrong in (
            "{",
            '{"event":"media","streamSid":"MZ1"}',
            '{"event":"media","streamSid":"MZ1","media":{"payload":"not base64!"}}',
            '{"event":"clear","streamSid":"MZ2"}',
            '{"event":"hangup","streamSid":"MZ1"}',
        ):
            await agent.socket.send(wrong)
        await trio.sleep(0.1)
    assert len(stream.protocol_errors) == 5
    assert stream.counts["tx malformed"] == 5
    assert "MZ2" in stream.protocol_errors[3]


async def test_many_streams_share_one_ticker(autojump_clock: MockClock) -> None:
    """Streams of one ticker are spread over its phases, and keep only counts when not recording."""
    ticker = Ticker(phases=4)
    speech = Utterance(tone(40))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)

        async def one_call(starts: list[float]) -> None:
            async with open_call(ticker=ticker, record=False) as (stream, agent):
                stream.say(speech)
                await agent.socket.send(agent.encoder.media(bytes(160)))
                await trio.sleep(1.0)
            starts.append(agent.times_of(Media)[1])
            assert len(agent.times_of(Media)) in (50, 51)
            assert stream.wire == []
            assert stream.said.spans == []
            assert stream.playback.tape.spans == []
            assert stream.playback.played_bytes == 160
            assert stream.arrivals.messages == 1

        starts: list[float] = []
        async with trio.open_nursery() as calls:
            for _ in range(8):
                calls.start_soon(one_call, starts)
        nursery.cancel_scope.cancel()
    assert {round(start_s % 0.02, 3) for start_s in starts} == {0.0, 0.005, 0.01, 0.015}


async def test_leaving_by_an_error_raises_it_bare(autojump_clock: MockClock) -> None:
    """A failed assertion in a user's test shows as itself."""
    with pytest.raises(ZeroDivisionError):
        async with (
            open_memory_sockets() as (carrier_end, _),
            open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1"),
        ):
            raise ZeroDivisionError


async def test_what_the_caller_said_and_heard_is_on_tape(autojump_clock: MockClock) -> None:
    async with open_call() as (stream, agent):
        await trio.sleep(0.51)
        stream.say(tone(100))
        stream.say(tone(60))
        await agent.socket.send(agent.encoder.media(numbered(3, 100)))
        await trio.sleep(1)
        stream.say(tone(30))
        await trio.sleep(1)
    assert [round(span.start_s, 2) for span in stream.said.spans] == [0.52, 1.52]
    assert stream.said.audio() == tone(100) + tone(60) + tone(30)
    assert numbers_in(stream.playback.tape.render(0, 2)) == {3: 800}
    assert set(silence(20)) == {0xFF}

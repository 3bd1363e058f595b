"""Whole calls in low bandwidth: WebM/Opus as a MediaRecorder makes it, in virtual time (WB-4)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from browser_calls import BrowserWorld, open_browser_call, open_world, speak_while_broken
from heard_audio import heard_numbers
from trio.testing import MockClock
from virtual_call import open_services, received

from agent.app.browser_answer import BrowserCalls
from agent.browser.admission import BrowserAdmission
from agent.browser.messages import Close
from agent.core.errors import SocketClosedError
from agent.core.records import Outcome
from agent.sim.browser.recorder import WebmRecorder, element, webm_header
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.wire.websocket import MessageSocket

GREETING = Answer("Hello, this is the assistant, how can I help you today?", 3000)
LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 6000)
SHORT = Answer("You are welcome.", 800)
HEAD = b"OpusHead\x01\x01\x00\x00\x80\xbb\x00\x00\x00\x00\x00"
BEGINNING = webm_header(HEAD) + b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7


def counted(world: BrowserWorld, name: str, **labels: str) -> float:
    value = world.services.calls.events.telemetry.registry.get_sample_value(name, labels)
    return value or 0.0


async def test_bi_8_a_the_greeting_is_interrupted_by_a_recording(autojump_clock: MockClock) -> None:
    """A: it comes with its chunk; what counts as heard is what was played. WB-8: what decoding cost is told."""
    async with open_browser_call([GREETING, LONG], recorder=WebmRecorder()) as (world, _, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(700))
        await stream.until_quiet(0.3)
        await stream.until_heard_ms(stream.heard_ms() + 4000)
        await stream.hang_up()
    record = world.services.record
    assert record.metrics.barge_in_events == 1
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(heard_numbers(stream)[0] / 8, abs=40)
    assert truncate["audio_end_ms"] < 1500 + 300 + 200, "a chunk of 250 ms, and the model's own detection"
    assert model.errors_sent == []
    assert counted(world, "agent_browser_decode_cpu_seconds_total") > 0
    assert counted(world, "agent_browser_decode_lag_seconds_count") == pytest.approx(
        record.metrics.duration_ms / 260, rel=0.1
    )


async def test_bi_8_b2_several_interruptions(autojump_clock: MockClock) -> None:
    """B2, with one decoder from the first to the last: caller audio is as long as the call."""
    long = [Answer(f"Answer number {number}, a long one.", 4000, speed=1.5) for number in range(3)]
    async with open_browser_call([GREETING, *long], recorder=WebmRecorder()) as (world, _, stream, model):
        for _ in range(3):
            await stream.until_heard_ms(stream.heard_ms() + 1200)
            stream.say(tone(500))
            await stream.until_said()
            await stream.until_quiet(0.2)
        await trio.sleep(6)
        await stream.hang_up()
    assert world.services.record.metrics.barge_in_events == 3
    assert world.services.record.metrics.frames_in * 20 == pytest.approx(
        world.services.record.metrics.duration_ms, abs=400
    )
    assert model.errors_sent == []


async def test_a_broken_connection_is_made_good(autojump_clock: MockClock) -> None:
    """What was recorded meanwhile comes behind the rest, into the same decoder; the turn is answered."""
    call = open_browser_call([SHORT, LONG], transcripts=["I said something"], recorder=WebmRecorder())
    async with call as (world, phone, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        await speak_while_broken(phone, stream, 1000, 3.0)
        await stream.until_heard_ms(1500)
        await stream.hang_up()
    record = world.services.record
    assert [turn.text for turn in record.turns if turn.role == "caller"] == ["I said something"]
    assert record.metrics.frames_in * 20 == pytest.approx(record.metrics.duration_ms, abs=600)


async def test_a_recorder_that_is_started_again_goes_on(autojump_clock: MockClock) -> None:
    """A header in mid-call: a page that closed its microphone for a while, or lost it (WB-6)."""
    recorder = WebmRecorder()
    call = open_browser_call([SHORT, SHORT], transcripts=["I said something"], recorder=recorder)
    async with call as (world, _, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        recorder.start()
        stream.say(tone(700))
        await stream.until_heard_ms(1500)
        await stream.hang_up()
    assert [turn.text for turn in world.services.record.turns if turn.role == "caller"] == ["I said something"]
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


@asynccontextmanager
async def open_call(world: BrowserWorld) -> AsyncIterator[MessageSocket]:
    """A connection that has said that it will send WebM."""
    async with world.connect() as socket:
        await socket.send(f'{{"type":"hello","token":"{world.token()}","format":"webm/opus"}}')
        assert '"welcome"' in str(await socket.receive())
        yield socket


async def until_closed(socket: MessageSocket) -> tuple[int, str]:
    """Read until the other side closes; its code and its reason."""
    try:
        while True:
            await socket.receive()
    except SocketClosedError as closed:
        return closed.code, closed.reason


@pytest.mark.parametrize(
    ("chunks", "code", "says"),
    [
        ([bytes(960)], Close.BAD_AUDIO, "no element begins with 0x00"),
        ([b"RIFF" + bytes(1000)], Close.BAD_AUDIO, "it is not WebM"),
        ([webm_header(HEAD, b"A_VORBIS")], Close.BAD_AUDIO, "its codec is A_VORBIS"),
        ([webm_header(HEAD, b"V_VP8")], Close.BAD_AUDIO, "its codec is V_VP8"),
        ([webm_header(HEAD[:9] + b"\6" + HEAD[10:])], Close.BAD_AUDIO, "channels"),
        ([BEGINNING, element("a3", b"\x81\0\0\x80\x0b\xff\xff\xff")], Close.BAD_AUDIO, "times"),
        ([BEGINNING, element("a3", b"\x81\0\0\x80\x03\x41\xff\xff")], Close.BAD_AUDIO, "broken"),
        ([BEGINNING, b"\xa3\x01" + b"\xfe" * 7], Close.BAD_AUDIO, "an element 0xa3"),
        ([BEGINNING, *[element("ec", bytes(60_000))] * 6], Close.BAD_AUDIO, "no audio"),
        ([bytes(70_000)], Close.FLOOD, "more audio than can be"),
        ([BEGINNING, element("a3", b"\x81\0\0\x80\x18") * 1000], Close.BAD_AUDIO, "more audio than time"),
        ([BEGINNING] * 60, Close.BAD_AUDIO, "too many beginnings"),
        ([element("ec", bytes(60_000))] * 20, Close.BAD_AUDIO, "it is not WebM"),
    ],
)
async def test_what_cannot_be_decoded_closes_its_own_call(
    chunks: list[bytes], code: int, says: str, autojump_clock: MockClock
) -> None:
    """A code and a reason, never 1011; a record like any call's; the call beside it hears nothing of it."""
    good = open_browser_call([LONG], recorder=WebmRecorder())
    async with good as (world, _, stream, _):
        await stream.until_heard_ms(500)
        async with open_call(world) as socket:
            with suppress(SocketClosedError):
                for chunk in chunks:
                    await socket.send(chunk)
            closed, reason = await until_closed(socket)
        assert (closed, says in reason) == (code, True), reason
        await stream.until_heard_ms(6000)
        assert stream.playback.underruns == []
        await stream.hang_up()
    outcomes = {record.outcome for record in world.services.records.saved}
    assert outcomes == {Outcome.CARRIER_LOST, Outcome.CALLER_HUNG_UP}


async def test_a_recording_that_stops_in_the_middle_is_a_quiet_caller(autojump_clock: MockClock) -> None:
    """Truncated: what is not there yet is waited for, as long as the page says anything."""
    async with open_world(ScriptedRealtime([SHORT])) as world, open_call(world) as socket:
        await socket.send(BEGINNING + element("a3", bytes(1000))[:500])
        for _ in range(10):
            await trio.sleep(1)
            await socket.send('{"type":"ping"}')
        await socket.send('{"type":"hangup"}')
        assert (await until_closed(socket))[0] == 1000
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_without_the_extra_low_bandwidth_is_refused(autojump_clock: MockClock) -> None:
    """With the reason, and before the token is used up: the page may phone with it in the other format."""
    async with (
        open_services(memory_realtime(lambda: ScriptedRealtime([SHORT]))) as services,
        trio.open_nursery() as nursery,
    ):
        world = BrowserWorld(services, BrowserCalls(services.calls, BrowserAdmission()), nursery)
        token = world.token()
        async with world.connect() as socket:
            await socket.send(f'{{"type":"hello","token":"{token}","format":"webm/opus"}}')
            code, reason = await until_closed(socket)
        assert code == Close.BAD_AUDIO
        assert "call-agent[browser]" in reason
        async with world.connect() as socket:
            await socket.send(f'{{"type":"hello","token":"{token}"}}')
            assert '"welcome"' in str(await socket.receive())
            await socket.send('{"type":"hangup"}')
            assert (await until_closed(socket))[0] == 1000

"""Browsers that do not behave: each is closed with a code of its own or made good, and never 1011."""

import time
from contextlib import suppress

import pytest
import trio
from browser_calls import ORIGIN, BrowserWorld, open_browser_call, open_world, speak_while_broken
from heard_audio import heard_numbers
from trio.testing import MockClock

from agent.browser.line import AHEAD_S, WINDOW_S
from agent.browser.messages import Close
from agent.core.errors import SocketClosedError
from agent.core.records import Outcome
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.wire.websocket import MessageSocket

LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 6000)
ENDLESS = Answer("One, two, three, and so on for a minute.", 60_000)
SHORT = Answer("You are welcome.", 800)


async def how_closed(socket: MessageSocket) -> tuple[int, str]:
    """Read until the other side closes; its code and its reason."""
    try:
        while True:
            await socket.receive()
    except SocketClosedError as closed:
        return closed.code, closed.reason


async def greeted(world: BrowserWorld, socket: MessageSocket) -> None:
    await socket.send(f'{{"type":"hello","token":"{world.token()}"}}')
    assert '"welcome"' in str(await socket.receive())


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ('"rate":48000', Close.BAD_AUDIO, "24000 Hz"),
        ('"channels":2', Close.BAD_AUDIO, "mono"),
        ('"version":0', Close.OTHER_RELEASE, "load it again"),
        ('"version":2', Close.OTHER_RELEASE, "load it again"),
        ('"format":"\u05d0\u05d0\u05d0\u05d0\u05d0\u05d0"', Close.BAD_MESSAGE, "format"),
    ],
)
async def test_another_release_and_other_audio_are_refused(
    fields: str, code: int, says: str, autojump_clock: MockClock
) -> None:
    """No call begins, and the token stays good."""
    async with open_world(ScriptedRealtime([SHORT])) as world:
        token = world.token()
        async with world.connect() as socket:
            await socket.send(f'{{"type":"hello","token":"{token}",{fields}}}')
            closed_with, reason = await how_closed(socket)
        assert closed_with == code
        assert says in reason
        async with world.connect() as socket:
            await socket.send(f'{{"type":"hello","token":"{token}"}}')
            assert '"welcome"' in str(await socket.receive())
            await socket.send('{"type":"hangup"}')
            assert await how_closed(socket) == (1000, Outcome.CALLER_HUNG_UP)
    assert len(world.services.records.saved) == 1


@pytest.mark.parametrize(
    ("origin", "age_s", "says"),
    [("https://evil.example", 0, "another site"), (ORIGIN, 61, "too old"), (ORIGIN, 0, "used before")],
)
async def test_tokens_that_are_no_good(origin: str, age_s: float, says: str, autojump_clock: MockClock) -> None:
    """Of another site, expired, used: the reason says which."""
    async with open_world(ScriptedRealtime([SHORT])) as world:
        token = world.calls.admission.issue("127.0.0.1", origin, "", time.time() - age_s)
        if says == "used before":
            world.calls.admission.admit(token, ORIGIN, time.time())
        async with world.connect() as socket:
            await socket.send(f'{{"type":"hello","token":"{token}"}}')
            code, reason = await how_closed(socket)
    assert code == Close.BAD_TOKEN
    assert says in reason
    assert world.services.records.saved == []


async def test_a_tab_asleep_is_heard_to_the_end(autojump_clock: MockClock) -> None:
    """Timers stand still and there is no microphone: cut every 3 s, it comes back, and no word is lost."""
    async with open_world(ScriptedRealtime([ENDLESS])) as world:
        audio, opening, received = 0, f'{{"type":"hello","token":"{world.token()}"}}', 0
        began_s = trio.current_time()
        while trio.current_time() < began_s + 30:
            async with world.connect() as socket:
                await socket.send(opening.replace('"N"', str(received)))
                with suppress(SocketClosedError):
                    while True:
                        message = await socket.receive()
                        if isinstance(message, str) and '"welcome"' in message:
                            opening = message.replace("welcome", "resume").replace(
                                '"received":0', '"received":"N"'
                            )
                            continue
                        received += 1
                        audio += len(message) if isinstance(message, bytes) else 0
        async with world.connect() as socket:
            await socket.send(opening.replace('"N"', str(received)))
            await socket.receive()
            await socket.send('{"type":"hangup"}')
            await how_closed(socket)
    assert audio / 48_000 == pytest.approx(30, abs=3.5), "all of it, once"
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_laptop_that_is_closed_and_opened(autojump_clock: MockClock) -> None:
    """Nine seconds of microphone come at once: no flood, the turn is answered, and all of the answer is heard."""
    async with open_browser_call([SHORT, LONG], transcripts=["I spoke while it was closed"]) as (
        world,
        phone,
        stream,
        _,
    ):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        await speak_while_broken(phone, stream, 2000, WINDOW_S - 1)
        await stream.until_heard_ms(6800)
        await trio.sleep(1.0)
        await stream.hang_up()
    assert [turn.text for turn in world.services.record.turns if turn.role == "caller"] == [
        "I spoke while it was closed"
    ]
    assert heard_numbers(stream)[1] == 6000 * 8
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_laptop_that_is_closed_for_too_long_is_told(autojump_clock: MockClock) -> None:
    """4404: the page says that the call is over, and asks for another."""
    async with open_browser_call([LONG]) as (world, phone, stream, _):
        await stream.until_heard_ms(1000)
        phone.paused = True
        await phone.break_connection()
        await trio.sleep(WINDOW_S + 5)
        phone.paused = False
        await stream.until_closed()
    assert phone.codes[-1] == Close.GONE
    assert world.services.record.outcome is Outcome.CARRIER_LOST


@pytest.mark.parametrize(
    "message", ['{"type":"key","digit":"5"}', '{"type":"ping"}', "[]", b"\0", '{"type":"x"}']
)
async def test_a_client_that_floods_with_small_messages(message: str | bytes, autojump_clock: MockClock) -> None:
    """Of whatever kind: its own call ends, and has a record."""
    async with open_world(ScriptedRealtime([LONG])) as world, world.connect() as socket:
        await greeted(world, socket)
        with suppress(SocketClosedError):
            for _ in range(10_000):
                await socket.send(message)
        assert await how_closed(socket) == (Close.FLOOD, "too many messages")
    assert world.services.record.outcome is Outcome.CARRIER_LOST


async def test_audio_at_twice_the_rate_ends_when_it_is_too_far_ahead(autojump_clock: MockClock) -> None:
    """48 kHz or stereo from a client that does not say so: more audio than time."""
    async with open_world(ScriptedRealtime([ENDLESS])) as world, world.connect() as socket:
        await greeted(world, socket)
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_twice_as_much, socket)
            assert await how_closed(socket) == (Close.FLOOD, "more audio than time")
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began_s == pytest.approx(AHEAD_S, abs=1)


async def send_twice_as_much(socket: MessageSocket) -> None:
    with suppress(SocketClosedError):
        while True:
            await socket.send(bytes(1920))
            await trio.sleep(0.02)


async def test_a_client_that_never_reads(autojump_clock: MockClock) -> None:
    """It says that it lives, and acknowledges nothing: its call ends, though it cannot know why."""
    async with open_world(ScriptedRealtime([ENDLESS])) as world, world.connect() as socket:
        await greeted(world, socket)
        began_s = trio.current_time()
        with suppress(SocketClosedError):
            while trio.current_time() < began_s + 40:
                await socket.send('{"type": "ping", "received": 0}')
                await trio.sleep(1)
        assert await how_closed(socket) in ((1006, ""), (Close.FLOOD, "the browser does not read"))
        assert trio.current_time() - began_s < 41
    assert world.services.record.outcome is Outcome.CARRIER_STUCK, "its write was"


async def test_a_browser_that_closes_with_1000_has_hung_up(autojump_clock: MockClock) -> None:
    """It will not come back, and is not waited for."""
    async with open_world(ScriptedRealtime([LONG])) as world:
        async with world.connect() as socket:
            await greeted(world, socket)
            await trio.sleep(1)
            await socket.aclose(1000)
        closed_s = trio.current_time()
        await world.calls.wait_empty()
        assert trio.current_time() - closed_s < 2
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP

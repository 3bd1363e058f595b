"""A browser's connection breaks, and the call goes on: in virtual time, nothing lost and nothing said twice."""

from contextlib import suppress

import pytest
import trio
from browser_calls import BrowserWorld, open_browser_call, open_world, speak_while_broken
from heard_audio import heard_numbers
from trio.testing import MockClock
from virtual_call import received

from agent.browser.line import SILENT_S, WINDOW_S
from agent.browser.messages import Close
from agent.core.errors import SocketClosedError
from agent.core.records import Outcome
from agent.sim.browser.phone import BrowserPhone
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.wire.websocket import MessageSocket

LONG = Answer("We are open from nine to five on weekdays, and from ten to two on Saturdays.", 6000)
SHORT = Answer("You are welcome.", 800)


def counted(world: BrowserWorld, name: str, **labels: str) -> float:
    value = world.services.calls.events.telemetry.registry.get_sample_value(name, labels)
    return value or 0.0


async def test_a_broken_connection_is_made_good(autojump_clock: MockClock) -> None:
    """WB-6, WB-8: the same call goes on; all of the answer is played, once, and the record says so."""
    async with open_browser_call([LONG, SHORT]) as (world, phone, stream, model):
        await stream.until_heard_ms(2000)
        await phone.break_connection()
        await phone.until_welcome(2)
        await stream.until_heard_ms(6000)
        stream.say(tone(500))
        await stream.until_heard_ms(6800)
        await trio.sleep(0.5)
        await stream.hang_up()
    record = world.services.record
    assert heard_numbers(stream)[:2] == [6000 * 8, 800 * 8]
    assert [turn.heard_ms for turn in record.turns if turn.role == "agent"] == [6000, 800]
    assert record.metrics.barge_in_events == 0
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert len(model.sessions) == 1, "the model noticed nothing"
    assert counted(world, "agent_browser_closes_total", code="1006") == 1
    assert counted(world, "agent_browser_reconnect_seconds_count") == 1
    assert counted(world, "agent_browser_first_word_seconds_count") == 1


async def test_a_black_hole_is_found_by_the_heartbeat(autojump_clock: MockClock) -> None:
    """Nothing closes and nothing comes: cut within 3 s; back, it is silent for 1.5 s at the most."""
    async with open_browser_call([LONG]) as (world, phone, stream, _):
        await stream.until_heard_ms(2000)
        for end in world.links[0]:
            end.hold()
        phone.paused = True
        await trio.sleep(5.0)
        await phone.break_connection()
        heard_ms = stream.heard_ms()
        phone.paused, back_s = False, trio.current_time()
        await stream.until_heard_ms(heard_ms + 20)
        assert trio.current_time() - back_s <= 1.5
        await stream.until_heard_ms(6000)
        await trio.sleep(1.0)
        await stream.hang_up()
    assert heard_numbers(stream)[0] == 6000 * 8, "no word lost, none twice"
    assert world.services.record.turns[0].heard_ms == 6000
    lost = [event.t_ms for event in world.services.record.timeline if event.kind == "BROWSER_LOST"]
    assert len(lost) <= 1


async def test_what_the_caller_said_meanwhile_arrives(autojump_clock: MockClock) -> None:
    """MO-6: the page keeps it and sends it behind the rest; the turn is answered."""
    async with open_browser_call([SHORT, LONG], transcripts=["I said something"]) as (
        world,
        phone,
        stream,
        model,
    ):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        await speak_while_broken(phone, stream, 1000, 3.0)
        await stream.until_heard_ms(1500)
        await stream.hang_up()
    assert [turn.text for turn in world.services.record.turns if turn.role == "caller"] == ["I said something"]
    assert received(model, "response.create"), "the greeting was asked for"


async def test_a_browser_that_does_not_come_back_is_gone(autojump_clock: MockClock) -> None:
    async with open_browser_call([LONG]) as (world, phone, stream, _):
        await stream.until_heard_ms(1000)
        phone.paused, lost_s = True, trio.current_time()
        await phone.break_connection()
        await world.calls.wait_empty()
        assert trio.current_time() - lost_s == pytest.approx(WINDOW_S, abs=0.5)
    record = world.services.record
    assert record.outcome is Outcome.CARRIER_LOST
    assert record.turns[0].interrupted
    assert record.turns[0].heard_ms == pytest.approx(heard_numbers(stream)[0] / 8, abs=140)


async def close_code(world: BrowserWorld, opening: str) -> int:
    """How the server closes a connection that begins with ``opening``."""
    async with world.connect() as socket:
        await socket.send(opening)
        return await until_closed(socket)


async def until_closed(socket: MessageSocket) -> int:
    """Read until the other side closes; its code."""
    try:
        while True:
            await socket.receive()
    except SocketClosedError as closed:
        return closed.code


def resume(phone: BrowserPhone, token: str = "") -> str:
    first = phone.welcomes[0]
    return f'{{"type":"resume","call":"{first["call"]}","token":"{token or first["token"]}"}}'


async def test_a_second_tab_is_refused_and_the_call_goes_on(autojump_clock: MockClock) -> None:
    """A copied tab has the token, too; whoever speaks has the call."""
    async with open_browser_call([LONG]) as (world, phone, stream, _):
        await stream.until_heard_ms(1000)
        assert await close_code(world, resume(phone)) == Close.ELSEWHERE
        assert await close_code(world, resume(phone, "guessed")) == Close.GONE
        await stream.until_heard_ms(6000)
        await stream.hang_up()
        await trio.sleep(2)
        assert await close_code(world, resume(phone)) == Close.GONE
    assert phone.codes in ([], [1000])
    assert len(phone.welcomes) == 1


async def test_a_token_is_good_for_one_call(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedRealtime([SHORT])) as world:
        token = world.token()
        first = f'{{"type":"hello","token":"{token}"}}'
        async with world.connect() as socket:
            await socket.send(first)
            assert '"welcome"' in str(await socket.receive())
            assert await close_code(world, first) == Close.BAD_TOKEN
            await socket.send('{"type":"hangup"}')
            assert await until_closed(socket) == 1000
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


@pytest.mark.parametrize(
    ("opening", "code"),
    [
        ('{"type":"hello","token":"forged"}', Close.BAD_TOKEN),
        ('{"type":"hello","token":"","version":99}', Close.OTHER_RELEASE),
        ('{"type":"hello","token":"","format":"webm"}', Close.BAD_MESSAGE),
        ('{"type":"resume","call":"BR1","token":"x"}', Close.GONE),
        ("no JSON", Close.BAD_MESSAGE),
        ('{"type":"played","mark":"1:20"}', Close.BAD_MESSAGE),
    ],
)
async def test_a_wrong_opening_is_closed_with_a_code_of_its_own(
    opening: str, code: int, autojump_clock: MockClock
) -> None:
    """Never 1011, and no call begins."""
    async with open_world(ScriptedRealtime([])) as world:
        assert await close_code(world, opening) == code
    assert world.services.records.saved == []


async def test_when_all_lines_are_busy_the_token_stays_good(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedRealtime([SHORT])) as world:
        hello, lines = f'{{"type":"hello","token":"{world.token()}"}}', world.services.calls.admission
        most, lines.max_calls = lines.max_calls, 0
        assert await close_code(world, hello) == Close.BUSY
        lines.max_calls = most
        async with world.connect() as socket:
            await socket.send(hello)
            assert '"welcome"' in str(await socket.receive())
            await socket.send('{"type":"hangup"}')
            assert await until_closed(socket) == 1000


async def test_a_client_that_says_nothing_is_closed(autojump_clock: MockClock) -> None:
    async with open_world(ScriptedRealtime([])) as world, world.connect() as socket:
        assert await until_closed(socket) == Close.NO_HELLO


async def test_a_client_that_floods_ends_its_own_call(autojump_clock: MockClock) -> None:
    """More audio than time has passed: closed with a code, and a record like any call's."""
    async with open_world(ScriptedRealtime([SHORT])) as world, world.connect() as socket:
        await socket.send(f'{{"type":"hello","token":"{world.token()}"}}')
        with suppress(SocketClosedError):
            for _ in range(100):
                await socket.send(bytes(48_000))
        assert await until_closed(socket) == Close.FLOOD
    assert world.services.record.outcome is Outcome.CARRIER_LOST


async def test_a_silent_browser_is_cut_and_may_come_back(autojump_clock: MockClock) -> None:
    """WB-2: the heartbeat is the page's; a busy page that sends anything at all is alive."""
    async with open_world(ScriptedRealtime([LONG])) as world, world.connect() as socket:
        began_s = trio.current_time()
        await socket.send(f'{{"type":"hello","token":"{world.token()}"}}')
        assert await until_closed(socket) == 1001
        assert trio.current_time() - began_s == pytest.approx(SILENT_S, abs=0.2)
        await trio.sleep(WINDOW_S + 1)
    assert world.services.record.outcome is Outcome.CARRIER_LOST


async def test_wb_2_the_heartbeat_can_be_off(autojump_clock: MockClock) -> None:
    """AGENT_PING_S=0: a page that says nothing for a minute is not cut."""
    async with open_world(ScriptedRealtime([SHORT]), ping_s=0) as world, world.connect() as socket:
        await socket.send(f'{{"type":"hello","token":"{world.token()}"}}')
        await trio.sleep(60)
        await socket.send('{"type":"hangup"}')
        assert await until_closed(socket) == 1000
    assert world.services.record.outcome is Outcome.CALLER_HUNG_UP


async def test_a_server_that_stops_ends_a_call_without_a_connection(autojump_clock: MockClock) -> None:
    """A cancel finds the pacer in the middle of its wait for the next connection: the record is kept in time."""
    async with open_browser_call([LONG]) as (world, phone, stream, _):
        await stream.until_heard_ms(1000)
        phone.paused = True
        await phone.break_connection()
        await trio.sleep(2)
        [scope] = world.services.calls.active.values()
        scope.cancel(reason="the server stops")
        stopped_s = trio.current_time()
        await world.calls.wait_empty()
        assert trio.current_time() - stopped_s < 2
    record = world.services.record
    assert record.outcome is Outcome.SERVER_STOPPED
    assert record.turns[0].heard_ms == pytest.approx(heard_numbers(stream)[0] / 8, abs=140)


async def test_an_interruption_while_the_connection_is_away(autojump_clock: MockClock) -> None:
    """What was not sent yet is not sent afterwards, what was is cut at once; the record is true to the ear."""
    fast = Answer(LONG.text, 6000, speed=None)
    async with open_browser_call([fast, SHORT]) as (world, phone, stream, model):
        await stream.until_heard_ms(1500)
        stream.say(tone(600))
        await trio.sleep(0.02)
        await phone.break_connection()
        await phone.until_welcome(2)
        await stream.until_quiet(0.5)
        await trio.sleep(2)
        await stream.hang_up()
    [truncate] = received(model, "conversation.item.truncate")
    assert truncate["audio_end_ms"] == pytest.approx(heard_numbers(stream)[0] / 8, abs=140)
    assert heard_numbers(stream)[0] / 8 < 3000
    assert world.services.record.metrics.barge_in_events == 1
    assert model.errors_sent == []

"""The front door over memory streams in virtual time: slow, silent, broken and too many clients. DO-1, DO-2."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from agent.carrier.front_door import STRETCHES, FrontDoor
from agent.core.errors import SocketClosedError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.web.asgi import AFTER_END_S, Origin
from agent.web.connection import LINGER_S, Bounds
from agent.web.head import RequestHead
from agent.web.lobby import BURST, FRESH_S, PACE_S, Lobby
from agent.wire.websocket import Handshake, open_client_over

Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
REQUEST = GET % b"fine"
BOUNDS = Bounds()


@attrs.define(eq=False)
class Building:
    """A front door with servers that do as the request says: echo, break, or stay until cancelled."""

    nursery: trio.Nursery
    door: FrontDoor = attrs.field(init=False)
    served: list[tuple[str, bytes]] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.door = FrontDoor(
            self.app,
            EventLog(Telemetry()),
            self.echo_stream,
            lobby=Lobby(per_address=3, most=6),
            looks_signed=lambda head: "x-signed" in head.headers,
        )

    async def echo_stream(self, handshake: Handshake, head: RequestHead, origin: Origin) -> None:
        """Echo messages; the message ``break`` is a programming mistake."""
        socket = await handshake.accept()
        origin.vouch()
        while True:
            message = await socket.receive()
            if message == "break":
                raise ZeroDivisionError(message)
            await socket.send(f"echo {message!s}")

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """An application."""
        body = (await receive())["body"]
        self.served.append((scope["path"], body))
        if scope["path"] == "/broken":
            raise ZeroDivisionError
        if scope["path"] == "/proof":
            scope["state"]["origin"].vouch()
        if scope["path"] == "/stay":
            try:
                await self.until_left(receive)
            except trio.Cancelled:
                self.ended.append("cancelled")
                raise
        size = 1_000_000 if scope["path"] == "/large" else 4
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"fine" * (size // 4)})

    async def until_left(self, receive: Any) -> None:
        """Wait for the client to leave, then for ever."""
        self.ended.append((await receive())["type"])
        await trio.sleep_forever()

    def connect(self) -> Stream:
        """A new client connection."""
        client, server = memory_stream_pair()
        self.nursery.start_soon(self.door.serve_connection, server)
        return client

    @property
    def counts(self) -> dict[str, int]:
        """Events counted so far."""
        return dict(self.door.events.counts)


@asynccontextmanager
async def open_building() -> AsyncIterator[Building]:
    async with trio.open_nursery() as nursery:
        yield Building(nursery)
        nursery.cancel_scope.cancel()


async def all_of(client: Stream) -> bytes:
    """Everything until the server closes."""
    received = bytearray()
    async for some in client:
        received += some
    return bytes(received)


async def status_of(client: Stream) -> int:
    return int((await all_of(client)).split(b" ", 2)[1])


async def talk(client: Stream, request: bytes) -> bytes:
    """What comes back at once."""
    await client.send_all(request)
    return bytes(await client.receive_some(1_000_000))


async def test_requests_are_answered_one_after_the_other(autojump_clock: MockClock) -> None:
    """Cut anywhere, with bodies, several in one piece; then the idle connection is closed."""
    async with open_building() as building:
        client = building.connect()
        post = b"POST /a%20b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        requests = REQUEST + post + REQUEST + post
        await client.send_all(requests[:40])
        await trio.sleep(1)
        await client.send_all(requests[40:100])
        await trio.sleep(1)
        await client.send_all(requests[100:])
        assert (await all_of(client)).count(b"HTTP/1.1 200 ") == 4
        assert building.served == [("/fine", b""), ("/a b", b"abc")] * 2
        assert trio.current_time() == pytest.approx(2 + BOUNDS.idle_s + 0, abs=0.1)


async def test_a_slow_head_is_given_up_at_its_limit(autojump_clock: MockClock) -> None:
    """A byte a second keeps the connection for a while, not for as long as it drips."""
    async with open_building() as building:
        client = building.connect()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
                await client.send_all(bytes([byte]))
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert b"408" in await client.receive_some(1000)
            assert trio.current_time() == pytest.approx(BOUNDS.head_s)
            nursery.cancel_scope.cancel()
        assert building.counts["BAD_REQUEST"] == 1


async def test_a_slow_body_is_given_up_at_its_limit(autojump_clock: MockClock) -> None:
    """And the application never hears of it."""
    async with open_building() as building:
        client = building.connect()
        await client.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\na")
        assert b"408" in await client.receive_some(1000)
        assert trio.current_time() == pytest.approx(BOUNDS.body_s)
        assert building.served == []


async def test_the_bounds_of_many_do_not_run_out_together(autojump_clock: MockClock) -> None:
    """A thousand connections that were opened in one instant would otherwise be closed in one pass."""
    async with open_building() as building:
        building.door.lobby = Lobby(1000, 1000)
        silent = [building.connect() for _ in range(100)]
        ends: list[float] = []

        async def wait(client: Stream) -> None:
            await all_of(client)
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for client in silent:
                nursery.start_soon(wait, client)
        assert len(set(ends)) == 100


async def test_a_client_that_says_nothing_is_hung_up_on_without_a_word(autojump_clock: MockClock) -> None:
    """Browsers open spare connections, balancers probe ports: not worth an answer or a log line."""
    async with open_building() as building:
        silent, leaving = building.connect(), building.connect()
        await leaving.aclose()
        assert await all_of(silent) == b""
        assert BOUNDS.idle_s <= trio.current_time() <= BOUNDS.idle_s * STRETCHES[-1]
        assert building.counts == {}


UPGRADE = b"GET /%s HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
HANDSHAKE = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
GARBAGE = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), 400),
    (b"hello?\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    (b"GET /" + b"a" * 20_000, 431),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n" + b"a" * 70_000, 413),
    (UPGRADE % b"media-stream" + b"\r\n", 426),
    (UPGRADE % b"elsewhere" + b"\r\n", 404),
]


@pytest.mark.parametrize(("garbage", "status"), GARBAGE)
@pytest.mark.parametrize("before", [b"", REQUEST])
async def test_garbage_gets_one_plain_answer(
    autojump_clock: MockClock, before: bytes, garbage: bytes, status: int
) -> None:
    """As the first request of a connection and as the second; nothing behind it is read."""
    async with open_building() as building:
        client = building.connect()
        await client.send_all(before + garbage + REQUEST)
        answers = (await all_of(client)).partition(b"fine")[2] if before else await all_of(client)
        head, _, body = answers.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert b"connection: close" in head.lower()
        assert building.counts == {"BAD_REQUEST": 1}


@pytest.mark.parametrize("spelling", [b"h2c", b"H2C", b"h2c, websocket2", b"websocket2, h2c"])
@pytest.mark.parametrize("before", [b"", REQUEST])
async def test_there_is_no_http_2_in_any_spelling(
    autojump_clock: MockClock, before: bytes, spelling: bytes
) -> None:
    """An upgrade to it is a request like any other; a proxy would have tunnelled what came behind a 101."""
    async with open_building() as building:
        client = building.connect()
        upgrade = REQUEST[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
        await client.send_all(before + upgrade + b"Upgrade: " + spelling + b"\r\n\r\n" + preface)
        answers = await all_of(client)
        assert b" 101 " not in answers
        assert answers.count(b"HTTP/1.1 200 ") == 1 + bool(before)
        assert answers.count(b"HTTP/1.1 505 ") == 1


async def test_a_head_that_breaks_off_is_no_request(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(REQUEST[:20])
        await client.send_eof()
        assert await status_of(client) == 400


async def test_a_body_that_breaks_off_never_reaches_the_application(autojump_clock: MockClock) -> None:
    """And is no error of ours: counted, without a trace."""
    async with open_building() as building:
        for end in ("eof", "reset"):
            client = building.connect()
            await client.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            await trio.testing.wait_all_tasks_blocked()
            await (client.send_eof() if end == "eof" else client.aclose())
        await trio.sleep(2 * LINGER_S)
        assert building.served == []
        assert building.counts == {"BAD_REQUEST": 2}


async def test_whoever_asks_for_leave_to_send_a_body_gets_it(autojump_clock: MockClock) -> None:
    """Unless the body is too large, or there is no leave to wait for."""
    async with open_building() as building:
        client = building.connect()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        assert (await talk(client, head % 3)) == b"HTTP/1.1 100 \r\n\r\n"
        assert b" 200 " in await talk(client, b"abc")
        assert b" 200 " in await talk(client, head % 3 + b"abc")
        assert b" 413 " in await talk(client, head % 1_000_000)


async def test_head_is_get_without_the_body(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        client = building.connect()
        answer = await talk(client, REQUEST.replace(b"GET", b"HEAD"))
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 4" in answer
        assert (await talk(client, REQUEST)).endswith(b"fine")


@pytest.mark.parametrize("leaves", ["eof", "reset"])
async def test_a_client_that_leaves_takes_its_request_with_it(autojump_clock: MockClock, leaves: str) -> None:
    """One that has only closed its own side is answered for a moment more."""
    async with open_building() as building:
        client = building.connect()
        await client.send_all(GET % b"stay")
        await trio.sleep(1)
        if leaves == "eof":
            await client.send_eof()
            assert await all_of(client) == b""
            assert trio.current_time() == pytest.approx(1 + AFTER_END_S)
        else:
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(AFTER_END_S + 1)
        assert building.ended == ["http.disconnect", "cancelled"]
        assert building.counts == {}


async def test_a_client_that_has_closed_its_side_is_answered(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(REQUEST + REQUEST)
        await client.send_eof()
        assert (await all_of(client)).count(b"fine") == 2


async def test_requests_of_a_connection_are_counted(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        building.door.bounds = Bounds(requests=3)
        client = building.connect()
        await client.send_all(REQUEST * 5)
        answers = await all_of(client)
        assert answers.count(b"fine") == 3
        assert answers.lower().count(b"connection: close") == 1


async def test_a_connection_that_asks_without_end_is_paced(autojump_clock: MockClock) -> None:
    """Twenty at once, then twenty a second: it had half of a core before."""
    async with open_building() as building:
        client = building.connect()
        await client.send_all(REQUEST * 60)
        answers = b""
        while answers.count(b"fine") < 60:
            answers += await client.receive_some(1_000_000)
        assert trio.current_time() == pytest.approx((60 - BURST) * PACE_S)


async def test_a_burst_of_the_carrier_waits_only_until_one_of_it_is_known(autojump_clock: MockClock) -> None:
    """A hundred calls at once from an address that is new: the last webhook waited for four seconds. DO-2."""
    async with open_building() as building:
        building.door.lobby = Lobby(per_address=16, most=1024)
        clients = [building.connect() for _ in range(100)]
        signed = (GET % b"proof")[:-2] + b"X-Signed: 1\r\n\r\n"
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.send_all, signed)
        for client in clients:
            assert b"fine" in await client.receive_some(1000)
        assert trio.current_time() == pytest.approx(0)


async def test_a_door_with_many_at_once_is_crowded_until_they_had_their_turn(autojump_clock: MockClock) -> None:
    """Admission must know whose fault a late tick is. NB-6."""
    async with open_building() as building:
        runs = building.door.turns.runs
        for stranger in range(2):
            runs.acquire_on_behalf_of_nowait(stranger)
        client = building.connect()
        await client.send_all(REQUEST)
        await trio.testing.wait_all_tasks_blocked()
        assert building.door.is_crowded
        for stranger in range(2):
            runs.release_on_behalf_of(stranger)
        assert b"fine" in await client.receive_some(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert not building.door.is_crowded


async def test_a_client_that_does_not_read_is_dropped(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        client, server = memory_stream_pair()

        async def blocked() -> None:
            await trio.sleep_forever()

        server.send_stream.send_all_hook = blocked
        await client.send_all(GET % b"large")
        await building.door.serve_connection(server)
        assert trio.current_time() == pytest.approx(BOUNDS.write_s)
        assert building.counts == {"CONNECTION_LOST": 1}


# The lobby (DO-2). Over memory streams all connections have one address.


async def test_the_oldest_idle_connection_makes_room(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        old = []
        for _ in range(3):
            old.append(building.connect())
            await trio.sleep(0.1)
        await trio.sleep(FRESH_S)
        assert b"fine" in await talk(old[0], REQUEST), "not idle any more"
        new = building.connect()
        assert await all_of(old[1]) == b""
        assert b"fine" in await talk(new, REQUEST)
        assert b"fine" in await talk(old[2], REQUEST)
        assert building.counts == {"CONNECTION_GIVEN_UP": 1}


@pytest.mark.parametrize(
    ("request_line", "status", "said"),
    [
        (b"GET /readyz", 503, b"too many requests"),
        (b"POST /voice/status", 503, b"too many requests"),
        (b"POST /voice/incoming", 200, b'<Reject reason="busy"'),
        (b"POST /voice/outgoing", 200, b"<Say>"),
    ],
)
async def test_a_crowd_is_turned_away_in_words_a_caller_understands(
    autojump_clock: MockClock, request_line: bytes, status: int, said: bytes
) -> None:
    """Where Twilio asks in TwiML: an error it would read to the caller as one."""
    async with open_building() as building:
        for _ in range(3):
            await building.connect().send_all(GET % b"stay")
        await trio.testing.wait_all_tasks_blocked()
        client = building.connect()
        await client.send_all(request_line + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        answer = await all_of(client)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert said in answer
        assert building.counts == {"CONNECTION_REFUSED": 1}


async def test_what_looks_signed_is_served_in_any_crowd(autojump_clock: MockClock) -> None:
    """The door cannot know yet whether it is; the application finds out."""
    async with open_building() as building:
        for _ in range(3):
            await building.connect().send_all(GET % b"stay")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            client = building.connect()
            assert b"fine" in await talk(client, REQUEST[:-2] + b"X-Signed: 1\r\n\r\n")


async def test_when_all_places_are_busy_a_newcomer_is_dropped(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        for _ in range(6):
            await building.connect().send_all((GET % b"stay")[:-2] + b"X-Signed: 1\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert await all_of(building.connect()) == b""
        assert building.counts == {"CONNECTION_REFUSED": 1}


# Media streams


async def test_media_streams_do_not_count_in_the_lobby() -> None:
    async with open_building() as building, trio.open_nursery() as nursery:
        for number in range(8):
            socket = open_client_over(building.connect(), "a", "/media-stream")
            await nursery.start(_talk, socket, str(number))
        assert len(building.door.lobby) == 0
        assert b"fine" in await talk(building.connect(), REQUEST)
        nursery.cancel_scope.cancel()


async def _talk(opening: object, text: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with opening as socket:  # type: ignore[attr-defined]  # the context manager of open_client_over
        await socket.send(text)
        assert await socket.receive() == f"echo {text}"
        task_status.started()
        await trio.sleep_forever()


async def test_a_stream_that_looks_signed_does_not_wait_behind_strangers() -> None:
    """All turns of those who do not are taken. DO-2."""
    async with open_building() as building:
        for stranger in range(2):
            building.door.turns.runs.acquire_on_behalf_of_nowait(stranger)
        client = building.connect()
        await client.send_all(UPGRADE % b"media-stream" + HANDSHAKE + b"X-Signed: 1\r\n\r\n")
        with trio.fail_after(5):
            assert b" 101 " in await client.receive_some(1000)


async def test_a_stream_may_be_any_request_of_a_connection() -> None:
    """Nginx puts handshakes on connections that it has used for webhooks (failed with 404 before)."""
    async with open_building() as building:
        client = building.connect()
        for _ in range(2):
            assert b"fine" in await talk(client, REQUEST)
        async with open_client_over(client, "a", "/media-stream") as socket:
            await socket.send("hello")
            assert await socket.receive() == "echo hello"


async def test_one_connection_s_mistake_touches_no_other() -> None:
    """A programming mistake in one stream and in one request: logged, counted, and nobody else notices."""
    async with open_building() as building:
        async with (
            open_client_over(building.connect(), "a", "/media-stream") as good,
            open_client_over(building.connect(), "a", "/media-stream/") as bad,
        ):
            await bad.send("break")
            with pytest.raises(SocketClosedError):
                await bad.receive()
            client = building.connect()
            await client.send_all(GET % b"broken")
            assert await status_of(client) == 500
            await good.send("still there?")
            assert await good.receive() == "echo still there?"
        await trio.testing.wait_all_tasks_blocked()
        assert building.counts["CONNECTION_ERROR"] == 2


async def test_a_client_that_vanishes_is_no_error() -> None:
    async with open_building() as building:
        client = building.connect()
        async with open_client_over(client, "a", "/media-stream") as socket:
            await socket.send("hello")
            await trio.aclose_forcefully(client)
        await trio.testing.wait_all_tasks_blocked()
        assert building.counts == {"CONNECTION_LOST": 1}


async def test_a_cancel_ends_connections_and_closes_them() -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(GET % b"stay")
        await trio.testing.wait_all_tasks_blocked()
        building.nursery.cancel_scope.cancel()
    assert await all_of(client) == b""
    assert building.counts == {}


async def test_a_stream_is_found_behind_a_prefix_that_a_proxy_kept(autojump_clock: MockClock) -> None:
    """And only behind that one."""
    async with open_building() as building:
        building.door.prefix = "/agent"
        for path in ("/agent/media-stream", "/agent/media-stream/", "/media-stream"):
            async with open_client_over(building.connect(), "a", path) as socket:
                await socket.send("hello")
                assert await socket.receive() == "echo hello"
        client = building.connect()
        await client.send_all(UPGRADE % b"other/media-stream" + b"\r\n")
        assert (await all_of(client)).endswith(b"the only WebSocket here is /media-stream\n")


async def test_noise_is_logged_once_a_second(autojump_clock: MockClock) -> None:
    """Item by item it is counted; the next line says how many were left out."""
    async with open_building() as building:
        said: list[dict[str, Any]] = []
        building.door.events.listener = lambda _, fields: said.append(fields)
        for pause_s in (0.0, 0.0, 0.0, 1.5, 0.0):
            await trio.sleep(pause_s)
            client = building.connect()
            await client.send_all(b"nonsense " * 100 + b"\r\n\r\n")
            await client.aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert building.counts == {"BAD_REQUEST": 5}
        assert [fields["unsaid"] for fields in said] == [0, 2]

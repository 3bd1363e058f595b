"""The front door over memory streams in virtual time: slow, silent, broken and too many clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from agent.carrier.front_door import HEAD_S, LINGER_S, REFUSALS, FrontDoor, PeekedStream
from agent.carrier.http_head import RequestHead
from agent.core.errors import SocketClosedError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.wire.websocket import Handshake, open_client_over

Stream = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@attrs.define(eq=False)
class Building:
    """A front door with servers that do as the request says: echo, break, or stay until cancelled."""

    nursery: trio.Nursery
    door: FrontDoor = attrs.field(init=False)
    served: list[bytes] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.door = FrontDoor(self.echo_stream, self.answer_http, EventLog(Telemetry()), lobby_limit=3)

    async def echo_stream(self, handshake: Handshake, head: RequestHead) -> None:
        """Echo messages; the message ``break`` is a programming mistake."""
        assert head.path.removeprefix(self.door.prefix).startswith("/media-stream")
        socket = await handshake.accept()
        while True:
            message = await socket.receive()
            if message == "break":
                raise ZeroDivisionError(message)
            await socket.send(f"echo {message!s}")

    async def answer_http(self, stream: PeekedStream) -> None:
        """Read the request again and answer it."""
        request = await stream.receive_some()
        self.served.append(bytes(request))
        if b"/broken" in request:
            raise ZeroDivisionError
        if b"/stay" in request:
            await trio.sleep_forever()
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nfine")

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


async def test_a_request_is_passed_on_with_every_byte_that_came() -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(REQUEST[:10])
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(REQUEST[10:] + b"next request")
        assert (await all_of(client)).endswith(b"fine")
        assert building.served == [REQUEST + b"next request"]


async def test_a_slow_head_is_given_up_at_its_limit(autojump_clock: MockClock) -> None:
    """A byte a second keeps the connection for HEAD_S, not for as long as it drips."""
    async with open_building() as building:
        client = building.connect()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
                await client.send_all(bytes([byte]))
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert b"408" in await client.receive_some(1000)
            assert trio.current_time() == pytest.approx(HEAD_S)
            nursery.cancel_scope.cancel()
        assert building.counts["BAD_REQUEST"] == 1


async def test_a_client_that_says_nothing_is_hung_up_on_without_a_word(autojump_clock: MockClock) -> None:
    """Browsers open spare connections, balancers probe ports: not worth an answer or a log line."""
    async with open_building() as building:
        silent, leaving = building.connect(), building.connect()
        await leaving.aclose()
        assert await all_of(silent) == b""
        assert trio.current_time() == pytest.approx(HEAD_S)
        assert building.counts == {}


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), 400),
        (b"hello?\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 426),
    ],
)
async def test_garbage_gets_one_plain_answer(autojump_clock: MockClock, garbage: bytes, status: int) -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(garbage)
        answer = await all_of(client)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert building.counts == {"BAD_REQUEST": 1}


async def test_a_head_that_breaks_off_is_no_request(autojump_clock: MockClock) -> None:
    async with open_building() as building:
        client = building.connect()
        await client.send_all(REQUEST[:20])
        await client.send_eof()
        assert await status_of(client) == 400


async def test_the_lobby_is_small_and_empties_by_itself(autojump_clock: MockClock) -> None:
    """Slow clients fill it for HEAD_S at most; who comes then is told 503, who comes later is served."""
    async with open_building() as building:
        slow = [building.connect() for _ in range(3)]
        for client in slow:
            await client.send_all(b"GET")
        await trio.testing.wait_all_tasks_blocked()
        refused = building.connect()
        assert await status_of(refused) == 503
        await trio.sleep(HEAD_S)
        for client in slow:
            assert await status_of(client) == 408
        await trio.sleep(2 * LINGER_S)
        late = building.connect()
        await late.send_all(REQUEST)
        assert await status_of(late) == 200
        assert building.counts == {"CONNECTION_REFUSED": 1, "BAD_REQUEST": 3}


async def test_a_flood_is_dropped_without_an_answer(autojump_clock: MockClock) -> None:
    """At most REFUSALS connections are being answered 503 at once, for LINGER_S each."""
    async with open_building() as building:
        for _ in range(3):
            await building.connect().send_all(b"GET")
        await trio.testing.wait_all_tasks_blocked()
        flood = [building.connect() for _ in range(REFUSALS + 20)]
        await trio.testing.wait_all_tasks_blocked()
        assert building.door._refusals == REFUSALS
        answers = [await client.receive_some(1000) for client in flood]
        assert sum(b"503" in answer for answer in answers) == REFUSALS
        await trio.sleep(2 * LINGER_S)
        assert building.door._refusals == 0


async def test_media_streams_do_not_count_in_the_lobby() -> None:
    async with open_building() as building, trio.open_nursery() as nursery:
        for number in range(5):
            socket = open_client_over(building.connect(), "a", "/media-stream")
            await nursery.start(_talk, socket, str(number))
        client = building.connect()
        await client.send_all(REQUEST)
        assert await status_of(client) == 200
        nursery.cancel_scope.cancel()


async def _talk(opening: object, text: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with opening as socket:  # type: ignore[attr-defined]  # the context manager of open_client_over
        await socket.send(text)
        assert await socket.receive() == f"echo {text}"
        task_status.started()
        await trio.sleep_forever()


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
            await client.send_all(b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await all_of(client) == b""
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
        await client.send_all(b"GET /stay HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        building.nursery.cancel_scope.cancel()
    assert await all_of(client) == b""
    assert building.counts == {}


async def test_a_client_that_does_not_read_is_dropped(autojump_clock: MockClock) -> None:
    """Hypercorn shields its writes, so the bound is in the stream: it works inside a shield, too."""

    async def blocked() -> None:
        await trio.sleep_forever()

    client, server = trio.testing.memory_stream_pair()
    server.send_stream.send_all_hook = blocked
    stream = PeekedStream(server, b"", write_s=7)
    with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    assert trio.current_time() == 7
    await client.aclose()


async def test_peeked_bytes_come_first_and_only_once() -> None:
    client, server = memory_stream_pair()
    stream = PeekedStream(server, b"abcdef")
    await client.send_all(b"ghi")
    assert await stream.receive_some(4) == b"abcd"
    assert await stream.receive_some() == b"ef"
    assert await stream.receive_some() == b"ghi"


async def test_a_stream_is_found_behind_a_prefix_that_a_proxy_kept() -> None:
    """And only behind that one."""
    async with open_building() as building:
        building.door.prefix = "/agent"
        for path in ("/agent/media-stream", "/agent/media-stream/", "/media-stream"):
            async with open_client_over(building.connect(), "a", path) as socket:
                await socket.send("hello")
                assert await socket.receive() == "echo hello"
        client = building.connect()
        handshake = b"Host: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        await client.send_all(b"GET /other/media-stream HTTP/1.1\r\n" + handshake)
        assert (await all_of(client)).endswith(b"fine"), "left to the web side, which says what is where"

"""The front door with the application and the streams behind it, over real sockets on one port."""

import secrets
import socket as stdlib
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import httpx
import pytest
import trio
from twilio.request_validator import RequestValidator

from agent.carrier import stream_admission
from agent.carrier.front_door import FrontDoor
from agent.carrier.http_app import make_app
from agent.carrier.media_stream import Start, decode_message
from agent.carrier.replays import Replays, token_key
from agent.carrier.signature import SignatureCheck
from agent.carrier.stream_admission import Admit, StreamAdmission
from agent.carrier.stream_token import CallTicket, StreamTokens
from agent.carrier.webhooks import VoiceWebhooks
from agent.core.admission import Admission
from agent.core.errors import AdmissionError, HandshakeRejectedError, SocketClosedError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid
from agent.web.asgi import AFTER_END_S
from agent.web.connection import Bounds
from agent.web.lobby import EVICTION_EACH_S, FRESH_S
from agent.web.peer import TrustedProxies, parse_networks
from agent.wire.websocket import MessageSocket, open_client

pytestmark = pytest.mark.sockets
CALL = CallSid("CA" + "1" * 32)


@attrs.define(eq=False)
class FakeServices:
    """Everything but the calls themselves: a stream is echoed after its admission."""

    url: str = attrs.field(init=False)
    admission: StreamAdmission = attrs.field(init=False)
    door: FrontDoor = attrs.field(init=False)
    events: EventLog = attrs.field(factory=lambda: EventLog(Telemetry()))
    streams: list[trio.SocketStream] = attrs.field(factory=list)
    tickets: list[CallTicket] = attrs.field(factory=list)
    stopping: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        parts = httpx.URL(self.url)
        return parts.host, parts.port or 0

    @property
    def stream_url(self) -> str:
        """The media stream's URL."""
        return self.url.replace("http", "ws") + "/media-stream"

    async def answer(self, socket: MessageSocket, admit: Admit) -> None:
        """Echo until the peer leaves."""
        try:
            start = decode_message(await socket.receive())
            assert isinstance(start, Start)
            self.tickets.append(await admit(start))
            while True:
                await socket.send(str(await socket.receive()))
        except AdmissionError as error:
            await socket.aclose(1008, error.kind)
        except SocketClosedError:
            return

    async def raw(self, request: bytes) -> bytes:
        """What comes back to ``request`` until the server closes."""
        stream = await trio.open_tcp_stream(*self.address)
        async with stream:
            await stream.send_all(request)
            received = bytearray()
            async for some in stream:
                received += some
        return bytes(received)


def start_message(token: str = "") -> str:
    parameters = f'{{"token":"{token}"}}' if token else "{}"
    return (
        f'{{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{{"callSid":"{CALL}","streamSid":"MZ1",'
        f'"accountSid":"AC1","customParameters":{parameters},'
        '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
    )


@asynccontextmanager
async def open_services(
    *, auth: str | None = None, allow_unsigned: bool = True, max_streams: int = 2, **bounds: float
) -> AsyncIterator[FakeServices]:
    services, tokens, check = FakeServices(), StreamTokens(b"secret"), SignatureCheck(auth, "", allow_unsigned)
    events = services.events
    replays = Replays(events)
    admission = Admission(max_streams, lambda: services.stopping, lambda: tokens.promised(time.time()))
    services.admission = desk = StreamAdmission(check, tokens, events, admission, services.answer, replays)
    app = make_app(VoiceWebhooks(check, tokens, events, admission, replays))
    services.door = door = FrontDoor(app, events, desk.serve, bounds=Bounds(**bounds))  # type: ignore[arg-type]

    async def serve(stream: trio.SocketStream) -> None:
        services.streams.append(stream)
        await door.serve_connection(stream)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            services.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            yield services
            nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_takes_its_socket_with_it() -> None:
    """A keep-alive connection the client has closed is gone at once, and not when it was idle for long."""
    async with open_services() as services:
        for _ in range(3):
            async with httpx.AsyncClient(base_url=services.url, trust_env=False) as client:
                assert (await client.get("/healthz")).status_code == 200
        with trio.fail_after(AFTER_END_S + 1):
            while any(stream.socket.fileno() != -1 for stream in services.streams):  # noqa: ASYNC110
                await trio.sleep(0.05)


async def test_requests_and_media_streams_share_one_port() -> None:
    """A call's whole way in: webhook, token, stream; health beside it, and no delay for small messages."""
    async with open_services() as services, httpx.AsyncClient(base_url=services.url) as client:
        answer = await client.post("/voice/incoming", data={"CallSid": CALL, "From": "+1", "To": "+2"})
        token = answer.text.partition('value="')[2].partition('"')[0]
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message(token))
            await socket.send("hello")
            assert await socket.receive() == "hello"
            assert (await client.get("/healthz")).status_code == 200
            assert services.tickets == [CallTicket(CALL, "inbound", "+1", "+2")]
            for stream in services.streams:
                assert stream.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
        async with open_client(services.stream_url + "/") as socket:
            await socket.send(start_message(token))
            with pytest.raises(SocketClosedError, match="1008 token_reused"):
                await socket.receive()
        assert len(services.streams) == 3  # the web requests shared a connection


async def test_requests_in_one_packet_are_answered_in_order() -> None:
    async with open_services() as services:
        one = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        last = b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = await services.raw(one + one + last)
        assert [line.split()[1] for line in answer.split(b"\r\n") if b"HTTP/1.1" in line] == [
            b"200",
            b"200",
            b"404",
        ]


GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_a_websocket_where_none_is_gets_a_clear_answer() -> None:
    async with open_services() as services:
        answer = await services.raw(UPGRADE % b"/elsewhere")
        assert b"404" in answer
        assert b"the only WebSocket here is /media-stream" in answer


async def test_a_stream_comes_on_a_connection_that_carried_a_webhook() -> None:
    """As nginx with upstream keep-alive sends it; it was answered 404 before. DO-1."""
    async with open_services() as services, await trio.open_tcp_stream(*services.address) as stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in await stream.receive_some()
        await stream.send_all(UPGRADE % b"/media-stream")
        assert b" 101 " in await stream.receive_some()


async def test_http_2_gets_no_answer_in_http_2() -> None:
    """Upgrade: h2c, and the preface as a connection's second request: hypercorn took both. DO-1."""
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    async with open_services() as services:
        for first in (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + h2c, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
            answer = await services.raw(first + preface)
            assert b" 101 " not in answer
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"HTTP/1.1 505 " in answer


AMBIGUOUS = [
    GET.replace(b"GET", b"POST") + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    GET + b"X-A: b\r\n folded\r\n\r\n",
    (GET + b"\r\n").replace(b"\r\n", b"\n"),
    GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    (UPGRADE % b"/media-stream").replace(b"Host: a", b"Host: a\r\nContent-Length: 3") + b"abc",
    (UPGRADE % b"/media-stream").replace(b"HTTP/1.1", b"HTTP/1.0"),
]
"""The first was answered 405, the last two 101, all others 200."""


@pytest.mark.parametrize("head", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(head: bytes) -> None:
    """DO-1."""
    async with open_services() as services:
        answer = await services.raw(head + GET + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"HTTP/1.1 200" not in answer


async def test_a_stranger_sees_no_page_of_the_operator_and_decides_no_url() -> None:
    """Metrics and API description were public; a signature for the host that a stranger names was good. DO-2."""
    auth = "token of the account"
    async with open_services(auth=auth, allow_unsigned=False) as services:
        for path in (b"/metrics", b"/openapi.json", b"/docs"):
            assert b" 404 " in await services.raw(
                b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path
            )
        fields = {"CallSid": CALL, "From": "+1", "To": "+2"}
        signed = RequestValidator(auth).compute_signature("https://evil.example/voice/incoming", fields)
        headers = {
            "Host": "evil.example",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "https",
            "X-Twilio-Signature": signed,
        }
        async with httpx.AsyncClient(base_url=services.url, trust_env=False) as client:
            answer = await client.post("/voice/incoming", data=fields, headers=headers)
        assert answer.status_code == 403
        assert "evil" not in answer.text


async def test_a_repeated_webhook_gets_its_token_again_and_takes_no_other_line() -> None:
    """One line, the same request twice: it got another token, or was told that we are busy. DO-2."""
    async with open_services(max_streams=1) as services, httpx.AsyncClient(base_url=services.url) as client:
        fields = {"CallSid": CALL, "From": "+1", "To": "+2"}
        first, again = [(await client.post("/voice/incoming", data=fields)).text for _ in range(2)]
        assert "<Connect>" in first
        assert first == again


async def test_the_noise_of_strangers_is_counted_and_no_error_of_ours() -> None:
    """Bodies that break off, by a reset; heads that are none. DO-1."""
    async with open_services() as services:
        begun = b"POST /voice/incoming HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"
        for _ in range(20):
            assert b" 400 " in await services.raw(b"nonsense\r\n\r\n")
            stream = await trio.open_tcp_stream(*services.address)
            await stream.send_all(begun)
            stream.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        with trio.fail_after(5):
            while len(services.door.lobby):  # noqa: ASYNC110
                await trio.sleep(0.01)
        counts = services.events.counts
        assert counts["BAD_REQUEST"] + counts.get("CONNECTION_LOST", 0) >= 20
        assert "CONNECTION_ERROR" not in counts
        assert services.streams[-1].socket.fileno() == -1


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), b"400"),
        (b"\r\n\r\n\r\n\x00\x00", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 4000 + b"\r\n", b"431"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key") % b"/media-stream", b"400"),
        (UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short") % b"/media-stream", b"400"),
    ],
)
async def test_garbage_is_answered_and_nobody_else_notices(garbage: bytes, status: bytes) -> None:
    async with open_services() as services, open_client(services.stream_url) as socket:
        await socket.send(start_message())
        assert (await services.raw(garbage)).split(b" ")[1] == status
        await socket.send("hello")
        assert await socket.receive() == "hello"


async def test_garbage_inside_a_stream_ends_that_stream_alone() -> None:
    """Bytes that are no WebSocket frame: that connection is closed, and the stream beside it goes on."""
    async with open_services() as services, open_client(services.stream_url) as good:
        await good.send(start_message())
        async with await trio.open_tcp_stream(*services.address) as bad:
            await bad.send_all(UPGRADE % b"/media-stream")
            assert (await bad.receive_some()).startswith(b"HTTP/1.1 101")
            await bad.send_all(b"\xff" * 32)
            async for _ in bad:
                pass
        await good.send("hello")
        assert await good.receive() == "hello"


async def test_an_address_that_signed_requests_came_from_is_not_read_behind_strangers() -> None:
    """All turns to read are taken by others. DO-2."""
    async with open_services() as services:
        reads = services.door.turns.reads
        for stranger in range(int(reads.total_tokens)):
            reads.acquire_on_behalf_of_nowait(stranger)
        request = GET + b"Connection: close\r\n\r\n"
        with trio.move_on_after(0.2) as waits:
            await services.raw(request)
        assert waits.cancelled_caught
        services.door.vouch("127.0.0.1")
        assert b" 200 " in await services.raw(request)


async def test_silent_connections_do_not_shut_the_carrier_out() -> None:
    """Hundreds of idle connections of one address: they were answered 503 for half a minute. DO-2."""
    async with open_services() as services, trio.open_nursery() as nursery:
        silent = [await trio.open_tcp_stream(*services.address) for _ in range(300)]
        for _ in range(3):
            async with httpx.AsyncClient(base_url=services.url, trust_env=False) as client:
                sid = "CA" + secrets.token_hex(16)
                answer = await client.post("/voice/incoming", data={"CallSid": sid, "From": "+1", "To": "+2"})
                assert answer.status_code == 200
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message())
            await socket.send("hello")
            assert await socket.receive() == "hello"
        for stream in silent:
            nursery.start_soon(stream.aclose)


async def test_silent_connections_of_one_address_are_few() -> None:
    """Those that have been idle for a second make room for the next."""
    async with open_services(idle_s=30.0) as services:
        silent = [await trio.open_tcp_stream(*services.address) for _ in range(100)]
        await trio.sleep(FRESH_S + 0.2)
        for _ in range(30):
            silent.append(await trio.open_tcp_stream(*services.address))
            await trio.sleep(2 * EVICTION_EACH_S)
        assert len(services.door.lobby) == 100
        for stream in silent:
            await stream.aclose()


async def test_a_client_that_does_not_read_its_answer_is_dropped() -> None:
    """It asks for more than the sockets' buffers hold and reads nothing."""
    async with open_services(write_s=0.3) as services:
        raw = stdlib.socket()
        raw.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 2048)
        raw.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(raw))
        await stream.socket.connect(services.address)
        services.door.lobby.vouch("127.0.0.1", trio.current_time())
        async with stream:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 500_000)
        await trio.sleep(0.1)
        assert len(services.door.lobby) == 0


async def test_a_client_that_resets_while_its_next_request_waits_leaves_nothing_behind() -> None:
    """The answers cannot be written any more; neither the reader nor the application may wait for them."""
    async with open_services() as services:
        for _ in range(10):
            stream = await trio.open_tcp_stream(*services.address)
            stream.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
            await stream.aclose()
        await trio.sleep(0.3)
        assert len(services.door.lobby) == 0


async def test_a_stream_that_says_nothing_holds_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it stay: START_S is all it has. DO-2."""
    monkeypatch.setattr(stream_admission, "START_S", 0.3)
    async with open_services(max_streams=1) as services, open_client(services.stream_url) as silent:
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message())
            await socket.send("hello")
            assert await socket.receive() == "hello"
            with pytest.raises(SocketClosedError):
                await silent.receive()
        assert services.events.counts["STREAM_REFUSED"] == 1


async def test_behind_a_trusted_proxy_the_forwarded_address_counts_per_request() -> None:
    """While a request is served; a stream that is a call counts no more, and its client is vouched for. DO-2."""
    async with open_services() as services:
        services.door.proxies = TrustedProxies(parse_networks("127.0.0.1"))
        headers = [("X-Forwarded-For", "198.51.100.1, 203.0.113.7")]
        async with open_client(services.stream_url, headers=headers) as socket:
            with trio.fail_after(2):
                while not services.door.lobby._places.get("203.0.113.7"):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await socket.send(start_message())
            await socket.send("hello")
            assert await socket.receive() == "hello"
            assert len(services.door.lobby) == 0
            assert services.door.lobby.wait_s("203.0.113.7", trio.current_time()) == 0
            assert {"203.0.113.7", "127.0.0.1"} <= services.door.lobby._vouched.keys()


async def test_a_token_is_good_once_in_all_processes() -> None:
    """What another process has admitted is refused here. DO-2."""
    used: dict[bytes, str] = {}

    async def keep(key: bytes, answer: str) -> str:
        await trio.lowlevel.checkpoint()
        return used.setdefault(key, answer)

    async with open_services() as services:
        services.admission.replays.keep = keep
        tokens = services.admission.tokens
        token = tokens.issue(CallTicket(CALL, "inbound", "+1", "+2"), time.time())
        used[token_key(token)] = "admitted by another process"
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message(token))
            with pytest.raises(SocketClosedError, match="token_reused"):
                await socket.receive()
        assert services.admission._open == 0


async def test_the_second_stream_of_a_token_holds_no_line() -> None:
    """Nor has a stream whose callSid is none. DO-2."""
    async with open_services(max_streams=2) as services, httpx.AsyncClient(base_url=services.url) as client:
        answer = await client.post("/voice/incoming", data={"CallSid": CALL, "From": "+1", "To": "+2"})
        token = answer.text.partition('value="')[2].partition('"')[0]
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message(token))
            await socket.send("hello")
            assert await socket.receive() == "hello"
            for again, kind in (
                (start_message(token), "token_reused"),
                (start_message("").replace(CALL, "CA1"), "call_sid"),
            ):
                async with open_client(services.stream_url) as second:
                    await second.send(again)
                    with pytest.raises(SocketClosedError, match=kind):
                        await second.receive()
            assert services.admission._open == 1


async def test_lines_are_limited_and_given_back() -> None:
    async with open_services(max_streams=1) as services:
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message())
            with pytest.raises(HandshakeRejectedError, match="503 all lines are busy"):
                async with open_client(services.stream_url):
                    raise AssertionError("the second stream was accepted")
        await services.admission.wait_empty()
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message())
            await socket.send("hello")
            assert await socket.receive() == "hello"


async def test_a_line_is_kept_for_a_caller_who_was_connected() -> None:
    """Two calls for one line: the second is told at the webhook, not cut off when its stream is refused."""
    async with open_services(max_streams=1) as services, httpx.AsyncClient(base_url=services.url) as client:
        answers = [
            (await client.post("/voice/incoming", data={"CallSid": sid})).text for sid in (CALL, "CA" + "2" * 32)
        ]
        assert ["<Connect>" in answer for answer in answers] == [True, False]
        token = answers[0].partition('value="')[2].partition('"')[0]
        async with open_client(services.stream_url) as socket:
            await socket.send(start_message(token))
            await socket.send("hello")
            assert await socket.receive() == "hello"


async def test_while_stopping_no_stream_is_taken() -> None:
    async with open_services() as services:
        services.stopping = "the server is stopping"
        with pytest.raises(HandshakeRejectedError, match="503 the server is stopping"):
            async with open_client(services.stream_url):
                raise AssertionError("the stream was accepted")


@pytest.mark.parametrize("auth", [None, "token of the account"])
async def test_streams_without_a_signature_are_refused(auth: str | None) -> None:
    async with open_services(auth=auth, allow_unsigned=False) as services:
        with pytest.raises(HandshakeRejectedError, match="403"):
            async with open_client(services.stream_url):
                raise AssertionError("the stream was accepted")
        assert services.events.counts["STREAM_REFUSED"] == 1


@pytest.mark.parametrize(("token", "kind"), [("", "token_missing"), ("forged.token", "token_forged")])
async def test_a_signed_stream_still_needs_its_token(token: str, kind: str) -> None:
    auth = "token of the account"
    async with open_services(auth=auth, allow_unsigned=False) as services:
        validator = RequestValidator(auth)
        headers = [("X-Twilio-Signature", validator.compute_signature(services.stream_url, {}))]
        async with open_client(services.stream_url, headers=headers) as socket:
            await socket.send(start_message(token))
            with pytest.raises(SocketClosedError, match=kind):
                await socket.receive()

"""Webhooks delivered over real sockets: to checked addresses only, in bounded time, clear errors."""

from __future__ import annotations

import json
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import DeliveryError, StepDeadError
from agent.pipeline.webhook.delivery import Delivery, DeliveryTimeouts, deliver
from agent.sim.serving import serve_app
from agent.sim.webhook_receiver import FAILS, GONE, HANGS, ReceiverFault, WebhookReceiver

CERTIFICATES = Path(__file__).parents[2] / "support" / "certificates"
SECRET = "whsec_test"  # noqa: S105
KEY = "call.completed-CA1"
QUICK = DeliveryTimeouts(look_up_s=0.3, connect_s=0.3, write_s=0.3, answer_s=0.3, total_s=0.8)
BODY = '{"name":"דנה"}'.encode()

send = partial(deliver, BODY, secret=SECRET, key=KEY, timeouts=QUICK)
"""Not allowed inward unless it is said; certificates are the usual ones."""


@attrs.define(eq=False)
class Resolver(trio.abc.HostnameResolver):
    """Names by a table; each lookup takes the next of the answers, the last one stays."""

    names: dict[str, list[list[str]]]
    asked: list[str] = attrs.field(factory=list)

    async def getaddrinfo(
        self, host: bytes | None, port: bytes | str | int | None, *_: int, **__: int
    ) -> list[Any]:
        """See HostnameResolver."""
        name = (host or b"").decode()
        self.asked.append(name)
        if name not in self.names:
            raise trio.socket.gaierror(-2, "Name or service not known")
        answers = self.names[name]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        await trio.lowlevel.checkpoint()
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Not asked for."""
        raise NotImplementedError


@contextmanager
def names(**answers: Any) -> Iterator[Resolver]:
    """Resolve ``receiver_test=[...]`` as receiver.test; each answer is a list of addresses."""
    resolver = Resolver({name.replace("_", "."): value for name, value in answers.items()})
    before = trio.socket.set_custom_hostname_resolver(resolver)
    try:
        yield resolver
    finally:
        trio.socket.set_custom_hostname_resolver(before)


@asynccontextmanager
async def serving(receiver: WebhookReceiver, *, tls: bool = False) -> AsyncIterator[str]:
    files = (str(CERTIFICATES / "receiver.pem"), str(CERTIFICATES / "receiver.key")) if tls else (None, None)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            app = receiver.make_app()
            yield await nursery.start(partial(serve_app, app, certfile=files[0], keyfile=files[1]))
            nursery.cancel_scope.cancel(reason="the test is over")


@asynccontextmanager
async def raw_server(answer: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """A TCP server of a few lines; yields its port."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await answer(stream)
        except trio.BrokenResourceError:
            return

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel(reason="the test is over")


def receiver_with(*faults: ReceiverFault) -> WebhookReceiver:
    return WebhookReceiver(SECRET, deque(faults))


@pytest.mark.sockets
async def test_delivered_once_signed_with_its_key_and_as_it_was() -> None:
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver) as url:
        first = await send(url=f"{url}/calls?tenant=1", allow_inward=True)
        again = await send(url=f"{url}/calls", allow_inward=True)
    assert (first.status, first.error, first.is_dead) == (200, None, False)
    assert again.error is None
    first.check()
    assert receiver.bodies == {KEY: BODY}
    assert (receiver.times(KEY), receiver.unsigned, receiver.changed.total()) == (2, 0, 0)


@pytest.mark.sockets
async def test_a_wrong_secret_is_refused_by_the_receiver() -> None:
    receiver = WebhookReceiver("whsec_other")
    async with serving(receiver) as url:
        delivery = await send(url=url, allow_inward=True)
    assert delivery.error == 'HTTP 401: {"error":"the signature does not fit"}'
    assert (receiver.unsigned, receiver.bodies) == (1, {})


@pytest.mark.sockets
async def test_a_receiver_that_fails_says_how() -> None:
    async with serving(receiver_with(FAILS)) as url:
        delivery = await send(url=url, allow_inward=True)
    assert (delivery.status, delivery.is_dead) == (500, False)
    assert delivery.error == "HTTP 500: the receiver fails, as asked for"
    with pytest.raises(DeliveryError, match="HTTP 500"):
        delivery.check()


@pytest.mark.sockets
async def test_a_receiver_that_is_gone_is_not_asked_again() -> None:
    async with serving(receiver_with(GONE)) as url:
        delivery = await send(url=url, allow_inward=True)
    assert delivery.status == 410
    with pytest.raises(StepDeadError, match="gone"):
        delivery.check()


@pytest.mark.sockets
@pytest.mark.parametrize("inward", ["http://169.254.169.254/latest", "http://127.0.0.1:1/", "//10.0.0.1/"])
async def test_a_redirect_inwards_is_not_followed(inward: str) -> None:
    receiver = receiver_with(ReceiverFault(307, location=inward))
    async with serving(receiver) as url:
        delivery = await send(url=url, allow_inward=True)
    assert delivery.error == f"HTTP 307 redirects to {inward}: redirects are not followed, change the URL"
    assert receiver.requests == 1


@pytest.mark.sockets
async def test_a_receiver_that_hangs_is_left() -> None:
    async with serving(receiver_with(HANGS)) as url:
        delivery = await send(url=url, allow_inward=True)
    assert (delivery.status, delivery.error) == (None, "127.0.0.1 did not answer within 0.3 s")
    assert delivery.duration_ms < 2000


@pytest.mark.sockets
async def test_a_head_that_drips_is_bounded_by_the_total() -> None:
    async def drip(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send_all(b"X: y\r\n")
            await trio.sleep(0.1)

    async with raw_server(drip) as port:
        delivery = await send(url=f"http://127.0.0.1:{port}/", allow_inward=True)
    assert delivery.error == "no complete answer within 0.8 s"
    assert delivery.duration_ms < 3000


@pytest.mark.sockets
@pytest.mark.parametrize(("status", "error"), [(200, None), (503, "HTTP 503: ")])
async def test_a_body_that_never_ends_is_not_waited_for(status: int, error: str | None) -> None:
    async with serving(receiver_with(ReceiverFault(status, drip=True))) as url:
        delivery = await send(url=url, allow_inward=True)
    assert delivery.status == status
    assert delivery.error == error or str(delivery.error).startswith("HTTP 503")
    assert delivery.duration_ms < 3000


@pytest.mark.sockets
async def test_of_a_huge_refusal_only_the_beginning_is_read() -> None:
    async def flood(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: 999999999\r\n\r\n")
        while True:
            await stream.send_all(b"\x1b[31m evil\n" * 1000)

    async with raw_server(flood) as port:
        delivery = await send(url=f"http://127.0.0.1:{port}/", allow_inward=True)
    assert delivery.error is not None
    assert delivery.error.startswith("HTTP 500: [31m evil [31m evil")
    assert len(delivery.error) <= 220


@pytest.mark.sockets
@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"A" * 200_000, b"HTTP/9 what\r\n\r\n"]
)
async def test_an_answer_that_is_no_http_is_a_failure(answer: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)

    async with raw_server(talk) as port:
        delivery = await send(url=f"http://127.0.0.1:{port}/", allow_inward=True)
    assert delivery.status is None
    assert delivery.error is not None
    assert "RemoteProtocolError" in delivery.error or "ReadError" in delivery.error


@pytest.mark.sockets
async def test_nobody_listens() -> None:
    with names(receiver_test=[["127.0.0.1"]]):
        delivery = await send(url="http://receiver.test:1/", allow_inward=True)
    assert delivery.error is not None
    assert delivery.error.startswith("receiver.test: ConnectError")


@pytest.mark.sockets
async def test_the_next_address_is_tried_when_one_refuses() -> None:
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver) as url:
        port = url.rpartition(":")[2]
        with names(receiver_test=[["127.0.0.9", "127.0.0.1"]]):
            delivery = await send(url=f"http://receiver.test:{port}/", allow_inward=True)
    assert delivery.error is None
    assert receiver.times(KEY) == 1


# TLS


def trusting_the_authority() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")


@pytest.mark.sockets
async def test_https_asks_for_the_name_and_checks_the_certificate_against_it() -> None:
    """Although the connection is made to an address."""
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver, tls=True) as url:
        port = url.rpartition(":")[2]
        with names(receiver_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]]):
            right, wrong = [
                await send(
                    url=f"https://{name}:{port}/", allow_inward=True, certificates=trusting_the_authority()
                )
                for name in ("receiver.test", "other.test")
            ]
    assert right.error is None
    assert wrong.error is not None
    assert wrong.error.startswith("the certificate of other.test is not accepted: Hostname mismatch")
    assert receiver.requests == 1


@pytest.mark.sockets
async def test_a_certificate_of_an_unknown_authority_is_not_accepted() -> None:
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver, tls=True) as url:
        with names(receiver_test=[["127.0.0.1"]]):
            delivery = await send(url=f"https://receiver.test:{url.rpartition(':')[2]}/", allow_inward=True)
    assert delivery.error is not None
    assert delivery.error.startswith("the certificate of receiver.test is not accepted: ")
    assert (delivery.is_dead, receiver.requests) == (False, 0)


@pytest.mark.sockets
async def test_a_server_without_tls_or_that_says_nothing() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async def hang(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with raw_server(talk) as port:
        plain = await send(url=f"https://127.0.0.1:{port}/", allow_inward=True)
    async with raw_server(hang) as port:
        silent = await send(url=f"https://127.0.0.1:{port}/", allow_inward=True)
    assert plain.error is not None
    assert plain.error.startswith("127.0.0.1 does not speak TLS with us: ")
    assert silent.error == "127.0.0.1 did not take the connection within 0.3 s"


# Inward


async def refused(url: str, *addresses: str, allow_inward: bool = False) -> Delivery:
    with names(receiver_test=[list(addresses)]):
        return await send(url=url, allow_inward=allow_inward)


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("10.1.2.3", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("169.254.1.1", "link-local"),
        ("169.254.169.254", "cloud metadata"),
        ("224.0.0.1", "multicast"),
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("255.255.255.255", "reserved"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::a00:1", "private"),
        ("2002:7f00:1::", "loopback"),
        ("fd00::1", "private"),
        ("fe80::1%eth0", "link-local"),
    ],
)
async def test_a_name_that_leads_inward_is_not_connected_to(address: str, why: str) -> None:
    delivery = await refused("https://receiver.test/", address)
    assert delivery.error is not None
    assert delivery.error.startswith("receiver.test leads inward: ")
    assert why in delivery.error
    assert (delivery.status, delivery.is_dead) == (None, False)


@pytest.mark.sockets
@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "100.100.100.200", "224.0.0.1", "0.0.0.0", "fe80::1", "::"],  # noqa: S104 - refused
)
async def test_some_addresses_are_never_allowed(address: str) -> None:
    delivery = await refused("https://receiver.test/", address, allow_inward=True)
    assert delivery.error is not None
    assert "leads inward" in delivery.error
    assert "AGENT_ALLOW" not in delivery.error


@pytest.mark.sockets
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::169.254.169.254]", "10.0.0.1", "169.254.169.254"],
)
async def test_an_inward_address_in_the_url_is_dead_at_once(host: str) -> None:
    delivery = await refused(f"https://{host}/")
    assert delivery.is_dead
    assert str(delivery.error).startswith("the webhook leads inward: ")


@pytest.mark.sockets
@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001", "0"])
async def test_odd_spellings_of_inward_addresses_are_refused(host: str) -> None:
    delivery = await refused(f"https://{host}/")
    assert re.search("leads inward|Invalid IPv4 address", str(delivery.error))


@pytest.mark.sockets
async def test_the_name_is_looked_up_once_so_it_cannot_lead_elsewhere_meanwhile() -> None:
    """DNS rebinding: a second lookup would give an address that nobody checked."""
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver) as url:
        with names(receiver_test=[["127.0.0.1"], ["169.254.169.254"]]) as resolver:
            delivery = await send(url=f"http://receiver.test:{url.rpartition(':')[2]}/", allow_inward=True)
    assert delivery.error is None
    assert resolver.asked == ["receiver.test"]


@pytest.mark.sockets
async def test_of_mixed_addresses_only_the_allowed_are_connected_to() -> None:
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver) as url:
        with names(receiver_test=[["169.254.169.254", "127.0.0.1"]]):
            delivery = await send(url=f"http://receiver.test:{url.rpartition(':')[2]}/", allow_inward=True)
    assert delivery.error is None


@pytest.mark.sockets
async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would connect for us, unchecked."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    receiver = WebhookReceiver(SECRET)
    async with serving(receiver) as url:
        delivery = await send(url=url, allow_inward=True)
    assert delivery.error is None


# URLs and names


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://example.com/", "not https"),
        ("ftp://example.com/", "cannot be used"),
        ("https://", "cannot be used"),
        ("not a url", "cannot be used"),
        ("https://exa mple.com/", "cannot be used"),
        ("https://[::1/", "cannot be used"),
        ("https://example.com:99999/", "cannot be used"),
        ("https://example.com:0/", "cannot be used"),
        ("https://xn--.test/", "cannot be used"),
        ("https://user:secret@example.com/", "user or password"),
        ("", "cannot be used"),
    ],
)
async def test_a_url_that_cannot_work_is_dead(url: str, error: str) -> None:
    delivery = await refused(url)
    assert delivery.is_dead
    assert error in str(delivery.error)
    assert "secret" not in str(delivery.error)


@given(st.text(max_size=40))
def test_no_url_makes_it_raise(url: str) -> None:
    async def main() -> Delivery:
        with names():
            return await send(url=url, allow_inward=False)

    assert trio.run(main).error


@pytest.mark.sockets
@pytest.mark.parametrize("host", ["nowhere.test", "a" * 70 + ".test"])
async def test_a_name_that_is_not_there_is_tried_again_later(host: str) -> None:
    delivery = await refused(f"https://{host}/")
    assert delivery.error is not None
    assert "cannot" in delivery.error


@pytest.mark.sockets
async def test_a_lookup_that_hangs_is_bounded() -> None:
    class Hangs(Resolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
            await trio.sleep_forever()
            raise AssertionError

    before = trio.socket.set_custom_hostname_resolver(Hangs({}))
    try:
        delivery = await send(url="https://receiver.test/", allow_inward=False)
    finally:
        trio.socket.set_custom_hostname_resolver(before)
    assert delivery.error == "receiver.test was not looked up within 0.3 s"


@pytest.mark.sockets
async def test_a_cancel_leaves_nothing_behind() -> None:
    async with serving(receiver_with(HANGS)) as url:
        with trio.move_on_after(0.1) as scope:
            await deliver(BODY, url, SECRET, KEY, allow_inward=True)
        assert scope.cancelled_caught


@pytest.mark.sockets
async def test_the_receiver_tells_what_came() -> None:
    """The endpoint that a benchmark in another process asks."""
    receiver = WebhookReceiver(SECRET, fail_every=2)
    async with serving(receiver) as url:
        statuses = [(await send(url=url, allow_inward=True)).status for _ in range(3)]
        other = await deliver(b"{}", url, "whsec_other", KEY, allow_inward=True)
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            await stream.send_all(b"GET /received HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join([part async for part in stream])
    assert statuses == [200, 500, 200]
    assert other.status == 500
    told = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert told == {"keys": {KEY: 2}, "changed": {}, "unsigned": 0, "requests": 4}

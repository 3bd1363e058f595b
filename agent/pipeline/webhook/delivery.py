"""A webhook delivered: one POST, signed, bounded in every direction, and never to an address inside.

The host is looked up once, its addresses are checked, and the connection is made to a checked address itself;
nobody looks the name up again, so it cannot lead elsewhere meanwhile (DNS rebinding). TLS still asks for the
name (SNI) and checks the certificate against it. Redirects are not followed: they are a failure that names the
new place. Proxies from the environment are not used: they would connect for us, unchecked.
"""

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import attrs
import httpcore  # noqa: F401 - httpx imports it with its first client: 20 ms that no call should wait for
import httpx
import trio

from agent.core.errors import DeliveryError, StepDeadError
from agent.pipeline.analysis.extraction import clean, cut
from agent.pipeline.webhook.address_policy import LOCAL_RANGES, inward_kind
from agent.pipeline.webhook.signature import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, sign

Address = IPv4Address | IPv6Address

MOST_ADDRESSES: Final = 4
"""Addresses of one host that are tried; a name may have thousands."""
_MOST_ANSWER_BYTES: Final = 2048
"""Of a refusal's body, for the error's text. The body of a 2xx is not read at all."""
_LONGEST_QUOTE: Final = 200
_QUOTE_S: Final = 1.0
_LAST_PORT: Final = 65535
_ALLOW: Final = "AGENT_ALLOW_INWARD_WEBHOOKS=1 allows it, for development"


@attrs.frozen
class DeliveryTimeouts:
    """How long each part of a delivery may take, in seconds, and all together."""

    look_up_s: float = 5.0
    connect_s: float = 5.0
    """To each address, TLS not counted in; that has as much again."""
    write_s: float = 10.0
    answer_s: float = 15.0
    """From the request to the answer's head: what docs/webhook.md gives the receiver."""
    total_s: float = 30.0


@attrs.frozen
class Delivery:
    """How one attempt ended. ``status`` is the HTTP status if there was one; ``error`` None: delivered.

    ``is_dead``: no further attempt can succeed, before someone changes the tenant or a setting.
    """

    status: int | None
    error: str | None
    duration_ms: int = 0
    is_dead: bool = False

    def check(self) -> None:
        """Raise what the ledger understands: StepDeadError or DeliveryError, with the reason; or nothing."""
        if self.error is not None:
            raise (StepDeadError if self.is_dead else DeliveryError)(self.error)


async def deliver(
    payload: bytes,
    url: str,
    secret: str,
    key: str,
    *,
    allow_inward: bool,
    timeouts: DeliveryTimeouts = DeliveryTimeouts(),
    certificates: ssl.SSLContext | None = None,
) -> Delivery:
    """POST ``payload`` (JSON) to ``url``, signed with ``secret`` now, under the idempotency key ``key``.

    ``allow_inward`` allows http, and private, shared and loopback addresses; link-local, metadata, multicast and
    reserved ones are never allowed. ``certificates`` are those of the usual authorities unless given. Raises
    nothing that the network or the receiver could cause: that is the ``error``. Takes ``timeouts.total_s`` at
    most. A cancel drops the connection; whether the receiver took the request is then unknown.
    """
    started_s = trio.current_time()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "call-agent",
        "Accept-Encoding": "identity",
        IDEMPOTENCY_HEADER: key,
        SIGNATURE_HEADER: sign(payload, secret, int(time.time())),
    }
    ended = Delivery(None, f"no complete answer within {timeouts.total_s:g} s")
    with trio.move_on_after(timeouts.total_s):
        try:
            target = _target(url, allow_inward=allow_inward)
            if certificates is None:
                certificates = await trio.to_thread.run_sync(_usual_certificates, abandon_on_cancel=True)
            addresses = await _addresses(target, timeouts, allow_inward=allow_inward)
            ended = await _post(
                target,
                addresses,
                payload=payload,
                headers=headers,
                timeouts=timeouts,
                certificates=certificates,
            )
        except (StepDeadError, DeliveryError) as error:
            ended = Delivery(None, str(error), is_dead=isinstance(error, StepDeadError))
    return attrs.evolve(ended, duration_ms=round((trio.current_time() - started_s) * 1000))


@cache
def _usual_certificates() -> ssl.SSLContext:
    """The authorities httpx trusts (SSL_CERT_FILE and SSL_CERT_DIR count); reading them takes 20 ms."""
    return httpx.create_ssl_context()


def _target(url: str, *, allow_inward: bool) -> httpx.URL:
    """The URL, if we may try it. Raises StepDeadError, saying why not."""
    try:
        target = httpx.URL(url)
        host = target.host
    except (httpx.InvalidURL, ValueError) as error:
        raise StepDeadError(f"the webhook's URL cannot be used: {error}") from None
    if target.scheme not in ("https", "http") or not host or "%" in host or not 0 < _port(target) <= _LAST_PORT:
        raise StepDeadError("the webhook's URL cannot be used: https://host/path is expected")
    if target.userinfo:
        raise StepDeadError("the webhook's URL has a user or password in it: check the signature instead")
    if target.scheme == "http" and not allow_inward:
        raise StepDeadError(f"the webhook's URL is not https; {_ALLOW}")
    try:
        literal = ip_address(host)
    except ValueError:
        return target
    if reason := _why_not(literal, allow_inward=allow_inward):
        raise StepDeadError(f"the webhook leads inward: {reason}")
    return target


def _why_not(address: Address, *, allow_inward: bool) -> str:
    """Why ``address`` must not be connected to; empty: it may."""
    kind = inward_kind(address)
    if kind is None or (allow_inward and kind in LOCAL_RANGES):
        return ""
    return f"{address} is a {kind} address" + (f"; {_ALLOW}" if kind in LOCAL_RANGES else "")


async def _addresses(target: httpx.URL, timeouts: DeliveryTimeouts, *, allow_inward: bool) -> list[Address]:
    """The addresses of the host that may be connected to, at least one. Raises DeliveryError."""
    try:
        with trio.fail_after(timeouts.look_up_s):
            found = await trio.socket.getaddrinfo(
                target.raw_host.decode(), _port(target), type=socket.SOCK_STREAM
            )
    except trio.TooSlowError:
        raise DeliveryError(f"{target.host} was not looked up within {timeouts.look_up_s:g} s") from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DeliveryError(f"{target.host} cannot be looked up: {reason}") from None
    addresses = list(dict.fromkeys(ip_address(place[0]) for *_, place in found))
    reasons = {address: _why_not(address, allow_inward=allow_inward) for address in addresses}
    allowed = [address for address, reason in reasons.items() if not reason]
    if not allowed:
        why = next(iter(reasons.values()), "it has no address")
        raise DeliveryError(f"{target.host} leads inward: {why}")
    return allowed[:MOST_ADDRESSES]


def _port(target: httpx.URL) -> int:
    return target.port if target.port is not None else (443 if target.scheme == "https" else 80)


async def _post(
    target: httpx.URL,
    addresses: Sequence[Address],
    *,
    payload: bytes,
    headers: dict[str, str],
    timeouts: DeliveryTimeouts,
    certificates: ssl.SSLContext,
) -> Delivery:
    """Post to the first of ``addresses`` that takes the connection. Raises DeliveryError."""
    timeout = httpx.Timeout(
        connect=timeouts.connect_s, write=timeouts.write_s, read=timeouts.answer_s, pool=timeouts.connect_s
    )
    host = target.raw_host.decode()
    failure: httpx.HTTPError | None = None
    async with httpx.AsyncClient(
        verify=certificates, trust_env=False, follow_redirects=False, timeout=timeout
    ) as client:
        for address in addresses:
            request = client.build_request(
                "POST",
                target.copy_with(host=str(address)),
                content=payload,
                headers={"Host": target.netloc.decode(), **headers},
                extensions={"sni_hostname": host},
            )
            try:
                answer = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error  # nothing was sent yet: the next address may do
                continue
            except httpx.HTTPError as error:
                raise DeliveryError(_explain(error, target.host, timeouts)) from None
            try:
                return await _judge(answer)
            finally:
                # httpcore shields the closing of a socket, and it does not wait for the peer.
                await answer.aclose()  # noqa: ASYNC102
    raise DeliveryError(_explain(failure, target.host, timeouts))


async def _judge(answer: httpx.Response) -> Delivery:
    status = answer.status_code
    if answer.is_success:
        return Delivery(status, None)
    if answer.has_redirect_location:
        place = cut(clean(answer.headers["location"]), _LONGEST_QUOTE)
        return Delivery(status, f"HTTP {status} redirects to {place}: redirects are not followed, change the URL")
    if status == httpx.codes.GONE:
        return Delivery(status, "HTTP 410: the receiver says that it is gone for good", is_dead=True)
    quote = cut(clean(await _beginning(answer)), _LONGEST_QUOTE)
    return Delivery(status, f"HTTP {status}" + (f": {quote}" if quote else ""))


async def _beginning(answer: httpx.Response) -> str:
    """The first bytes of the body as text; what comes of it, if the connection breaks or is slow."""
    read = bytearray()
    # The status is what counts, and it is known: a body that breaks or drips may do so. It is left by a cancel,
    # because a break would leave the generators inside to the garbage collector.
    with trio.move_on_after(_QUOTE_S) as scope, suppress(httpx.HTTPError):
        async for part in answer.aiter_raw():
            read += part[: _MOST_ANSWER_BYTES - len(read)]
            if len(read) == _MOST_ANSWER_BYTES:
                scope.cancel(reason="enough for an error's text")
    return read.decode(errors="replace")


def _explain(error: httpx.HTTPError | None, host: str, timeouts: DeliveryTimeouts) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate of {host} is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"{host} does not speak TLS with us: {cause.reason or cause}"
    if isinstance(error, httpx.ConnectTimeout):
        return f"{host} did not take the connection within {timeouts.connect_s:g} s"
    if isinstance(error, httpx.ReadTimeout):
        return f"{host} did not answer within {timeouts.answer_s:g} s"
    if isinstance(error, httpx.WriteTimeout):
        return f"{host} did not take the request within {timeouts.write_s:g} s"
    detail = cut(clean(str(error)), _LONGEST_QUOTE)
    return f"{host}: {type(error).__name__}" + (f": {detail}" if detail else "")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__

"""Phoning an agent as Twilio does: a signed webhook, its TwiML, and the media stream it asks for.

::

    async with place_call("http://127.0.0.1:8080", "+15550001111", "+15552223333") as stream:
        await stream.until_heard_ms(1000)
"""

import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import attrs
import httpx
import trio
from twilio.request_validator import RequestValidator

from agent.core.errors import AgentError
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.link import HeldStream
from agent.wire.websocket import HANDSHAKE_S, open_client, open_client_over

WEBHOOK_S: Final = 15.0
"""How long Twilio waits for a webhook's answer."""
SIGNATURE: Final = "X-Twilio-Signature"


class CallNotTakenError(AgentError):
    """The agent did not connect the call to a media stream; ``status`` is HTTP's, ``body`` what it answered."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"the agent did not take the call: HTTP {status} {body[:300]}")
        self.status = status
        self.body = body


@cache
def _certificates() -> ssl.SSLContext:
    """The system's certificates; reading them takes 20 ms, too long to be done for each webhook."""
    return ssl.create_default_context()


@attrs.frozen
class StreamOrder:
    """What a TwiML ``<Connect><Stream>`` asks for."""

    url: str
    parameters: Mapping[str, str]


@attrs.frozen
class Caller:
    """Signs and posts as one Twilio account.

    ``public_url`` is the agent's URL as Twilio knows it, which is what is signed; ``agent_url`` is where the
    agent is reached. They differ behind a proxy. Without ``auth_token`` nothing is signed.
    """

    agent_url: str
    auth_token: str | None = attrs.field(default=None, repr=False)
    account_sid: str = "AC" + "0" * 32
    public_url: str = ""

    def signature(self, url: str, fields: Mapping[str, str]) -> dict[str, str]:
        """The header that proves a request to ``url`` (as it is reached) to be ours."""
        if self.auth_token is None:
            return {}
        validator = RequestValidator(self.auth_token)
        return {SIGNATURE: str(validator.compute_signature(self._public(url), fields))}

    async def post(self, url: str, fields: Mapping[str, str]) -> httpx.Response:
        """Post a webhook. Raises httpx.HTTPError (WEBHOOK_S without an answer is one)."""
        async with httpx.AsyncClient(timeout=WEBHOOK_S, trust_env=False, verify=_certificates()) as client:
            return await client.post(url, data=dict(fields), headers=self.signature(url, fields))

    def fields(self, call_sid: str, from_: str, to: str, direction: str, status: str) -> dict[str, str]:
        """What every webhook about a call carries."""
        return {
            "AccountSid": self.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": call_sid,
            "CallStatus": status,
            "Called": to,
            "Caller": from_,
            "Direction": direction,
            "From": from_,
            "To": to,
        }

    @asynccontextmanager
    async def connect(self, order: StreamOrder, call_sid: str, **stream: Any) -> AsyncIterator[SimulatedStream]:
        """Open the media stream that ``order`` asks for; ``stream`` is passed on to ``open_simulated_stream``.

        Raises what ``agent.wire.websocket.open_client`` does.
        """
        parts = urlsplit(self.reachable(order.url))
        signature = self.signature(order.url, {})
        headers = [*signature.items(), ("User-Agent", "TwilioProxy/1.1")]
        options = {
            "call_sid": call_sid,
            "stream_sid": f"MZ{secrets.token_hex(16)}",
            "custom_parameters": order.parameters,
            "account_sid": self.account_sid,
            **stream,
        }
        if parts.scheme == "wss":
            async with (
                open_client(parts.geturl(), headers=headers) as socket,
                open_simulated_stream(socket, **options) as simulated,
            ):
                yield simulated
            return
        with trio.fail_after(HANDSHAKE_S):
            tcp = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
        link = HeldStream(tcp)
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        async with (
            open_client_over(link, parts.netloc, resource, headers=headers) as socket,
            open_simulated_stream(socket, link=link, **options) as simulated,
        ):
            yield simulated

    def _public(self, url: str) -> str:
        """``url`` as Twilio knows it: with the public base, if it has ours."""
        return _rebased(url, self.agent_url, self.public_url) if self.public_url else url

    def reachable(self, url: str) -> str:
        """``url`` as it can be reached from here."""
        return _rebased(url, self.public_url, self.agent_url) if self.public_url else url


def _rebased(url: str, old: str, new: str) -> str:
    """``url`` with the base ``new`` if it has the base ``old``."""
    for before, after in zip(_bases(old), _bases(new), strict=True):
        if url.startswith(before):
            return after + url.removeprefix(before)
    return url


def _bases(base: str) -> tuple[str, str]:
    """A base URL for requests and for WebSockets."""
    base = base.rstrip("/")
    return base, "ws" + base.removeprefix("http")


def parse_twiml(response: httpx.Response) -> StreamOrder:
    """The stream that a webhook's answer asks for. Raises CallNotTakenError if it asks for none."""
    refusal = CallNotTakenError(response.status_code, response.text)
    if response.status_code != httpx.codes.OK:
        raise refusal
    try:
        root = ET.fromstring(response.text)  # noqa: S314  (what the agent under test wrote)
    except ET.ParseError:
        raise refusal from None
    stream = root.find("./Connect/Stream")
    if root.tag != "Response" or stream is None or not stream.get("url"):
        raise refusal
    parameters = {item.get("name", ""): item.get("value", "") for item in stream.findall("Parameter")}
    return StreamOrder(stream.get("url", ""), parameters)


@asynccontextmanager
async def place_call(
    agent_url: str,
    from_: str,
    to: str,
    *,
    auth_token: str | None = None,
    public_url: str = "",
    call_sid: str | None = None,
    **stream: Any,
) -> AsyncIterator[SimulatedStream]:
    """Call the agent at ``agent_url`` (``http://host:port``) and yield the call's media stream.

    ``stream`` is passed on to ``open_simulated_stream`` (network, playback, ticker, record). Leaving hangs up
    and tells ``/voice/status`` that the call is completed. Raises CallNotTakenError, httpx.HTTPError, and what
    ``agent.wire.websocket.open_client`` raises.
    """
    caller = Caller(agent_url.rstrip("/"), auth_token, public_url=public_url)
    sid = call_sid or f"CA{secrets.token_hex(16)}"
    fields = caller.fields(sid, from_, to, "inbound", "ringing")
    order = parse_twiml(await caller.post(f"{caller.agent_url}/voice/incoming", fields))
    async with caller.connect(order, sid, **stream) as simulated:
        yield simulated
    completed = {**fields, "CallStatus": "completed", "CallDuration": "1"}
    await caller.post(f"{caller.agent_url}/voice/status", completed)

"""Behind real proxies, with the configurations of docs/proxies.md: webhooks and streams, by TLS. DO-1."""

import re
import secrets
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from greeting_agent import AUTH, GreetingAgent, open_agent
from twilio.request_validator import RequestValidator

from agent.core.units import CallSid, StreamSid
from agent.sim.carrier.codec import MessageWriter
from agent.wire.websocket import open_client_over

pytestmark = pytest.mark.sockets
ROOT = Path(__file__).parents[2]
CERTIFICATES = ROOT / "tests" / "support" / "certificates"
NAME = "receiver.test"
PUBLIC = f"https://{NAME}"
PACKAGES = {"nginx": "nginx-light", "caddy": "caddy"}
NGINX = """
daemon off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    %s
}
"""
CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n}\n%s"


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")


@attrs.define(eq=False)
class Proxied:
    """The agent behind a proxy, as seen from outside."""

    agent: GreetingAgent
    port: int
    client: httpx.AsyncClient

    async def post(self, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
        """Post as Twilio does."""
        headers["X-Twilio-Signature"] = RequestValidator(AUTH).compute_signature(PUBLIC + path, fields)
        return await self.client.post(path, data=fields, headers=headers)

    async def call(self) -> None:
        """One call: webhook, token, stream by TLS, greeting."""
        sid = f"CA{secrets.token_hex(16)}"
        answer = await self.post("/voice/incoming", {"CallSid": sid, "From": "+1555", "To": "+1556"})
        assert f'url="wss://{NAME}/media-stream"' in answer.text
        token = answer.text.partition('value="')[2].partition('"')[0]
        signature = RequestValidator(AUTH).compute_signature(f"wss://{NAME}/media-stream", {})
        async with open_client_over(
            await self.connect(), NAME, "/media-stream", headers=[("X-Twilio-Signature", signature)]
        ) as socket:
            writer = MessageWriter(StreamSid("MZ" + sid[2:]), CallSid(sid), "AC" + "0" * 32)
            await socket.send(writer.connected())
            await socket.send(writer.start({"token": token}))
            assert '"media"' in str(await socket.receive())
        assert self.agent.tickets[-1].call_sid == sid

    async def connect(self) -> trio.SSLStream[trio.SocketStream]:
        """A TLS connection to the proxy."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        return trio.SSLStream(stream, trusting(), server_hostname=NAME, https_compatible=True)


def configuration(kind: str, port: int, agent: str, other: int) -> str:
    """What docs/proxies.md says, for this machine."""
    text = (ROOT / "docs" / "proxies.md").read_text("utf-8")
    block = re.search(rf"```{'nginx' if kind == 'nginx' else 'caddyfile'}\n(.*?)```", text, re.DOTALL)
    assert block is not None
    said = block[1].replace("/etc/ssl/agent.pem", f'"{CERTIFICATES / "receiver.pem"}"')
    said = said.replace("/etc/ssl/agent.key", f'"{CERTIFICATES / "receiver.key"}"')
    said = said.replace("127.0.0.1:8080", agent.removeprefix("http://"))
    if kind == "nginx":
        said = said.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        return NGINX % said.replace("agent.example.com", NAME)
    return CADDY % (other, said.replace("agent.example.com", f"{NAME}:{port}"))


@asynccontextmanager
async def open_proxied(kind: str, folder: Path) -> AsyncIterator[Proxied]:
    """The agent behind ``kind``; skipped where it is not installed."""
    program = shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed (Debian package {PACKAGES[kind]})")
    agent, port, other = GreetingAgent(), await free_port(), await free_port()
    file = folder / "configuration"
    command = {
        "nginx": [program, "-p", str(folder), "-c", str(file), "-e", "error.log"],
        "caddy": [program, "run", "--config", str(file), "--adapter", "caddyfile"],
    }[kind]
    with trio.fail_after(30):
        async with (
            open_agent(agent, public_url=PUBLIC, trusted_proxies="127.0.0.1") as url,
            trio.open_nursery() as nursery,
        ):
            file.write_text(configuration(kind, port, url, other), "utf-8")
            with (folder / "log").open("wb") as log:
                environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
                run = partial(trio.run_process, command, env=environment, check=False, stdout=log, stderr=log)
                nursery.start_soon(run)
                async with httpx.AsyncClient(
                    transport=httpx.AsyncHTTPTransport(verify=trusting()), base_url=PUBLIC, trust_env=False
                ) as client:
                    reached(client, port)
                    proxied = Proxied(agent, port, client)
                    await until_there(proxied, folder)
                    yield proxied
            nursery.cancel_scope.cancel()


def reached(client: httpx.AsyncClient, port: int) -> None:
    """Have ``client`` find the proxy under its name, as a name server would."""

    async def rewrite(request: httpx.Request) -> None:
        await trio.lowlevel.checkpoint()
        request.extensions["sni_hostname"] = NAME
        request.url = request.url.copy_with(host="127.0.0.1", port=port)

    client.event_hooks["request"] = [rewrite]


async def until_there(proxied: Proxied, folder: Path) -> None:
    for _ in range(100):
        try:
            assert (await proxied.client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            await trio.sleep(0.1)
        else:
            return
    raise AssertionError((folder / "log").read_text("utf-8"))


async def free_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@pytest.mark.parametrize("kind", PACKAGES)
async def test_calls_come_through_a_proxy_that_keeps_its_connections(kind: str, tmp_path: Path) -> None:
    """Webhook, stream, webhook, stream: handshakes come on connections that carried webhooks (404 before)."""
    async with open_proxied(kind, tmp_path) as proxied:
        for _ in range(5):
            await proxied.call()
        counts = proxied.agent.door.events.counts
        assert not {"STREAM_REFUSED", "BAD_REQUEST", "CONNECTION_ERROR", "CONNECTION_REFUSED"} & counts.keys()


@pytest.mark.parametrize("kind", PACKAGES)
async def test_a_proxy_is_not_led_around_its_rules(kind: str, tmp_path: Path) -> None:
    """No h2c through it, whatever a client says of itself; large bodies stop there or here."""
    async with open_proxied(kind, tmp_path) as proxied:
        async with await proxied.connect() as stream:
            h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
            await stream.send_all(f"GET /readyz HTTP/1.1\r\nHost: {NAME}\r\n{h2c}\r\n".encode())
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        fields = {"CallSid": f"CA{secrets.token_hex(16)}", "From": "+1555", "To": "+1556"}
        lies = {"X-Forwarded-Host": "liar.example", "X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.9"}
        answer = await proxied.post("/voice/incoming", fields, **lies)
        assert f'url="wss://{NAME}/media-stream"' in answer.text
        assert not proxied.agent.door.lobby._vouched.get("203.0.113.9")
        # Caddy 2.6 says 502 of a body that it does not read to its end.
        large = await proxied.client.post("/voice/status", content=b"a" * 100_000)
        assert large.status_code in (413, 502)


@pytest.mark.parametrize("kind", PACKAGES)
async def test_idle_connections_of_a_proxy_outlive_what_strangers_may_have(kind: str, tmp_path: Path) -> None:
    """A webhook on one that we had closed would be answered 502 by the proxy."""
    async with open_proxied(kind, tmp_path) as proxied:
        await proxied.client.get("/readyz")
        await trio.sleep(proxied.agent.door.bounds.idle_s + 1)
        assert len(proxied.agent.door.lobby) == 1
        await proxied.call()

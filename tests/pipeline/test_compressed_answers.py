"""What others send back costs what it has on the wire: a gzip bomb is refused, an endless answer left. DO-1."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from pathlib import Path

import openai
import pytest
import trio

from agent.app.cli.readiness import MOST_BYTES, ask_readiness
from agent.carrier import rest as carrier_rest
from agent.carrier.rest import open_twilio_rest
from agent.core.errors import CarrierError
from agent.core.settings import Settings, load_settings
from agent.core.units import CallSid, RecordingSid
from agent.pipeline import openai_client
from agent.pipeline.openai_client import open_openai_client
from agent.pipeline.recording.carrier_media import open_twilio_recordings
from agent.pipeline.recording.download import RecordingState, fetch_recording
from agent.pipeline.webhook.delivery import deliver

pytestmark = pytest.mark.sockets
INFLATED = 96 * 1024 * 1024
MOST_MEMORY = 24 * 1024 * 1024
CALL = CallSid("CA" + "c" * 32)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@cache
def bomb() -> bytes:
    """A small answer of 96 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * 1024 * 1024
    body = b"".join([*(packer.compress(block) for _ in range(INFLATED // len(block))), packer.flush()])
    return HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def answer_with(answer: bytes, *, endless: bool, stream: trio.SocketStream) -> None:
    """Any request, once; then more of it, until the client has enough."""
    try:
        await stream.receive_some(65536)
        await stream.send_all(answer)
        while endless:
            await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await stream.send_eof()
        await trio.sleep(1.0)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_server(*, endless: bool) -> AsyncIterator[str]:
    """It answers every request in the same way."""
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" if endless else bomb()

    async def serve(stream: trio.SocketStream) -> None:
        await answer_with(answer, endless=endless, stream=stream)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def settings(url: str) -> Settings:
    return load_settings(
        openai_api_key="none",
        openai_base_url=f"{url}/v1",
        twilio_account_sid="AC" + "a" * 32,
        twilio_auth_token="token",  # noqa: S106
        twilio_api_url=url,
    )


@pytest.mark.parametrize("endless", [False, True], ids=["bomb", "endless"])
async def test_the_model_api(*, endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "MOST_ANSWER_BYTES", 1024 * 1024)
    async with (
        open_server(endless=endless) as url,
        open_openai_client(settings(url), request_s=20.0) as client,
    ):
        with little_memory(), pytest.raises(openai.APIConnectionError) as failed:
            await client.post("/responses", body={}, cast_to=object)
        assert ("does not end" if endless else "compressed") in str(failed.value.__cause__)


@pytest.mark.parametrize("endless", [False, True], ids=["bomb", "endless"])
async def test_the_carriers_rest(*, endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_server(endless=endless) as url:
        with open_twilio_rest(settings(url)) as rest:
            assert rest is not None
            with little_memory(), pytest.raises(CarrierError, match="compressed"):
                await rest.hang_up(CALL)
    assert carrier_rest.MOST_ANSWER_BYTES < MOST_MEMORY


async def test_the_carriers_recordings(tmp_path: Path) -> None:
    """It is no WAV file, and as small as it came."""
    async with open_server(endless=False) as url, open_twilio_recordings(settings(url)) as carrier:
        assert carrier is not None
        told = RecordingState(RecordingSid("RE1"), "completed")
        with little_memory(), pytest.raises(CarrierError, match="WAV"):
            await fetch_recording(CALL, told, carrier, tmp_path)
        with little_memory(), pytest.raises(CarrierError):
            await carrier.recording_of(CALL)


@pytest.mark.parametrize("endless", [False, True], ids=["bomb", "endless"])
async def test_whoever_answers_at_the_public_url(*, endless: bool) -> None:
    """``doctor`` and ``dial`` ask it whether it is ours."""
    async with open_server(endless=endless) as url:
        with little_memory():
            status, body = await ask_readiness(url, within_s=20.0)
        assert status == 200
        assert len(body) == MOST_BYTES


@pytest.mark.parametrize("endless", [False, True], ids=["bomb", "endless"])
async def test_a_receiver_of_webhooks(*, endless: bool) -> None:
    async with open_server(endless=endless) as url:
        with little_memory():
            delivery = await deliver(b"{}", f"{url}/calls", "secret", "key", allow_inward=True)
        assert delivery.error is None

"""The embedded model's server on a real socket, with fake networks: no session feels another's troubles."""

from __future__ import annotations

import json
import logging
from base64 import b64encode

import attrs
import pytest
import trio

from agent.core.audio_format import AudioFormat
from agent.core.errors import HandshakeRejectedError, SocketClosedError
from agent.local import server
from agent.local.speech.listening import WINDOW_BYTES
from agent.model.events import ErrorEvent, ModelEvent, ResponseDone, SessionCreated, decode_event
from agent.model.requests import encode_append, encode_response_create
from agent.wire.websocket import MessageSocket, open_client

pytestmark = pytest.mark.sockets


@attrs.define(eq=False)
class BrokenVad:
    """A detector that fails on loud audio."""

    def probability(self, window: bytes) -> float:
        """See Vad."""
        if window[0] == 0:
            raise RuntimeError("the network is broken")
        return 0.0


class Engines:
    """Networks that say one sentence."""

    def make_vad(self) -> BrokenVad:
        """See Engines."""
        return BrokenVad()

    async def transcribe(self, ulaw: bytes) -> str:
        """See Engines."""
        await trio.lowlevel.checkpoint()
        return f"{len(ulaw)}"

    def sentences(self, text: str) -> list[str]:
        """See Engines."""
        return [text]

    async def speak(self, sentence: str, voice: str, audio: AudioFormat) -> bytes:
        """See Engines."""
        await trio.lowlevel.checkpoint()
        return f"{voice}{sentence}".encode()


async def event(socket: MessageSocket) -> ModelEvent:
    return decode_event(await socket.receive())


async def answer(socket: MessageSocket) -> str:
    """Ask for a greeting; the status of the answer."""
    await socket.send(encode_response_create("e1", "greeting", "Say exactly: Hello."))
    while not isinstance(received := await event(socket), ResponseDone):
        assert not isinstance(received, ErrorEvent)
    return received.status


async def test_a_session_that_fails_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Its socket closes and the error is logged; the session beside it and the next one are served."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve, Engines(), 0)
            url = f"ws://127.0.0.1:{port}{server.PATH}"
            async with open_client(url) as healthy, open_client(url) as doomed:
                await event(doomed)
                await doomed.send(encode_append(b64encode(bytes(WINDOW_BYTES)).decode()))
                with pytest.raises(SocketClosedError) as closed:
                    await event(doomed)
                assert closed.value.code == 1011
                assert await answer(healthy) == "completed"
                async with open_client(url) as later:
                    assert await answer(later) == "completed"
            nursery.cancel_scope.cancel()
    [record] = [r for r in caplog.records if r.name == "agent.local.server"]
    assert record.getMessage() == "a session failed"
    assert "the network is broken" in caplog.text


async def test_more_sessions_than_it_can_serve_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one too many gets 503 with the reason; a place that becomes free is given again."""
    monkeypatch.setattr(server, "MAX_SESSIONS", 1)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve, Engines(), 0)
            url = f"ws://127.0.0.1:{port}{server.PATH}"
            async with open_client(url) as only:
                assert isinstance(await event(only), SessionCreated)
                with pytest.raises(HandshakeRejectedError, match="sessions are in use") as refused:
                    async with open_client(url):
                        pytest.fail("a session too many")
                assert refused.value.status == 503
            while True:
                try:
                    async with open_client(url) as next_one:
                        assert json.loads(await next_one.receive())["type"] == "session.created"
                        break
                except HandshakeRejectedError:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_during_the_handshake_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.serve, Engines(), 0)
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            await stream.aclose()
            async with open_client(f"ws://127.0.0.1:{port}{server.PATH}") as socket:
                assert await answer(socket) == "completed"
            nursery.cancel_scope.cancel()
    assert not [r for r in caplog.records if r.name == "agent.local.server" and r.levelno >= logging.ERROR]

"""Whole calls of a simulated browser, in virtual time: the real line, nursery and WebSocket protocol."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from virtual_call import FakeServices, open_services

from agent.app.browser_answer import BrowserCalls
from agent.browser.admission import BrowserAdmission
from agent.browser.decoding import Decoding, DecodingObserver, Job
from agent.browser.webm_decoder import WebmDecoder
from agent.sim.browser.phone import BrowserPhone, open_simulated_browser
from agent.sim.browser.recorder import WebmRecorder
from agent.sim.carrier.playback import PlaybackBuffer
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.link import HeldStream, memory_link
from agent.sim.memory import memory_realtime, open_memory_sockets
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.wire.websocket import TrioWebSocket

ORIGIN = "http://localhost:8080"


@attrs.define(eq=False)
class BrowserWorld:
    """A server of browsers' calls, and how to connect to it."""

    services: FakeServices
    calls: BrowserCalls
    nursery: trio.Nursery
    links: list[tuple[HeldStream, HeldStream]] = attrs.field(factory=list)
    """The two ends under each connection, the browser's first."""

    def token(self) -> str:
        """A fresh one."""
        return self.calls.admission.issue("127.0.0.1", ORIGIN, "", time.time())

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[TrioWebSocket]:
        """Another connection to ``/browser-stream``; the server's side of it may outlive ours."""
        link = memory_link()
        self.links.append(link)
        async with open_memory_sockets(link) as (ours, theirs):
            self.nursery.start_soon(self.calls.serve, theirs, ORIGIN)  # noqa: ASYNC113 - the server outlives it
            yield ours


async def in_place(job: Job) -> list[bytes]:
    """Without a thread, over which virtual time would jump."""
    await trio.lowlevel.checkpoint()
    return job()


def decoding_in_place(observer: DecodingObserver) -> Decoding:
    """As ``open_decoding``, on the event loop."""
    return Decoding(WebmDecoder(), observer, in_place)


@asynccontextmanager
async def open_world(model: ScriptedRealtime, **settings: Any) -> AsyncIterator[BrowserWorld]:
    """A server with one scripted model."""
    async with (
        open_services(memory_realtime(lambda: model), **settings) as services,
        trio.open_nursery() as nursery,
    ):
        calls = BrowserCalls(services.calls, BrowserAdmission(), decoding_in_place)
        yield BrowserWorld(services, calls, nursery)


@asynccontextmanager
async def open_browser_call(
    answers: Sequence[Answer],
    *,
    transcripts: Sequence[str] = (),
    delay_ms: int = 0,
    reported_delay_ms: int | None = None,
    settings: dict[str, Any] | None = None,
    recorder: WebmRecorder | None = None,
    at_most_s: float = 120.0,
    **stream: Any,
) -> AsyncIterator[tuple[BrowserWorld, BrowserPhone, SimulatedStream, ScriptedRealtime]]:
    """One call of one browser to one scripted model; its device plays audio ``delay_ms`` late, and says so."""
    model = ScriptedRealtime(answers, transcripts=transcripts)
    reported_ms = delay_ms if reported_delay_ms is None else reported_delay_ms
    with trio.fail_after(at_most_s):
        async with (
            open_world(model, **(settings or {})) as world,
            open_simulated_browser(
                world.connect, world.token(), delay_ms=reported_ms, recorder=recorder
            ) as phone,
            open_simulated_stream(
                phone,
                call_sid="BR",
                stream_sid="BR",
                playback=PlaybackBuffer(delay_s=delay_ms / 1000),
                **stream,
            ) as simulated,
        ):
            yield world, phone, simulated, model


async def speak_while_broken(phone: BrowserPhone, stream: SimulatedStream, said_ms: int, broken_s: float) -> None:
    """Break the connection and keep it broken, while the caller goes on to speak."""
    phone.paused = True
    await phone.break_connection()
    stream.say(tone(said_ms))
    await trio.sleep(broken_s)
    phone.paused = False

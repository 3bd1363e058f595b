"""Browsers that send WebM/Opus: one process, one WebSocket for each. Run as a module.

All say the same, encoded once. Prints the measured window as a line of JSON, and leaves its report in a file.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from agent.sim.browser.recorder import WebmRecorder
from bench.generator.clockwork import Clockwork
from bench.generator.observations import Window
from bench.parts.recordings.order import CHUNK_S, LOOP_MS, BrowserOrder, BrowserReport

_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_TOKENS_OF_AN_ADDRESS: Final = 10
"""One address gets twenty a minute."""
_PING_S: Final = 1.0
SENTENCE_S, SPOKEN_S = 3.0, 2.0


def record() -> list[bytes]:
    """The chunks of a recording: noise that comes and goes as syllables do, with pauses."""
    samples = 24 * LOOP_MS
    at_s = np.arange(samples) / 24_000
    noise = np.random.default_rng(1).normal(0, 1, samples + 7)
    voice = np.convolve(noise, np.ones(8) / 8, "valid") * np.clip(np.sin(2 * np.pi * 4 * at_s), 0, 1)
    voice *= at_s % SENTENCE_S < SPOKEN_S
    audio = (voice * 12_000).clip(-32_000, 32_000).astype(np.int16).tobytes()
    recorder = WebmRecorder()
    chunks = [recorder.record(audio[at : at + 960]) for at in range(0, len(audio), 960)]
    return [chunk for chunk in chunks if chunk]


def over_and_over(chunks: list[bytes]) -> Iterator[bytes]:
    """The first chunk, which has the header, once; then all others without end."""
    yield chunks[0]
    yield from cycle(chunks[1:])


class Browser(WSListener):
    """One call."""

    def __init__(self, token: str, chunks: list[bytes], clockwork: Clockwork) -> None:
        self.closed = ""
        self.frames = 0
        self.gap_s = 0.0
        self._token = token
        self._chunks = over_and_over(chunks)
        self._clockwork = clockwork
        self._received = 0
        self._last_s = 0.0
        self._transport: WSTransport
        self._over = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Say who this is."""
        self._transport = transport
        self._say(type="hello", token=self._token, version=1, format="webm/opus")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """A message of the agent's."""
        if frame.msg_type is _BINARY:
            self._received += 1
            self._hear(monotonic())
        elif frame.msg_type is WSMsgType.CLOSE:
            if not self._over:
                reason = frame.get_close_message() or b""
                self.closed = f"{frame.get_close_code()} {reason.decode(errors='replace')}"
            transport.disconnect()
        else:
            self._read(msgspec.json.decode(frame.get_payload_as_bytes()))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        del transport
        if not self._over:
            self.closed = self.closed or "cut"
            self._over = True

    def begin(self) -> None:
        """The window begins."""
        self.frames, self.gap_s = 0, 0.0

    def hang_up(self) -> None:
        """End the call."""
        if not self._over:
            self._over = True
            self._say(type="hangup")

    def _read(self, message: dict[str, Any]) -> None:
        if message["type"] == "welcome":
            self._clockwork.at(monotonic(), self._record)
            self._clockwork.at(monotonic(), self._ping)
        elif message["type"] != "pong":
            self._received += 1
            if message["type"] == "mark" and not self._over:
                self._say(type="played", mark=message["name"])

    def _hear(self, now: float) -> None:
        if self._last_s:
            self.gap_s = max(self.gap_s, now - self._last_s)
        self._last_s = now
        self.frames += 1

    def _record(self, due_s: float) -> float | None:
        if self._over:
            return None
        self._transport.send(_BINARY, next(self._chunks))
        return due_s + CHUNK_S

    def _ping(self, due_s: float) -> float | None:
        if self._over:
            return None
        self._say(type="ping", received=self._received, sent_ms=due_s * 1000)
        return due_s + _PING_S

    def _say(self, **message: Any) -> None:
        self._transport.send(_TEXT, msgspec.json.encode(message))


async def phone(order: BrowserOrder) -> BrowserReport:
    """Make all calls, and listen."""
    chunks, clockwork, browsers = record(), Clockwork(), list[Browser]()
    begin_s = monotonic() + order.ramp_s
    window = Window(begin_s, begin_s + order.seconds)
    print(msgspec.json.encode(window).decode(), flush=True)  # noqa: T201 - how the parent is told
    began_s = monotonic()
    for number in range(order.calls):
        await asyncio.sleep(began_s + number * order.per_call_s - monotonic())
        address = f"127.0.0.{2 + number // _TOKENS_OF_AN_ADDRESS}"
        transport = httpx.AsyncHTTPTransport(local_address=address)
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            answer = await client.post(f"{order.url}/browser/token", json={})
        browser = Browser(answer.raise_for_status().json()["token"], chunks, clockwork)
        browsers.append(browser)
        with suppress(WSError, OSError):
            await ws_connect(lambda browser=browser: browser, f"ws{order.url[4:]}/browser-stream")
    await asyncio.sleep(window.begin_s - monotonic())
    for browser in browsers:
        browser.begin()
    clockwork.late_s.clear()
    await asyncio.sleep(window.end_s - monotonic())
    late_s = sorted(clockwork.late_s)
    report = BrowserReport(
        frames=sum(browser.frames for browser in browsers),
        gap_ms=max(browser.gap_s for browser in browsers) * 1000,
        closed=[browser.closed for browser in browsers if browser.closed],
        late_ms=late_s[len(late_s) * 99 // 100] * 1000,
    )
    for browser in browsers:
        browser.hang_up()
    await asyncio.sleep(1.0)
    return report


if __name__ == "__main__":
    told = msgspec.json.decode(sys.argv[1], type=BrowserOrder)
    gc.disable()  # a process of minutes whose pauses are not what is measured
    Path(told.result).write_bytes(msgspec.msgpack.encode(uvloop.run(phone(told))))

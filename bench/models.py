"""The model of a load run: one process, a scripted session for each call, and notes of what it said.

Started by ``bench.load`` as ``python -m bench.models``; prints its URL as a line of JSON, ends at
SIGTERM, and leaves its report in a file.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from binascii import Error as Base64Error
from binascii import a2b_base64
from functools import partial
from pathlib import Path
from typing import Final, cast

import attrs
import msgspec
import trio

from agent.core.errors import SocketClosedError
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.wire.connection import SendCheck
from agent.wire.websocket import TrioWebSocket, open_server_handshake
from bench.observations import ModelCall, ModelReport, Truncation
from bench.plan import LoadPlan, SimulatorOrder, read_signature

_APPEND_HEAD: Final = '{"type":"input_audio_buffer.append","audio":"'
_SPEECH_STARTED: Final = '{"type":"input_audio_buffer.speech_started"'
_SIGNED_WITHIN: Final = 100
"""Frames of a call among which its signature is looked for: the first, but for what a reconnect may do."""
_ANSWERS: Final = 1000
"""More than a call of any length has here."""


class _Truncate(msgspec.Struct):
    type: str
    item_id: str = ""
    audio_end_ms: int = 0


@attrs.define(eq=False)
class WatchedSocket:
    """The model's end of one socket: notes when speech_started leaves, and what the agent asks for."""

    inner: TrioWebSocket
    seen: ModelCall = attrs.field(factory=ModelCall)
    truncates: list[tuple[float, str, int]] = attrs.field(factory=list)
    """When, which item, how many milliseconds."""
    _appends: int = 0

    async def receive(self) -> str | bytes:
        """See MessageSocket."""
        raw = await self.inner.receive()
        if isinstance(raw, str):
            if not raw.startswith(_APPEND_HEAD):
                self._request(raw)
            elif self.seen.call < 0 and self._appends < _SIGNED_WITHIN:
                self._appends += 1
                self._look_for_signature(raw)
        return raw

    def _look_for_signature(self, raw: str) -> None:
        try:
            call = read_signature(a2b_base64(raw[len(_APPEND_HEAD) : -2]))
        except Base64Error:
            return  # the session answers it with an error event, which is counted
        if call is not None:
            self.seen.call = call

    def _request(self, raw: str) -> None:
        event = msgspec.json.decode(raw, type=_Truncate)
        if event.type == "conversation.item.truncate":
            self.truncates.append((time.monotonic(), event.item_id, event.audio_end_ms))
        elif event.type == "response.cancel":
            self.seen.cancels += 1

    async def send(self, message: str, wanted: SendCheck | None = None) -> bool:
        """See MessageSocket."""
        if message.startswith(_SPEECH_STARTED):
            self.seen.speech_started_s.append(time.monotonic())
        return await self.inner.send(message, wanted)

    async def ping(self) -> None:
        """See MessageSocket."""
        await self.inner.ping()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See MessageSocket."""
        await self.inner.aclose(code, reason)

    async def abort(self) -> None:
        """See CarrierSocket."""
        await self.inner.abort()


@attrs.define(eq=False)
class Models:
    """All sessions of a run."""

    plan: LoadPlan
    calls: list[ModelCall] = attrs.field(factory=list)

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        """One session, until its socket closes."""
        try:
            async with open_server_handshake(stream) as handshake:
                await self._serve(WatchedSocket(await handshake.accept()))
        except (SocketClosedError, trio.TooSlowError):
            return

    async def _serve(self, socket: WatchedSocket) -> None:
        model = ScriptedRealtime(_answers(self.plan), record=False)
        self.calls.append(socket.seen)
        try:
            # It uses what a carrier's socket has, and no more.
            await model.serve(cast("TrioWebSocket", socket))
        finally:
            numbers = {response.item_id: response.number for response in model.session.responses}
            socket.seen.truncations = [
                Truncation(at_s, numbers.get(item_id, -1), audio_end_ms)
                for at_s, item_id, audio_end_ms in socket.truncates
            ]
            socket.seen.errors = [str(error["message"]) for error in model.errors_sent]


def _answers(plan: LoadPlan) -> list[Answer]:
    kinds = [
        Answer(
            "This is a simulated answer.",
            length_ms,
            speed=speed,
            chunk_bytes=plan.chunk_bytes,
            first_delta_ms=plan.first_delta_ms,
        )
        for length_ms, speed in plan.answers
    ]
    return [kinds[number % len(kinds)] for number in range(_ANSWERS)]


async def serve_models(plan: LoadPlan) -> ModelReport:
    """Serve on a free port until SIGTERM; prints the URL as one line of JSON first."""
    models = Models(plan)
    began_s = time.monotonic()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, models.serve_connection, 0, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/v1/realtime"
            print(msgspec.json.encode(url).decode(), flush=True)  # noqa: T201  (how the parent is told)
            async for _ in signals:
                nursery.cancel_scope.cancel(reason="asked to stop")
                break
    cpu_share = time.process_time() / (time.monotonic() - began_s)
    return ModelReport(models.calls, cpu_share)


def main() -> None:
    """Do what the order on the command line says."""
    order = msgspec.json.decode(sys.argv[1], type=SimulatorOrder)
    gc.freeze()  # the simulator's own pauses are not what is measured
    report = trio.run(serve_models, order.plan)
    Path(order.result).write_bytes(msgspec.json.encode(report))


if __name__ == "__main__":
    main()

"""The callers of a load run: one process, one WebSocket for each, and an exact ear on what comes.

Started by ``bench.load`` as ``python -m bench.carriers``; prints the measured window as a line of
JSON, and leaves its report in a file.
"""

from __future__ import annotations

import gc
import sys
import time
from binascii import a2b_base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import httpx
import msgspec
import trio

from agent.core.errors import AgentError
from agent.core.units import BYTES_PER_MS
from agent.sim.carrier.dialling import Caller, StreamOrder, parse_twiml
from agent.sim.carrier.load import PHASES
from agent.sim.carrier.playback import PlaybackBuffer
from agent.sim.carrier.stream import SimulatedStream, open_simulated_stream
from agent.sim.sounds import Utterance, tone
from agent.sim.ticker import Ticker
from agent.wire.connection import SendCheck
from agent.wire.websocket import TrioWebSocket, open_client
from bench.observations import CarrierCall, CarrierReport, Clear, Spell, Window
from bench.plan import OUR_NUMBER, LoadPlan, SimulatorOrder, call_sid, number_of, signature

_MEDIA: Final = '{"event":"media"'
_CLEAR: Final = '{"event":"clear"'
_PAYLOAD: Final = '"payload":"'
_NOTHING_NUMBERED: Final = 12
"""Numbers from here on are silence, see agent.sim.sounds."""
STARTLE_S: Final = 2.0
"""A caller lets the greeting play so long before speaking first."""


@attrs.define(eq=False)
class WatchedSocket:
    """A carrier's socket that notes when each frame of which answer came, before the simulation sees it."""

    inner: TrioWebSocket
    playback: PlaybackBuffer
    seen: CarrierCall

    async def receive(self) -> str | bytes:
        """See MessageSocket."""
        raw = await self.inner.receive()
        now = time.monotonic()
        if isinstance(raw, str):
            if raw.startswith(_MEDIA):
                self._frame(raw, now)
            elif raw.startswith(_CLEAR):
                self._clear(now)
        return raw

    def _frame(self, raw: str, now: float) -> None:
        at = raw.index(_PAYLOAD) + len(_PAYLOAD)
        number = a2b_base64(raw[at : at + 4])[0] >> 4
        spells = self.seen.spells
        if number >= _NOTHING_NUMBERED:
            return
        cleared = bool(self.seen.clears) and self.seen.clears[-1].spell == len(spells) - 1
        if not spells or spells[-1].number != number or cleared:
            spells.append(Spell(number, self.playback.received_bytes))
        spells[-1].arrivals_s.append(now)

    def _clear(self, now: float) -> None:
        playback, spells = self.playback, self.seen.spells
        playback.audible(trio.current_time())
        heard_ms = 0.0
        if spells:
            reached = playback.played_bytes + playback.cleared_bytes
            heard_ms = max(reached - spells[-1].begin_bytes, 0) / BYTES_PER_MS
        self.seen.clears.append(Clear(now, len(spells) - 1, heard_ms))

    async def send(self, message: str, wanted: SendCheck | None = None) -> bool:
        """See MessageSocket."""
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


async def _announce(url: str, call: int) -> StreamOrder:
    """Ask the agent at ``url`` what to do with a call, as Twilio does."""
    caller = Caller(url)
    fields = caller.fields(call_sid(call), number_of(call), OUR_NUMBER, "inbound", "ringing")
    return parse_twiml(await caller.post(f"{url}/voice/incoming", fields))


@asynccontextmanager
async def _open_call(url: str, seen: CarrierCall, ticker: Ticker) -> AsyncIterator[SimulatedStream]:
    playback = PlaybackBuffer(record=False)
    order = await _announce(url, seen.call) if url.startswith("http") else StreamOrder(url, {})
    async with (
        open_client(order.url) as socket,
        open_simulated_stream(
            WatchedSocket(socket, playback, seen),
            call_sid=call_sid(seen.call),
            custom_parameters=order.parameters,
            stream_sid=f"MZ{seen.call:032x}",
            playback=playback,
            ticker=ticker,
            record=False,
        ) as stream,
    ):
        seen.started_s = time.monotonic()
        stream.say(signature(seen.call))
        try:
            yield stream
        finally:
            seen.hung_up_s = time.monotonic()
            to_monotonic_s = time.monotonic() - trio.current_time()
            seen.underruns_s = [underrun.at_s + to_monotonic_s for underrun in playback.underruns]
            seen.protocol_errors = stream.protocol_errors


async def _call(url: str, seen: CarrierCall, ticker: Ticker, plan: LoadPlan, window: Window) -> None:
    """One caller, from the first word to the end of the window; what goes wrong is noted, others go on."""
    speech = Utterance(tone(plan.speech_ms))
    leave_s = plan.leave_s(seen.call, window.begin_s, window.end_s)
    end_s = trio.current_time() + leave_s - time.monotonic()
    try:
        async with _open_call(url, seen, ticker) as stream:
            with trio.move_on_at(end_s):
                await trio.sleep(STARTLE_S + plan.every_s * seen.call / plan.calls)
                while not stream.is_closed:
                    stream.say(speech)
                    await trio.sleep(plan.every_s)
            if stream.is_closed:
                seen.failure = f"the agent ended the call with {stream.close_code}"
    except (AgentError, OSError, httpx.HTTPError, trio.TooSlowError) as error:
        seen.failure = str(error) or type(error).__name__


async def phone(url: str, plan: LoadPlan) -> CarrierReport:
    """Make all calls of ``plan`` to the media stream at ``url``; at an http:// URL by the agent's webhook.

    Prints the window as one line of JSON first.
    """
    now = time.monotonic()
    begin_s = now + plan.ramp_s + plan.warm_up_s
    window = Window(begin_s, begin_s + plan.seconds)
    print(msgspec.json.encode(window).decode(), flush=True)  # noqa: T201  (how the parent is told)
    ticker = Ticker(PHASES)
    calls = [CarrierCall(number, 0.0) for number in range(plan.calls)]
    async with trio.open_nursery() as clock:
        clock.start_soon(ticker.run)
        async with trio.open_nursery() as nursery:
            for seen in calls:
                nursery.start_soon(_call, url, seen, ticker, plan, window)
                await trio.sleep(plan.ramp_s / plan.calls)
        clock.cancel_scope.cancel(reason="all calls are over")
    cpu_share = time.process_time() / (time.monotonic() - now)
    return CarrierReport(window.begin_s, window.end_s, calls, ticker.max_late_s, cpu_share)


def main() -> None:
    """Do what the order on the command line says."""
    order = msgspec.json.decode(sys.argv[1], type=SimulatorOrder)
    gc.freeze()  # the simulator's own pauses are not what is measured
    report = trio.run(phone, order.url, order.plan)
    Path(order.result).write_bytes(msgspec.json.encode(report))


if __name__ == "__main__":
    main()

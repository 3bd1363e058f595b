"""A simulated Twilio media stream: the caller's side of one call, over one WebSocket.

In a test of your own, in virtual time (pytest-trio's ``autojump_clock``; see ``agent.sim.memory``)::

    async def test_the_agent_greets(autojump_clock):
        async with open_memory_sockets() as (carrier_end, agent_end), trio.open_nursery() as nursery:
            nursery.start_soon(my_agent, agent_end)
            async with open_simulated_stream(carrier_end, call_sid="CA1", stream_sid="MZ1") as stream:
                await stream.until_heard_ms(500)      # half a second of greeting reached the caller's ear
                stream.say(tone(800))                 # the caller interrupts
                await stream.until_quiet(1.0)
                await stream.hang_up()
            assert stream.playback.underruns == []
            kinds = [entry.kind for entry in stream.wire if entry.direction == "tx"]
            assert "clear" in kinds

Directions are the telephone's: ``rx`` comes from the caller, ``tx`` goes to the caller.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from math import inf
from typing import Literal, Protocol

import attrs
import msgspec
import trio

from agent.core.errors import SocketClosedError
from agent.core.task_nursery import open_task_nursery
from agent.core.units import BYTES_PER_MS, FRAME_S, CallSid, StreamSid
from agent.sim.carrier.arrivals import Arrivals
from agent.sim.carrier.caller import CallerVoice
from agent.sim.carrier.codec import MessageWriter, agent_message_decoder
from agent.sim.carrier.network import Network, OneWay
from agent.sim.carrier.playback import PlaybackBuffer
from agent.sim.carrier.tape import Tape
from agent.sim.link import HeldStream
from agent.sim.sounds import SILENCE_PAYLOAD, Utterance
from agent.sim.tasks import Wakeup
from agent.sim.ticker import Ticker
from agent.wire.websocket import CLOSE_GRACE_S, MessageSocket


def _happened() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


class CarrierSocket(MessageSocket, Protocol):
    """What a simulated stream runs on: a WebSocket that can also break."""

    async def abort(self) -> None:
        """Drop the connection without a close frame. Never raises."""


@attrs.frozen
class WireEntry:
    """One message as the carrier sent (rx) or received (tx) it; ``audio`` is set for media."""

    t_s: float
    direction: Literal["rx", "tx"]
    kind: str
    detail: str = ""
    """The mark's name or the digit; what is wrong with a message of kind ``malformed``."""
    audio: bytes = attrs.field(default=b"", repr=lambda audio: f"{len(audio)} bytes")


@attrs.define(eq=False, kw_only=True)
class SimulatedStream:
    """One media stream, as the carrier sees it. Made by ``open_simulated_stream``."""

    call_sid: CallSid
    stream_sid: StreamSid
    custom_parameters: Mapping[str, str]
    network: Network
    playback: PlaybackBuffer
    record: bool
    wire: list[WireEntry] = attrs.field(factory=list)
    """Every message both ways in the order of time; stays empty without ``record``."""
    voice: CallerVoice
    counts: Counter[str] = attrs.field(factory=Counter)
    """Messages by direction and kind, ``tx media`` for example; always counted."""
    arrivals: Arrivals = attrs.field(factory=Arrivals)
    protocol_errors: list[str] = attrs.field(factory=list)
    """What the agent sent that Twilio would not take."""
    started_s: float
    close_code: int | None = None
    _socket: CarrierSocket
    _link: HeldStream | None
    _writer: MessageWriter
    _ticker: Ticker
    _to_agent: OneWay
    _to_carrier: OneWay
    _wakeup: Wakeup = attrs.field(factory=Wakeup)
    _outbox: deque[tuple[float, str]] = attrs.field(factory=deque)
    """Messages on their way to the agent, each with the time it is to be written."""
    _inbox: deque[tuple[float, str | bytes]] = attrs.field(factory=deque)
    """Messages of the agent on their way to the carrier, each with the time it arrives."""
    _to_lose: int = 0
    _stopped: bool = False
    _read_again: trio.Event | None = None
    _all_said: trio.Event = attrs.field(factory=_happened)
    _all_sent: trio.Event = attrs.field(factory=trio.Event)
    _closed: trio.Event = attrs.field(factory=trio.Event)

    def run_in(self, task_nursery: trio.Nursery) -> None:
        """Begin the stream, with its tasks in ``task_nursery``; ``open_simulated_stream`` calls this once."""
        self._post(self._writer.connected(), "connected")
        self._post(self._writer.start(self.custom_parameters), "start")
        task_nursery.start_soon(self._run_writer)
        task_nursery.start_soon(self._run_reader)
        self._ticker.join(self._tick)

    # What a caller can do.

    def say(self, speech: bytes | Utterance) -> None:
        """Speak ``speech`` (mu-law) after what is being said, from the next 20 ms tick on; never waits."""
        utterance = speech if isinstance(speech, Utterance) else Utterance(speech)
        if utterance.payloads and not self._stopped:
            if not self.voice:
                self._all_said = trio.Event()
            self.voice.add(utterance)
            self._ticker.join(self._tick)

    def press(self, digit: str) -> None:
        """Press a key: 0-9, *, #, A-D."""
        self._post(self._writer.dtmf(digit), "dtmf", digit)

    def lose(self, frames: int) -> None:
        """The network loses the next ``frames`` frames of caller audio."""
        self._to_lose += frames

    async def hang_up(self) -> None:
        """The caller hangs up: ``stop`` is sent and the socket closed. May be repeated.

        A cancel closes the socket at once.
        """
        try:
            if not self._stopped:
                self._end_of_media()
                self._post(self._writer.stop(), "stop")
                with trio.move_on_after(self.network.latest_s + CLOSE_GRACE_S):
                    await self._all_sent.wait()
        finally:
            await self._socket.aclose()
            self.end(1000)

    async def vanish(self) -> None:
        """The connection breaks: no ``stop``, no close frame."""
        self._end_of_media()
        self._outbox.clear()
        await self._socket.abort()
        self.end(1006)

    def stop_reading(self) -> None:
        """Read no more: the buffers on the way fill up, and then the agent's writes block.

        With the link underneath not even pings are answered; without it the engine still reads ahead.
        """
        if self._read_again is None:
            self._read_again = trio.Event()
        if self._link is not None:
            self._link.hold()

    def read_again(self) -> None:
        """Go on reading."""
        if self._read_again is not None:
            self._read_again.set()
            self._read_again = None
        if self._link is not None:
            self._link.let_go()

    # What a test can wait for. Deadlines are the caller's (trio.fail_after).

    async def until_closed(self) -> int:
        """Wait until the stream has ended, for whatever reason; its close code (1006: no close frame)."""
        await self._closed.wait()
        return self.close_code or 1006

    async def until_said(self) -> None:
        """Wait until everything given to ``say`` was sent."""
        await self._all_said.wait()

    async def until_heard_ms(self, total_ms: int) -> None:
        """Wait until the caller has heard ``total_ms`` of the agent since the stream began, or it closed."""
        await trio.lowlevel.checkpoint()
        while self.heard_ms() < total_ms and not self._closed.is_set():  # noqa: ASYNC110  (playback is a clock)
            await trio.sleep(FRAME_S)

    async def until_quiet(self, quiet_s: float) -> None:
        """Wait until the caller has heard nothing for ``quiet_s``, or the stream closed."""
        await trio.lowlevel.checkpoint()
        quiet_since_s = trio.current_time()
        while not self._closed.is_set():
            now = trio.current_time()
            if self.playback.audible(now):
                quiet_since_s = now
            elif now - max(quiet_since_s, self.playback.ends_s()) >= quiet_s:
                return
            await trio.sleep(FRAME_S)

    def heard_ms(self) -> int:
        """How much of the agent the caller has heard by now."""
        self.playback.audible(trio.current_time())
        return self.playback.played_bytes // BYTES_PER_MS

    @property
    def said(self) -> Tape:
        """What the caller said, and when; stays empty without ``record``."""
        return self.voice.tape

    @property
    def is_closed(self) -> bool:
        """Whether the stream has ended."""
        return self._closed.is_set()

    # Towards the agent. One task writes; what is said, pressed and returned queues up for it.

    def _tick(self, due_s: float) -> None:
        payload = SILENCE_PAYLOAD
        if self.voice:
            payload = self.voice.next_payload(due_s)
            if not self.voice:
                self._all_said.set()
        elif not self.network.silence:
            self._ticker.leave(self._tick)
            return
        if self._to_lose or self._to_agent.loses():
            self._to_lose = max(0, self._to_lose - 1)
            self._writer.lose_media()
            self.counts["rx lost"] += 1
            return
        self._post(self._writer.media(payload, round((due_s - self.started_s) * 1000)), "media", payload=payload)

    def _post(self, message: str, kind: str, detail: str = "", *, payload: str = "") -> None:
        now = trio.current_time()
        self.counts[f"rx {kind}"] += 1
        if self.record:
            self.wire.append(WireEntry(now, "rx", kind, detail, a2b_base64(payload)))
        self._outbox.append((self._to_agent.arrival_s(now), message))
        self._wakeup.ring()

    def _end_of_media(self) -> None:
        self._stopped = True
        self._ticker.leave(self._tick)
        self.voice.hush()
        self._all_said.set()

    async def _run_writer(self) -> None:
        """Write what is due, give the playback what has arrived, return the marks it is through with."""
        try:
            while not self._closed.is_set():
                now = trio.current_time()
                while self._inbox and self._inbox[0][0] <= now:
                    self._take(*self._inbox.popleft())
                for mark in self.playback.advance(now):
                    self._post(self._writer.mark(mark.name), "mark", mark.name)
                if self._outbox and self._outbox[0][0] <= now:
                    await self._socket.send(self._outbox.popleft()[1])
                    continue
                if self._stopped and not self._outbox:
                    self._all_sent.set()
                arrivals = (queue[0][0] for queue in (self._inbox, self._outbox) if queue)
                await self._wakeup.wait(min(self.playback.next_due(), *arrivals, inf))
        except SocketClosedError as closed:
            self.end(closed.code)

    # From the agent.

    async def _run_reader(self) -> None:
        direct = not self.network.latest_s
        try:
            while True:
                if self._read_again is not None:
                    await self._read_again.wait()
                raw = await self._socket.receive()
                now = trio.current_time()
                if direct:
                    self._take(now, raw)
                else:
                    self._inbox.append((self._to_carrier.arrival_s(now), raw))
                    self._wakeup.ring()
        except SocketClosedError as closed:
            self.end(closed.code)

    def _take(self, now: float, raw: str | bytes) -> None:
        try:
            message = agent_message_decoder.decode(raw)
            audio = a2b_base64(message.media.payload, strict_mode=True) if message.media else b""
        except (msgspec.DecodeError, Base64Error, ValueError) as error:
            self._complain(now, str(error))
            return
        if message.stream_sid != self.stream_sid:
            self._complain(now, f"{message.event} for stream {message.stream_sid!r}")
        elif message.event == "media" and message.media is not None:
            self._note(now, "media", audio=audio)
            self.playback.media(audio, now)
            self.arrivals.observe(now, len(audio), self.playback.runs)
        elif message.event == "mark" and message.mark is not None:
            self._note(now, "mark", message.mark.name)
            self.playback.mark(message.mark.name, now)
            self._wakeup.ring()
        elif message.event == "clear":
            self._note(now, "clear")
            self.playback.clear(now)
            self._wakeup.ring()
        else:
            self._complain(now, f"a message with event {message.event!r} that makes no sense")

    def _complain(self, now: float, problem: str) -> None:
        self.protocol_errors.append(problem)
        self._note(now, "malformed", problem)

    def _note(self, now: float, kind: str, detail: str = "", audio: bytes = b"") -> None:
        self.counts[f"tx {kind}"] += 1
        if self.record:
            self.wire.append(WireEntry(now, "tx", kind, detail, audio))

    def end(self, code: int) -> None:
        """The socket is gone: nothing is sent any more, and whoever waits is told; the first ``code`` stays."""
        if self.close_code is None:
            self.close_code = code
        self._end_of_media()
        self._all_sent.set()
        self._closed.set()
        self._wakeup.ring()


@asynccontextmanager
async def open_simulated_stream(
    socket: CarrierSocket,
    *,
    call_sid: str,
    stream_sid: str,
    custom_parameters: Mapping[str, str] | None = None,
    account_sid: str = "AC" + "0" * 32,
    network: Network | None = None,
    playback: PlaybackBuffer | None = None,
    ticker: Ticker | None = None,
    link: HeldStream | None = None,
    record: bool = True,
) -> AsyncIterator[SimulatedStream]:
    """Be the carrier of one call on ``socket``; sends ``connected`` and ``start`` and keeps the stream going.

    ``ticker`` is shared by many streams and run by whoever owns it; without one the stream runs its own.
    ``link`` is our end of the connection underneath, for ``stop_reading``.
    Without ``record`` neither messages nor audio are kept, only counts, arrivals and underruns. Leaving hangs
    up; leaving by an error or a cancel closes the socket.
    """
    network = network or Network()
    now = trio.current_time()
    own_ticker = Ticker()
    stream = SimulatedStream(
        call_sid=CallSid(call_sid),
        stream_sid=StreamSid(stream_sid),
        custom_parameters=dict(custom_parameters or {}),
        network=network,
        playback=playback if playback is not None else PlaybackBuffer(record=record),
        record=record,
        voice=CallerVoice(record),
        started_s=now,
        socket=socket,
        link=link,
        writer=MessageWriter(StreamSid(stream_sid), CallSid(call_sid), account_sid),
        ticker=ticker or own_ticker,
        to_agent=OneWay(network),
        to_carrier=OneWay(network),
    )
    async with open_task_nursery() as task_nursery:
        stream.run_in(task_nursery)
        if ticker is None:
            task_nursery.start_soon(own_ticker.run)
        try:
            yield stream
            await stream.hang_up()
        finally:
            await socket.aclose()
            stream.end(1000)

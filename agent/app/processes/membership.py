"""What a process has of the other processes of its server: nothing when it is alone."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import attrs
import trio
from prometheus_client import generate_latest
from typing_extensions import override

from agent.app.addresses import listen, listen_for_operators, say_where, url_of
from agent.app.processes.board import LEAVING, TAKING, Board, Row
from agent.app.processes.link import GONE, Link, close_all
from agent.app.processes.messages import AllFigures, AskAll, Birth, Figures, PassOn, Ready, Report, Retire
from agent.app.processes.routing import whose
from agent.carrier.front_door import BROWSER_PATH, STREAM_PATH
from agent.core.admission import Admission
from agent.core.event_log import EventLog
from agent.core.settings import Settings
from agent.core.telemetry import Telemetry
from agent.web.handover import Neighbours, NoNeighbours

ServeConnection = Callable[[trio.SocketStream, bytes], Awaitable[None]]
FIGURES_S: Final = 5.0
"""How long the figures of all processes may take."""


class Membership(Protocol):
    """A process's place in its server. Attributes first, in the order in which a server asks for them."""

    telemetry: Telemetry
    fields: dict[str, Any]
    """What its events say of it."""
    signals: tuple[signal.Signals, ...]
    """Those that ask it to stop."""
    server_id: UUID
    secret: bytes
    """Of tokens that every process of the server takes."""
    model_url: str
    """Of an embedded model that is somebody else's; empty: its own, if it needs one."""
    neighbours: Neighbours
    stream_path: str
    browser_path: str
    """Where streams of its calls, and browsers that come again, are to connect."""
    retired: trio.Event
    """Set when others take the calls now."""

    async def listen(self, settings: Settings) -> list[trio.SocketListener]:
        """The listeners for calls; whoever asked closes them. Raises OSError."""

    async def listen_for_operators(self, settings: Settings, events: EventLog) -> list[trio.SocketListener]:
        """The listeners for operators, if there are any."""

    def others(self) -> tuple[int, int]:
        """Lines taken in the other processes, and calls that were told to come there."""

    def tell(self, admission: Admission) -> None:
        """Tell them of ours."""

    async def is_ready(self) -> None:
        """Calls are taken from now on."""

    def leaves(self) -> None:
        """None are taken any more."""

    async def figures(self) -> bytes:
        """The metrics of the whole server. Raises trio.TooSlowError."""

    async def run(self, serve_connection: ServeConnection) -> None:
        """Do what the others ask for, until cancelled; connections are served until they end."""


def _stop_signals() -> tuple[signal.Signals, ...]:
    """SIGHUP, too: nobody is there to take the calls over. Not if whoever started us has it ignored (nohup)."""
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hang_up)


@attrs.define(eq=False)
class Alone(Membership):
    """The only process."""

    telemetry: Telemetry = attrs.field(factory=Telemetry)
    fields: dict[str, Any] = attrs.field(factory=dict)
    signals: tuple[signal.Signals, ...] = attrs.field(factory=_stop_signals)
    server_id: UUID = attrs.field(factory=uuid4)
    secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)
    model_url: str = ""
    neighbours: Neighbours = attrs.field(factory=NoNeighbours)
    stream_path: str = STREAM_PATH
    browser_path: str = BROWSER_PATH
    retired: trio.Event = attrs.field(factory=trio.Event)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @override
    async def listen(self, settings: Settings) -> list[trio.SocketListener]:
        listeners = await listen(settings)
        say_where(settings, url_of(listeners[0]))
        return listeners

    @override
    async def listen_for_operators(self, settings: Settings, events: EventLog) -> list[trio.SocketListener]:
        return await listen_for_operators(settings, events)

    @override
    def others(self) -> tuple[int, int]:
        return 0, 0

    @override
    def tell(self, admission: Admission) -> None:
        return

    @override
    async def is_ready(self) -> None:
        await trio.lowlevel.checkpoint()

    @override
    def leaves(self) -> None:
        return

    @override
    async def figures(self) -> bytes:
        return await trio.to_thread.run_sync(generate_latest, self.telemetry.registry, limiter=self._threads)

    @override
    async def run(self, serve_connection: ServeConnection) -> None:
        await trio.sleep_forever()


@attrs.define(eq=False)
class Member(Membership, Neighbours):
    """One of several, a child of the process at the other end of ``link``."""

    birth: Birth
    link: Link
    board: Board
    listeners: list[trio.SocketListener]
    operators: list[trio.SocketListener]
    telemetry: Telemetry = attrs.field(factory=Telemetry)
    fields: dict[str, Any] = attrs.field(init=False)
    signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)
    server_id: UUID = attrs.field(init=False)
    secret: bytes = attrs.field(init=False, repr=False)
    model_url: str = attrs.field(init=False)
    neighbours: Neighbours = attrs.field(init=False)
    stream_path: str = attrs.field(init=False)
    browser_path: str = attrs.field(init=False)
    retired: trio.Event = attrs.field(factory=trio.Event)
    _row: Row = attrs.field(init=False)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _asking: trio.Lock = attrs.field(factory=trio.Lock)
    _answer: trio.Event = attrs.field(factory=trio.Event)
    _all: str = ""

    def __attrs_post_init__(self) -> None:
        birth = self.birth
        self.fields = {"process": birth.number}
        self.server_id, self.secret, self.model_url = birth.server_id, birth.secret, birth.model_url
        self.neighbours = self
        self.stream_path, self.browser_path = f"{STREAM_PATH}/{birth.number}", f"{BROWSER_PATH}/{birth.number}"
        self._row = Row(birth.number)

    @override
    async def listen(self, settings: Settings) -> list[trio.SocketListener]:
        await trio.lowlevel.checkpoint()
        return self.listeners

    @override
    async def listen_for_operators(self, settings: Settings, events: EventLog) -> list[trio.SocketListener]:
        await trio.lowlevel.checkpoint()
        return self.operators

    @override
    def others(self) -> tuple[int, int]:
        others = [row for row in self.board.rows() if row.number != self.birth.number]
        return sum(row.lines for row in others), sum(row.promised for row in others)

    @override
    def tell(self, admission: Admission) -> None:
        self._write(lines=admission.lines, promised=admission.promised(), is_busy=int(admission.is_overloaded))

    @override
    async def is_ready(self) -> None:
        self._write(state=TAKING)
        with suppress(*GONE):  # run has noticed
            await self.link.send(Ready())

    @override
    def leaves(self) -> None:
        self._write(state=LEAVING)

    @override
    async def figures(self) -> bytes:
        async with self._asking:
            self._answer = trio.Event()
            with trio.fail_after(FIGURES_S):
                await self.link.send(AskAll())
                await self._answer.wait()
            return self._all.encode()

    @override
    def whose(self, path: str) -> int:
        return whose(self.board.rows(), self.birth.number, path)

    @override
    async def pass_on(self, to: int, stream: trio.SocketStream, unread: bytes) -> bool:
        try:
            await self.link.send(PassOn(to, unread), [stream.socket.fileno()])
        except GONE:
            return False
        self.telemetry.events.labels(event="CONNECTION_PASSED_ON").inc()
        return True

    @override
    async def run(self, serve_connection: ServeConnection) -> None:
        """See Membership. When the parent is gone it is as if it had asked us to stop."""
        async with trio.open_nursery() as nursery:
            while (received := await self.link.receive()) is not None:
                message, descriptors = received
                match message:
                    case Retire():
                        self.retired.set()
                    case PassOn(unread=unread):
                        nursery.start_soon(serve_connection, _stream_of(descriptors.pop()), unread)
                    case Report():
                        nursery.start_soon(self.report)
                    case AllFigures(text=text):
                        self._all = text
                        self._answer.set()
                close_all(descriptors)
            signal.raise_signal(signal.SIGTERM)

    async def report(self) -> None:
        """Send our own figures to the parent, if it is there."""
        registry = self.telemetry.registry
        text = await trio.to_thread.run_sync(generate_latest, registry, limiter=self._threads)
        with suppress(*GONE):
            await self.link.send(Figures(text.decode()))

    def _write(self, **changes: int) -> None:
        row = attrs.evolve(self._row, **changes)
        if row != self._row:
            self._row = row
            self.board.write(self.birth.place, row)


def _stream_of(descriptor: int) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))

"""One port for all: each request of a connection is looked at, media streams go to the WebSocket engine.

HTTP/1.1 and nothing else (DO-1). A connection is in the lobby (``agent/web/lobby.py``) as long as it has proven
nothing; a media stream leaves it with its token. No exception leaves a connection: one that fails, fails alone.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from itertools import cycle
from typing import Any, Final

import attrs
import trio

from agent.carrier import twiml
from agent.carrier.noise import Noise
from agent.core.errors import AgentError, first_error
from agent.core.event_log import EventLog
from agent.web.asgi import AsgiApp, Origin
from agent.web.connection import Bounds, HttpConnection, Turns
from agent.web.handover import Handover
from agent.web.head import RefusedError, RequestHead
from agent.web.listener import GuardedListener
from agent.web.lobby import Lobby, Place
from agent.web.peer import TrustedProxies, lobby_key, without_forwarded
from agent.wire.connection import drop
from agent.wire.upgrade import Upgrade
from agent.wire.websocket import Handshake, open_server_handshake

PER_ADDRESS: Final = 16
LOBBY: Final = 1024
"""Connections in all that are no media streams."""
PROXY_IDLE_S: Final = 75.0
"""How long a proxy's connection may be idle: longer than nginx keeps one (60 s), so that it closes first."""
STRETCHES: Final = tuple(1 + n / 400 for n in (*range(0, 100, 2), *range(1, 100, 2)))
"""From 1 to 1.25."""
STREAM_PATH: Final = "/media-stream"
BROWSER_PATH: Final = "/browser-stream"
NO_WEBSOCKET: Final = f"the only WebSocket here is {STREAM_PATH}"
_NUMBERED: Final = re.compile(r"(.*?)(?:/\d{1,9})?/?", re.DOTALL)
"""A path behind which the number of a process may stand."""
CROWDED: Final = "too many requests from this address at once; try again in a moment"

ServeStream = Callable[[Handshake, RequestHead, Origin], Awaitable[None]]


@attrs.define(eq=False)
class FrontDoor:
    """Serves connections; give ``serve_connection`` to ``trio.serve_listeners``, which also sees to TCP_NODELAY.

    ``serve_stream`` gets the handshakes of media streams, accepts or rejects them and serves the call, and calls
    ``origin.vouch`` once it is one; ``app`` answers all other requests. What they raise is logged and counted.
    """

    app: AsgiApp
    events: EventLog
    serve_stream: ServeStream | None = None
    proxies: TrustedProxies = attrs.field(factory=TrustedProxies)
    prefix: str = ""
    """What a proxy may keep in front of our paths: the path of the public URL."""
    serve_browser: ServeStream | None = None
    """As ``serve_stream``, for browsers' calls; None: there are none."""
    looks_signed: Callable[[RequestHead], bool] = lambda _: False
    """Whether a request may prove to be the carrier's, and so is served in any crowd."""
    handover: Handover = attrs.field(factory=Handover)
    """To processes that a request may be meant for, other than this one."""
    bounds: Bounds = attrs.field(factory=Bounds)
    lobby: Lobby = attrs.field(factory=lambda: Lobby(PER_ADDRESS, LOBBY))
    turns: Turns = attrs.field(factory=Turns)
    noise: Noise = attrs.field(init=False)
    _vouched: trio.lowlevel.ParkingLot = attrs.field(init=False, factory=trio.lowlevel.ParkingLot, repr=False)
    """Requests that wait at their pace."""
    _stretches: Iterator[float] = attrs.field(init=False, factory=lambda: cycle(STRETCHES), repr=False)

    def __attrs_post_init__(self) -> None:
        self.noise = Noise(self.events)

    @property
    def is_crowded(self) -> bool:
        """Whether strangers wait for their turn."""
        turns = self.turns
        return bool(turns.reads.statistics().tasks_waiting or turns.runs.statistics().tasks_waiting)

    def guard(self, listener: trio.abc.Listener[trio.SocketStream]) -> GuardedListener:
        """``listener``, without the connections that need not be looked at."""
        return GuardedListener(listener, self._refuses)

    def _refuses(self, stream: trio.SocketStream) -> bool:
        peer, _ = _addresses(stream)
        if self.proxies.trust(peer) or not self.lobby.refuses(lobby_key(peer), trio.current_time()):
            return False
        self.noise.tell("CONNECTION_REFUSED", "warning", address=peer, reason="the lobby is full")
        return True

    async def serve_connection(self, stream: trio.abc.Stream, unread: bytes = b"") -> None:
        """Serve one connection to its end and close it. Raises nothing but Cancelled.

        ``unread`` was read already, by the process that passed it on.
        """
        try:
            with trio.CancelScope() as visit:
                await self._enter(
                    stream, unread, partial(visit.cancel, reason="the place in the lobby is needed")
                )
        except* (
            OSError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
            trio.TooSlowError,
            AgentError,
        ) as lost:
            self.noise.tell("CONNECTION_LOST", "debug", error=repr(first_error(lost)))
        # The boundary of one connection: an error that leaves it would end every call of the process.
        except* Exception as group:  # noqa: BLE001
            self.noise.exception("CONNECTION_ERROR", first_error(group))
        finally:
            await drop(stream)  # noqa: ASYNC102 - it does not wait

    async def _enter(self, stream: trio.abc.Stream, unread: bytes, leave: Callable[[], None]) -> None:
        peer, own = _addresses(stream)
        is_proxy = self.proxies.trust(peer)
        bounds = attrs.evolve(self.bounds, idle_s=PROXY_IDLE_S) if is_proxy else self.bounds
        now_s = trio.current_time()
        if is_proxy:
            self.lobby.vouch(lobby_key(peer), now_s)
        is_known = self.lobby.is_vouched(lobby_key(peer), now_s)
        reads = self.turns.known_reads if is_known else self.turns.reads
        connection = HttpConnection(stream, bounds, reads, stretch=next(self._stretches))
        connection.reader.feed(unread)
        place, given_up = self.lobby.enter(lobby_key(peer), leave, now_s)
        if given_up is not None:
            self.noise.tell("CONNECTION_GIVEN_UP", address=given_up.key)
            given_up.leave()
        if place is None:
            self.noise.tell("CONNECTION_REFUSED", "warning", address=peer, reason="the lobby is full")
            return
        visit = _Visit(self, connection, place, peer, own)
        try:
            await visit.run()
        except RefusedError as refused:
            self.noise.tell("BAD_REQUEST", "debug", address=peer, status=refused.status, reason=refused.reason)
            place.waits(trio.current_time())
            await connection.refuse(refused.status, f"{refused.reason}\n")
        finally:
            self.lobby.left(place)

    def vouch(self, key: str) -> None:
        """A signed request came from ``key``: what waits from there need not wait any more."""
        is_new = not self.lobby.is_vouched(key, trio.current_time())
        self.lobby.vouch(key, trio.current_time())
        if is_new:
            self._vouched.unpark_all()

    async def wait_turn(self, key: str) -> None:
        """Let requests of ``key`` go on at their pace, or at once when ``key`` is vouched for."""
        with trio.move_on_after(self.lobby.wait_s(key, trio.current_time())):
            while not self.lobby.is_vouched(key, trio.current_time()):
                await self._vouched.park()

    def asks_for_stream(self, head: RequestHead) -> ServeStream | None:
        """Who serves the stream that a carrier or a browser wants to open; None: it wants none.

        Raises RefusedError when it asks in a wrong way.
        """
        if self.serve_stream is None or not head.wants_websocket:
            return None
        by_path = {STREAM_PATH: self.serve_stream, BROWSER_PATH: self.serve_browser}
        path = _NUMBERED.fullmatch(self.inner_path(head))
        serve = by_path.get(path[1]) if path else None
        if serve is None:
            raise RefusedError(404, NO_WEBSOCKET)
        head.check_websocket()
        return serve

    def inner_path(self, head: RequestHead) -> str:
        """The path without the prefix that a proxy may have kept."""
        kept = self.prefix and head.path.startswith(f"{self.prefix}/")
        return head.path.removeprefix(self.prefix) if kept else head.path


@attrs.frozen(eq=False)
class _Visit:
    """The requests of one connection, one after the other."""

    door: FrontDoor
    connection: HttpConnection
    place: Place
    peer: str
    own: str

    async def run(self) -> None:
        """Serve until the client leaves, or nothing more may follow. Raises RefusedError."""
        door, connection = self.door, self.connection
        is_proxy = door.proxies.trust(self.peer)
        is_passed = bool(connection.reader.unread)
        while (head := await door.handover.next_head(connection)) is not None:
            if not is_proxy:
                head = attrs.evolve(head, headers=without_forwarded(head.headers))
            key = lobby_key(door.proxies.client_of(self.peer, head.headers))
            looks_signed = door.looks_signed(head)
            if not (looks_signed or door.lobby.may_serve(key, trio.current_time())):
                await self._turn_away(head)
                return
            with self._being_served(key) as places:
                await door.wait_turn(key)
                if not is_passed and await door.handover.pass_on(connection, door.inner_path(head), head):
                    return
                is_passed = False
                turns = door.turns.signed if looks_signed else door.turns.runs
                if (serve_stream := door.asks_for_stream(head)) is not None:
                    await Turns.take(turns)
                    await self._serve_stream(serve_stream, head, places)
                    return
                origin = self._origin(head, partial(door.vouch, key))
                may_go_on = await connection.serve(
                    head, door.app, origin, turns, is_whole=partial(_served, places), failed=self._failed
                )
            if not may_go_on:
                await connection.finish()
                return

    async def _serve_stream(self, serve_stream: ServeStream, head: RequestHead, places: list[Place]) -> None:
        def vouch() -> None:
            for place in places:
                self.door.lobby.left(place)
                self.door.vouch(place.key)

        _served(places)
        upgrade = Upgrade(self.connection.stream, head.raw, bytes(self.connection.reader.unread))
        async with open_server_handshake(upgrade) as handshake:
            await serve_stream(handshake, head, self._origin(head, vouch))

    def _failed(self, error: Exception) -> None:
        self.door.noise.exception("CONNECTION_ERROR", error)

    def _origin(self, head: RequestHead, vouch: Callable[[], None]) -> Origin:
        proxies = self.door.proxies
        client = proxies.client_of(self.peer, head.headers)
        return Origin(client, proxies.base_of(self.peer, self.own, head.headers), vouch)

    @contextmanager
    def _being_served(self, key: str) -> Iterator[list[Place]]:
        """The places of a request: its connection's, and beside a proxy's that of its client."""
        lobby, places, now_s = self.door.lobby, [self.place], trio.current_time()
        self.place.begins(now_s)
        if key != self.place.key:
            self.place.serves()  # the client's place may have to be left, and with it the connection
            clients, given_up = lobby.enter(key, self.place.leave, now_s)
            if clients is not None:
                clients.begins(now_s)
                places.append(clients)
            if given_up is not None:
                given_up.leave()
        try:
            yield places
        finally:
            self.place.waits(trio.current_time())
            for place in places[1:]:
                lobby.left(place)

    async def _turn_away(self, head: RequestHead) -> None:
        """Refuse so that a caller is told: what Twilio gets as an error it reads to the caller as one."""
        self.door.noise.tell("CONNECTION_REFUSED", "warning", address=self.peer, reason="too many at once")
        path = self.door.inner_path(head)
        if head.method == "POST" and path == "/voice/incoming":
            await self.connection.refuse(HTTPStatus.OK, twiml.reject_as_busy(), "application/xml")
        elif head.method == "POST" and path == "/voice/outgoing":
            await self.connection.refuse(HTTPStatus.OK, twiml.refuse_politely(), "application/xml")
        else:
            await self.connection.refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{CROWDED}\n")


def _served(places: list[Place]) -> None:
    for place in places:
        place.serves()


def _addresses(stream: Any) -> tuple[str, str]:
    """The peer's address, empty over memory streams, and the URL of our own. Raises OSError when it is gone."""
    if not isinstance(stream, trio.SocketStream):
        return "", "http://localhost"
    host, port = stream.socket.getsockname()[:2]
    own = f"[{host}]" if ":" in host else host
    return str(stream.socket.getpeername()[0]), f"http://{own}:{port}"

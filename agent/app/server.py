"""The server: everything a process shares between its calls, started in order and stopped in reverse.

Nested from the outside: logging, the carrier's REST, the database, post-call work, the model and the metronome,
and inside them the connections with their calls.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from agent.app.addresses import url_of
from agent.app.browser_answer import BrowserCalls
from agent.app.call_answer import answer
from agent.app.descriptors import places_for, reserving
from agent.app.garbage import GarbageCollector
from agent.app.loop_probe import LoopProbe
from agent.app.processes.membership import Alone, Membership
from agent.app.shutdown import StopSignals, drain, open_guests
from agent.audio.metronome import Metronome
from agent.browser.admission import BrowserAdmission
from agent.browser.messages import PCM16, WEBM_OPUS
from agent.browser.routes import browser_routes
from agent.browser.webm_decoder import is_installed, open_decoding
from agent.call.prompts import warm_up
from agent.call.services import CallServices
from agent.call.tools.builtin import DeskTools
from agent.call.tools.declare import END_CALL, TRANSFER_CALL, Tool
from agent.call.tools.desk import StoreDesk
from agent.call.tools.loading import load_tools
from agent.carrier.front_door import FrontDoor
from agent.carrier.http_app import make_admin_app, make_app
from agent.carrier.replays import Replays
from agent.carrier.rest import CarrierRest, open_twilio_rest
from agent.carrier.signature import SignatureCheck, path_prefix
from agent.carrier.stream_admission import StreamAdmission
from agent.carrier.stream_token import StreamTokens, stream_secret
from agent.carrier.webhooks import VoiceWebhooks
from agent.core.admission import Admission
from agent.core.audio_format import PCM16_24K
from agent.core.event_log import EventLog, open_logging
from agent.core.records import RecordingCallback
from agent.core.settings import Settings
from agent.model.endpoint import ModelSide
from agent.postcall import Ledger, PostCallChannel, RecordMover, run_postcall
from agent.store import Database, open_database
from agent.store.call_writer import CallWriter, write_entry
from agent.store.record_keeper import RecordKeeper, place_of_last_resort
from agent.store.spool import Spool
from agent.store.sql.recordings import note_callback
from agent.store.sql.replays import first_answer
from agent.store.tenant_directory import TenantDirectory, default_tenant
from agent.web.handover import Handover
from agent.web.peer import TrustedProxies, parse_networks
from agent.wire.poller import open_poller

if TYPE_CHECKING:
    from agent.pipeline.worker import Worker

POOL_MORE: Final = 4
"""Connections besides those of the worker: the keeper, tools, tenants, recordings."""
ACCEPTED: Final = 4
"""Connections accepted in a pass of the scheduler: with one, webhooks waited seconds behind a thousand others."""
LEAVING_S: Final = 0.1
"""How often a process whose calls others take looks whether requests are being served."""
REPLAYED_S: Final = 3600.0
"""How long after the longest call a repeated request is still known."""
POSTCALL_S: Final = 5.0
"""How long post-call work may go on after the last call; what is left is durable."""


async def serve(  # noqa: ASYNC128 - it is called in _keep_model
    settings: Settings,
    membership: Membership | None = None,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve calls until SIGTERM or SIGINT; started, with our own URL, when calls can be taken.

    ``membership`` is this process's in a server of several. Runs in the main thread (signals). Raises OSError
    when the port is taken, LocalModelMissingError; both in exception groups. A cancel ends all calls at once.
    """
    membership = membership or Alone()
    telemetry = membership.telemetry
    async with open_guests() as guests:
        with (
            open_logging(settings.log_level, settings.log_format, telemetry, show_numbers=settings.log_numbers),
            open_twilio_rest(settings) as rest,
            trio.open_signal_receiver(*membership.signals) as signals,
        ):
            events = EventLog(telemetry, membership.fields)
            connections = settings.worker_calls + POOL_MORE
            async with (
                open_database(settings, events, must_be_there=False, max_size=connections) as database,
                _open_worker(settings, database, events) as worker,
            ):
                tools = DeskTools(StoreDesk(database), settings.bounds).tools()
                tools += load_tools(settings.tools, (END_CALL, TRANSFER_CALL, *tools))
                server = _Server(settings, membership, events, rest, database, tools, worker, guests)
                await server.run(signals, task_status.started)


@asynccontextmanager
async def _open_worker(settings: Settings, database: Database, events: EventLog) -> AsyncIterator[Worker | None]:
    """A worker with its backends, if the settings want one; only then what they need is imported."""
    if not settings.worker:
        yield None
        return
    # Here, because a server without one does without the memory they need.
    from agent.pipeline.backends import open_backends  # noqa: PLC0415
    from agent.pipeline.worker import Worker  # noqa: PLC0415

    async with open_backends(settings) as backends:
        yield Worker(database, backends, events, settings.worker_calls)


@attrs.define(eq=False)
class _Server:
    settings: Settings
    membership: Membership
    events: EventLog
    rest: CarrierRest | None
    database: Database
    tools: tuple[Tool, ...]
    worker: Worker | None
    """None: workers of their own do the work."""
    guests: trio.Nursery
    records: RecordKeeper = attrs.field(init=False)
    mover: RecordMover = attrs.field(init=False)
    keeper: CallWriter = attrs.field(init=False)
    tenants: TenantDirectory = attrs.field(init=False)
    channel: PostCallChannel = attrs.field(init=False, factory=PostCallChannel.open)
    metronome: Metronome = attrs.field(init=False, factory=Metronome)
    model: ModelSide = attrs.field(init=False)
    services: CallServices = attrs.field(init=False)
    admission: StreamAdmission = attrs.field(init=False)
    browsers: BrowserCalls | None = attrs.field(init=False, default=None)
    door: FrontDoor = attrs.field(init=False)
    admin: FrontDoor = attrs.field(init=False)
    replay_life_s: float = attrs.field(init=False)
    stop: StopSignals = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        settings, events, membership = self.settings, self.events, self.membership
        self.stop = StopSignals(events)
        spool = Spool(settings.data_dir)
        self.keeper = CallWriter(
            partial(write_entry, self.database), events, spool.save_answered, membership.server_id
        )
        ledger = Ledger(self.database, self.keeper.server_id)
        self.mover = RecordMover(spool, ledger.keep, events)
        last_resort = place_of_last_resort(settings.data_dir, settings.last_resort_dir)
        self.records = RecordKeeper(spool, last_resort, ledger.keep, events, self.mover.look)
        self.tenants = TenantDirectory(default_tenant(settings), settings.unknown_number)
        self.model = ModelSide(settings, events, membership.model_url)
        self.services = CallServices(
            settings=settings,
            events=events,
            metronome=self.metronome,
            rest=self.rest,
            connect_model=self.model.connect,
            records=self.records,
            hand_over=self.channel.calls_end,
            guests=self.guests,
            tools=self.tools,
            keeper=self.keeper,
            tenants=self.tenants,
            admission=Admission(
                settings.max_calls,
                self.not_ready,
                lambda: tokens.promised(time.time()),
                membership.others,
                membership.tell,
                crowded=lambda: self.door.is_crowded,
            ),
        )
        token = settings.twilio_auth_token.get_secret_value() if settings.twilio_auth_token else None
        key = settings.twilio_webhook_key.get_secret_value() if settings.twilio_webhook_key else None
        check = SignatureCheck(token, settings.public_url, settings.allow_unsigned, key)
        tokens = StreamTokens(stream_secret(token) if token else membership.secret)
        self.replay_life_s = settings.max_call_s + REPLAYED_S
        replays = Replays(events, self.replay_life_s, self._first_answer)
        self.admission = StreamAdmission(
            check,
            tokens,
            events,
            self.services.admission,
            lambda socket, admit: answer(socket, self.services, admit),
            replays,
        )
        webhooks = VoiceWebhooks(
            check,
            tokens,
            events,
            self.services.admission,
            replays,
            self._recording_told,
            self.tenants,
            membership.stream_path,
        )
        admin_token = settings.admin_token.get_secret_value() if settings.admin_token else None
        more, serve_browser = [], None
        if settings.browser:
            origins = frozenset(filter(None, settings.browser_origins.split(",")))
            browsers = BrowserAdmission(
                origins, self.tenants.origins_of, is_public=bool(settings.public_url), secret=membership.secret
            )
            decoding = open_decoding if is_installed() else None
            more.append(browser_routes(browsers, [PCM16, WEBM_OPUS] if decoding else [PCM16]))
            warm_up(PCM16_24K)
            self.browsers = BrowserCalls(
                self.services, browsers, decoding, membership.browser_path.removeprefix("/"), replays
            )
            serve_browser = self.browsers.serve_handshake
        app = make_app(webhooks, admin_token, *more, figures=membership.figures)
        self.door = FrontDoor(
            app,
            events,
            self.admission.serve,
            TrustedProxies(parse_networks(settings.trusted_proxies)),
            path_prefix(settings.public_url),
            serve_browser,
            lambda head: check.looks_signed(head.headers),
            Handover(membership.neighbours),
        )
        self.admin = FrontDoor(make_admin_app(webhooks, app, admin_token, membership.figures), events)

    def _beat(self, share: float) -> None:
        """Say when new calls begin and cease to be refused for want of time on the processor."""
        admission = self.services.admission
        before = admission.is_overloaded
        admission.beat(share)
        if admission.is_overloaded is not before:
            event = "LOAD_NORMAL" if before else "OVERLOADED"
            self.events.emit(event, "warning", share=round(share, 2), lines=admission.lines)

    def not_ready(self) -> str:
        """Why no call can be taken now; empty when one can."""
        return "the server is stopping" if self.stop.stop.is_set() else self.model.not_ready

    async def run(self, signals: AsyncIterator[int], started: Callable[[str], None]) -> None:
        postcall = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_postcall, postcall)
            try:
                with self.channel.calls_end:
                    async with open_poller(), trio.open_nursery() as services:
                        services.start_soon(self.metronome.run)
                        services.start_soon(self.tenants.run, self.database, self.events)
                        services.start_soon(self.keeper.run)
                        services.start_soon(LoopProbe(self.events, self._beat).run)
                        services.start_soon(self.stop.watch, signals, nursery.cancel_scope)
                        await self._serve_connections(services, started)
                        services.cancel_scope.cancel(reason="the server stops")
            finally:
                postcall.deadline = trio.current_time() + POSTCALL_S

    async def _run_postcall(self, scope: trio.CancelScope) -> None:
        """Shielded: also calls that end by a cancel of everything are handed over."""
        with scope:
            async with trio.open_nursery() as nursery, trio.open_nursery() as trying:
                if self.worker is not None:
                    nursery.start_soon(self.worker.run)
                trying.start_soon(self.records.run)
                await run_postcall(self.channel.service_end, self.mover)
                trying.cancel_scope.cancel(reason="no call ends any more")
                if self.worker is not None:
                    self.worker.stop()
                if not self.database.ready.is_set():
                    nursery.cancel_scope.cancel(reason="there is no database to work on")
        with trio.CancelScope(shield=True):  # bounded by FINISH_S
            await self.records.finish()

    async def _recording_told(self, told: RecordingCallback) -> None:
        async with self.database.connection() as connection:
            await note_callback(connection, told)

    async def _first_answer(self, key: bytes, answer: str) -> str:
        async with self.database.connection() as connection:
            return await first_answer(connection, key, answer, self.replay_life_s)

    async def _serve_connections(self, services: trio.Nursery, started: Callable[[str], None]) -> None:
        """Listen before the model is ready, so that /readyz can say so; return when the last call has ended."""
        settings, membership = self.settings, self.membership
        listening = await membership.listen(settings)
        listeners = reserving(listening, self.events, settings.max_calls)
        self.door.lobby.most = places_for(listeners[0].limit, settings.max_calls)
        more = [listener.again() for listener in listeners for _ in range(ACCEPTED - 1)]
        guarded = [self.door.guard(listener) for listener in (*listeners, *more)]
        operators = await membership.listen_for_operators(settings, self.events)
        async with trio.open_nursery() as connections:
            accepting = trio.CancelScope()
            doors = [(self.door, guarded), (self.admin, operators)]
            await connections.start(_accept, accepting, connections, doors)
            connections.start_soon(membership.run, self.door.serve_connection)
            services.start_soon(self._keep_model, url_of(listening[0]), started)
            await self._until_stopped(accepting)
            membership.leaves()
            await drain(
                self.services.active,
                self._until_empty,
                self.stop.hurry,
                drain_s=settings.drain_s,
                events=self.events,
            )
            connections.cancel_scope.cancel(reason="the server stops")

    async def _until_stopped(self, accepting: trio.CancelScope) -> None:
        """Wait for a signal, or until a process whose calls others take has none left."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._retire, accepting, nursery.cancel_scope)
            await self.stop.stop.wait()
            nursery.cancel_scope.cancel(reason="a signal")

    async def _retire(self, accepting: trio.CancelScope, waiting: trio.CancelScope) -> None:
        """When others take the calls: leave them what is no call of ours, and wait for those, without a bound."""
        await self.membership.retired.wait()
        self.events.emit("RETIRING", calls=len(self.services.active))
        self.membership.leaves()
        accepting.cancel(reason="others accept")
        self.door.handover.let_go()
        await self._until_empty()
        while len(self.door.lobby) or self.services.admission.lines:  # a request may become a call
            await trio.sleep(LEAVING_S)
            await self._until_empty()
        waiting.cancel(reason="the last call has ended")

    async def _until_empty(self) -> None:
        await self.admission.wait_empty()
        if self.browsers is not None:
            await self.browsers.wait_empty()

    async def _keep_model(self, url: str, started: Callable[[str], None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.model.run)
            await nursery.start(GarbageCollector(lambda: bool(self.services.active)).run)
            await self.membership.is_ready()
            self.events.emit("READY", url=url)
            started(url)


async def _accept(
    scope: trio.CancelScope,
    connections: trio.Nursery,
    doors: Iterable[tuple[FrontDoor, Sequence[trio.abc.Listener[trio.SocketStream]]]],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Accept at each door until ``scope`` is cancelled; what was accepted goes on in ``connections``."""
    serve_listeners = partial(trio.serve_listeners, handler_nursery=connections)
    with scope:
        async with trio.open_nursery() as accepting:
            for door, listeners in doors:
                if listeners:
                    await accepting.start(serve_listeners, door.serve_connection, list(listeners))
            task_status.started()

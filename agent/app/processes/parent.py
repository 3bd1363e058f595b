"""The parent: holds the port, the embedded database and the embedded model, and keeps the children with calls.

It takes no calls itself, so that nothing it does is in their way. SIGTERM and SIGINT are passed on to the
children; SIGHUP starts new ones, with the settings and the program as they are then, and has the old ones leave.
"""

from __future__ import annotations

import importlib
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final
from uuid import uuid4

import attrs
import psycopg
import trio

from agent.app.addresses import listen, listen_for_operators, say_where, url_of
from agent.app.processes.board import ROWS, Board, Row, open_board
from agent.app.processes.child import Child, open_child
from agent.app.processes.generation import Generation
from agent.app.processes.messages import Birth, Role
from agent.app.processes.switchboard import Switchboard
from agent.app.shutdown import ENDING_S, GUESTS_S
from agent.core.errors import AgentError, SettingsError
from agent.core.event_log import EventLog, open_logging
from agent.core.settings import Settings, load_settings
from agent.core.telemetry import Telemetry
from agent.store import AWAY, Database, open_database
from agent.store.sql.calls import end_crashed

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
"""Before a process that died is replaced, each pause twice as long as the one before."""
CALM_S: Final = 60.0
"""A process that lived for so long did not die of how it was started."""
LAST_S: Final = ENDING_S + GUESTS_S + 15.0
"""How long after AGENT_DRAIN_S a process that was asked to stop may still be there: then it is killed."""
WORKER_S: Final = 5.0
"""How long post-call work may go on after the last call; what is left is durable."""
LAST_WORD_S: Final = 1.0
"""How long what a child said before its end may take to be read."""
GONE_LOOK_S: Final = 0.05
_CALLS: Final[tuple[Role]] = ("calls",)
_WORKER: Final[tuple[Role]] = ("worker",)
RECORD_S: Final = 5.0
RECORD_PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""How often it is tried to record the calls of a process that died; later, a worker's round finds them."""


async def supervise(
    settings: Settings, given: Mapping[str, Any], *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve with several children until SIGTERM or SIGINT; started, with our URL, when all of them take calls.

    ``given`` beats the environment in the children's settings, as it did in ``settings``. Runs in the main thread
    (signals). Raises what ``serve`` does, and AgentError when the first children do not start; both come in
    exception groups. A cancel kills the children.
    """
    telemetry = Telemetry()
    async with AsyncExitStack() as stack:
        stack.enter_context(
            open_logging(settings.log_level, settings.log_format, telemetry, show_numbers=settings.log_numbers)
        )
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        events = EventLog(telemetry)
        database = await stack.enter_async_context(
            open_database(settings, events, must_be_there=False, max_size=2)
        )
        shared = dict(given)
        if settings.database_url is None:
            shared["database_url"] = database.conninfo
        model_url = ""
        if settings.uses_embedded_model:
            # Imported only here: with a key, nothing of the [local] extra is loaded.
            local = importlib.import_module("agent.local.process")
            model_url = await stack.enter_async_context(local.open_local_model())
        # Last: whoever connects waits until the children accept.
        listeners = await listen(settings)
        operators = await listen_for_operators(settings, events)
        for listener in (*listeners, *operators):
            await stack.enter_async_context(listener)
        board, file = open_board()
        stack.enter_context(file)
        url = url_of(listeners[0])
        say_where(settings, url)
        parent = Parent(
            settings=settings,
            given=shared,
            events=events,
            database=database,
            board=board,
            model_url=model_url,
            listeners=len(listeners),
            descriptors=[file.fileno(), *(each.socket.fileno() for each in (*listeners, *operators))],
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.watch, signals)
            await parent.run(lambda: task_status.started(url))
            nursery.cancel_scope.cancel(reason="all children have ended")


@attrs.define(eq=False)
class Parent:
    """Starts children, replaces those that die, and records the calls that died with them."""

    settings: Settings
    given: Mapping[str, Any]
    events: EventLog
    database: Database
    board: Board
    model_url: str
    listeners: int
    descriptors: Sequence[int]
    """Those of the board, the listeners and the operators' listeners."""
    secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)
    switchboard: Switchboard = attrs.field(init=False)
    stopping: trio.Event = attrs.field(factory=trio.Event)
    _generations: list[Generation] = attrs.field(factory=list)
    """Those with children; the last takes the calls."""
    _numbers: Iterator[int] = attrs.field(factory=lambda: count(1))
    _places: set[int] = attrs.field(factory=set)
    """Rows of the board that are a child's."""
    _reload: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.switchboard = Switchboard(self.board, self.events)

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Follow ``signals`` until cancelled."""
        async for number in signals:
            self.events.emit("SIGNAL", signal=signal.Signals(number).name)
            if number == signal.SIGHUP:
                self._reload.set()
                continue
            self.stopping.set()
            for generation in self._generations:
                generation.end()

    async def run(self, started: Callable[[], None]) -> None:
        """Keep children until asked to stop and all have ended. Raises AgentError if the first do not come up."""
        async with trio.open_nursery() as nursery:
            if await self._take_over(nursery):
                self.events.emit("READY", processes=self.settings.process_count)
                started()
                nursery.start_soon(self._run_reloading, nursery)
                await self.stopping.wait()
            elif not self.stopping.is_set():
                raise AgentError("the processes of the server do not start; what they logged says why")
            with trio.move_on_after(self.settings.drain_s + LAST_S):
                await self._until_gone("calls")
            for generation in self._generations:
                generation.end_worker()
            with trio.move_on_after(WORKER_S):
                await self._until_gone("worker")
            nursery.cancel_scope.cancel(reason="the server stops")

    async def _run_reloading(self, nursery: trio.Nursery) -> None:
        while True:
            await self._reload.wait()
            self._reload = trio.Event()
            if self.stopping.is_set():
                return
            old = [generation for generation in self._generations if not generation.over.is_set()]
            if not await self._take_over(nursery):
                self.events.emit("RELOAD_FAILED", "error", advice="the processes of before go on")
                continue
            self.events.emit("RELOADED", processes=self.settings.process_count)
            for generation in old:
                await generation.retire()

    async def _take_over(self, nursery: trio.Nursery) -> bool:
        """Start a generation; whether it takes calls."""
        try:
            settings = load_settings(**self.given)
        except SettingsError as error:
            self.events.emit("SETTINGS_WRONG", "error", error=str(error))
            return False
        roles: list[Role] = [*_CALLS * settings.process_count, *_WORKER * settings.worker]
        if len(roles) > ROWS - len(self._places):
            self.events.emit("PROCESSES_MANY", "error", leaving=len(self._places), most=ROWS)
            return False
        self.settings = settings
        generation = Generation(roles)
        self._generations = [each for each in self._generations if each.children] + [generation]
        for role in roles:
            nursery.start_soon(self._keep, role, generation, nursery)
        if await generation.came_up():
            return True
        generation.end()
        generation.end_worker()
        return False

    async def _keep(self, role: Role, generation: Generation, nursery: trio.Nursery) -> None:
        """Have one child of a generation; one that dies is replaced until the generation is over."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s = trio.current_time()
            child = await self._run_child(role, generation)
            if child.process.returncode and role == "calls":
                nursery.start_soon(self._record_calls_of, child)
            if role == "calls" and not generation.is_up and not child.ready.is_set():
                generation.failed()
                return
            if trio.current_time() - began_s > CALM_S:
                pause_s = FIRST_PAUSE_S
            with trio.move_on_after(pause_s):
                await generation.over.wait()
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run_child(self, role: Role, generation: Generation) -> Child:
        """One child, from its birth to its end."""
        place = min(set(range(ROWS)) - self._places)
        number, server_id = next(self._numbers), uuid4()
        more = {"worker": False} if role == "calls" else {}
        birth = Birth(
            number=number,
            place=place,
            role=role,
            settings={**self.given, **more},
            server_id=server_id,
            secret=self.secret,
            model_url=self.model_url,
            listeners=self.listeners,
        )
        self._places.add(place)
        try:
            async with open_child(birth, self.descriptors) as child:
                self.switchboard.children[number] = child
                generation.children.add(child)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.switchboard.serve, child, generation)
                    status = await child.process.wait()
                    nursery.cancel_scope.deadline = trio.current_time() + LAST_WORD_S
            calls = sum(row.lines for row in self.board.rows() if row.number == number)
            if status and not (generation.over.is_set() and status == -signal.SIGTERM):
                self.events.emit("PROCESS_DIED", "error", process=number, role=role, status=status, calls=calls)
            else:
                self.events.emit("PROCESS_LEFT", process=number, role=role)
            generation.children.discard(child)
            await self.switchboard.forget(child)
        finally:
            self.board.write(place, Row(0))
            self._places.discard(place)
        return child

    async def _record_calls_of(self, child: Child) -> None:
        """Have the calls of a child that died recorded now, not when it was not seen for a minute."""
        for pause_s in RECORD_PAUSES_S:
            await trio.sleep(pause_s)
            try:
                with trio.fail_after(RECORD_S):
                    async with self.database.connection() as connection:
                        crashed = await end_crashed(connection, child.birth.server_id)
            except (*AWAY, psycopg.Error, trio.TooSlowError) as error:
                self.events.emit("CRASH_NOT_RECORDED", "warning", error=" ".join(str(error).split()))
                continue
            for call_sid in crashed:
                self.events.emit("CALL_CRASHED", "warning", call=call_sid)
            return

    def _children(self, role: Role) -> list[Child]:
        return [child for child in self.switchboard.children.values() if child.birth.role == role]

    async def _until_gone(self, role: Role) -> None:
        while self._children(role):  # noqa: ASYNC110 - a few times at the end of a server
            await trio.sleep(GONE_LOOK_S)

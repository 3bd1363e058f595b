"""What is kept of a call while it goes on: its row and each turn, one INSERT each, by a writer in the background.

Calls put what they have into a queue and never wait (NB-1, NB-5). A database that is slow, hangs or is away costs
nothing but the copy: the row goes to the spool, and all turns are in the record that the end of the call brings.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final
from uuid import UUID, uuid4

import attrs
import psycopg
import trio

from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.records import Turn
from agent.store import AWAY, Database
from agent.store.sql.calls import call_answered, heartbeat, save_turn
from agent.store.sql.values import AnsweredCall

QUEUED: Final = 10_000
"""Rows that wait for a slow database: minutes of hundreds of calls. More are left to the records."""
WRITE_S: Final = 5.0
"""A database that takes longer for one row counts as away."""
AWAY_S: Final = 2.0
"""How long it is left alone then."""
HEARTBEAT_S: Final = 10.0


Entry = AnsweredCall | tuple[str, Turn] | UUID
"""What is written: a call's row, a turn of the call with that SID, or that the server with that id lives."""


async def write_entry(database: Database, entry: Entry) -> None:
    """Write one. Raises psycopg.Error, and what AWAY names."""
    async with database.connection() as connection:
        match entry:
            case AnsweredCall():
                await call_answered(connection, entry)
            case UUID():
                await heartbeat(connection, entry)
            case (call_sid, turn):
                await save_turn(connection, call_sid, turn)


@attrs.define(eq=False)
class CallWriter:
    """The one writer of a process. ``answered`` and ``turn`` are synchronous and cheap; ``run`` does the work."""

    write: Callable[[Entry], Awaitable[None]]
    """``write_entry`` into the database; raises as it does."""
    events: EventLog
    spool: Callable[[AnsweredCall], Awaitable[None]]
    """Keeps the row of a call on disk. Raises OSError."""
    server_id: UUID = attrs.field(factory=uuid4)
    _queue: tuple[
        trio.MemorySendChannel[AnsweredCall | tuple[str, Turn]],
        trio.MemoryReceiveChannel[AnsweredCall | tuple[str, Turn]],
    ] = attrs.field(factory=lambda: trio.open_memory_channel[AnsweredCall | tuple[str, Turn]](QUEUED))
    _away_until_s: float = -inf

    def answered(self, call: AnsweredCall) -> None:
        """A call was answered."""
        self._put(attrs.evolve(call, server_id=self.server_id))

    def turn(self, call_sid: str, turn: Turn) -> None:
        """A turn is over, or its words came; the same turn again brings what is new of it."""
        self._put((call_sid, turn))

    def _put(self, entry: AnsweredCall | tuple[str, Turn]) -> None:
        try:
            self._queue[0].send_nowait(entry)
        except trio.WouldBlock:
            self.events.count("NOT_KEPT_IN_TIME")

    async def run(self) -> None:
        """Write what comes, in order, and say each HEARTBEAT_S that this server lives; until cancelled.

        A cancel loses copies only.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_heart)
            async for entry in self._queue[1]:
                await self._keep(entry)

    async def _keep(self, entry: AnsweredCall | tuple[str, Turn]) -> None:
        if trio.current_time() >= self._away_until_s:
            try:
                with trio.fail_after(WRITE_S):
                    await self.write(entry)
            except (*AWAY, trio.TooSlowError) as error:
                self._away_until_s = trio.current_time() + AWAY_S
                self.events.emit("KEEPING_FAILED", "warning", error=str(error) or "it took too long")
            except psycopg.Error as error:
                # The database is there and does not want this one. All of it is in the record, later.
                self.events.emit("KEEPING_REFUSED", "error", error=str(error))
                return
            else:
                return
        if isinstance(entry, AnsweredCall):
            try:
                await self.spool(entry)
            except OSError as error:
                self.events.emit("ANSWER_NOT_KEPT", "error", call=entry.call_sid, error=str(error))
        else:
            self.events.count("TURN_LEFT_TO_RECORD")

    async def _run_heart(self) -> None:
        while True:
            try:
                with trio.fail_after(WRITE_S):
                    await self.write(self.server_id)
            except (psycopg.Error, DatabaseError, trio.TooSlowError):
                self.events.count("HEARTBEAT_MISSED")
            await trio.sleep(HEARTBEAT_S)

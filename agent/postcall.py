"""After the call: its record, durable by then, goes on to Postgres (ST-4, PC-1).

What comes over the memory channel is the SID of a call whose record is in the spool. The consumer lives in an
outer nursery, not in any call, so a call that ends, however it ends, only hands over. It moves each record from
the spool into Postgres, whose ledger the workers work by (``agent.pipeline.worker``); while Postgres is away,
records wait on disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import attrs
import msgspec
import trio

from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.units import CallSid
from agent.store import AWAY, Database
from agent.store.spool import Spool
from agent.store.sql.calls import call_answered, heartbeat, keep_record
from agent.store.sql.values import AnsweredCall

QUEUED_CALLS: Final = 10_000
"""Calls that wait for post-call work: a day of a busy line. The records themselves are on disk."""
RESCAN_S: Final = 30.0
"""How often the spool is looked through, for what a killed process or an absent database left there."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Pauses while the database is away, each twice as long as the one before."""
MOVE_S: Final = 20.0
"""A database that takes longer for one record counts as away."""


@attrs.frozen(eq=False)
class PostCallChannel:
    """Both ends of the hand-over: calls hold clones of ``calls_end``, one service reads ``service_end``."""

    calls_end: trio.MemorySendChannel[CallSid]
    service_end: trio.MemoryReceiveChannel[CallSid]

    @classmethod
    def open(cls) -> PostCallChannel:
        """A new channel, closed by whoever opened it."""
        send, receive = trio.open_memory_channel[CallSid](QUEUED_CALLS)
        return cls(send, receive)


@attrs.frozen
class Ledger:
    """What the mover puts records into: Postgres."""

    database: Database
    server_id: UUID | None = None
    """Whose calls may still go on."""

    async def keep(self, entry: CallRecord | AnsweredCall) -> None:
        """Keep a record, or the row of a call in progress; again changes nothing. Raises psycopg.Error, AWAY."""
        async with self.database.connection() as connection:
            if isinstance(entry, CallRecord):
                await keep_record(connection, entry)
            else:
                if entry.server_id == self.server_id is not None:
                    # First: a row whose server was not seen lately is that of a crashed call.
                    await heartbeat(connection, self.server_id)
                await call_answered(connection, entry)


@attrs.define(eq=False)
class RecordMover:
    """Moves what is in the spool into the ledger: what it is told of at once, the rest when it looks."""

    spool: Spool
    keep: Callable[[CallRecord | AnsweredCall], Awaitable[None]]
    events: EventLog
    _rung: trio.Event = attrs.field(factory=trio.Event)
    _idle: trio.Event = attrs.field(factory=trio.Event)
    _refused: set[str] = attrs.field(factory=set)
    """What the database will not take as it is; tried again by the next process."""
    _failed: set[str] = attrs.field(factory=set)
    """What failed last time, for a reason that may pass: tried after all others."""

    def look(self) -> None:
        """There is something new in the spool."""
        self._idle = trio.Event()
        self._rung.set()

    async def wait_idle(self) -> None:
        """Wait until nothing that can be moved is left."""
        await self._idle.wait()

    async def run(self) -> None:
        """Move until cancelled. A cancel loses nothing, and what is kept a second time changes nothing."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._rung = trio.Event()
            if await self._move_all():
                pause_s = FIRST_PAUSE_S
                if not self._rung.is_set():
                    self._idle.set()
                with trio.move_on_after(RESCAN_S):
                    await self._rung.wait()
            else:
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _move_all(self) -> bool:
        """Move what waits, the oldest first; False when the database, or the disk, is away.

        That shows in one entry that cannot be moved. It comes last the next time: should it be the only one, it
        stands in nobody's way.
        """
        name = ""
        try:
            names = [name for name in await self.spool.waiting() if name not in self._refused]
            self._failed.intersection_update(names)
            for name in sorted(names, key=self._failed.__contains__):
                await self._move(name)
                self._failed.discard(name)
        except (*AWAY, OSError, trio.TooSlowError) as error:
            self._failed.add(name)
            self.events.emit("RECORDS_WAIT", "warning", error=" ".join(str(error).split()) or "it took too long")
            return False
        return True

    async def _move(self, name: str) -> None:
        try:
            entry = await self.spool.load(name)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            aside = await self.spool.set_aside(name)
            self.events.emit("SPOOL_CORRUPT", "error", path=str(aside), error=str(error)[:200])
            return
        if entry is None:
            return
        try:
            with trio.fail_after(MOVE_S):
                await self.keep(entry)
        except (*AWAY, OSError, trio.TooSlowError):
            raise
        # The boundary of one record: what the database, or the way to it, does not take is this record's alone.
        except Exception as error:  # noqa: BLE001
            self._refused.add(name)
            self.events.exception("RECORD_REFUSED", error, call=entry.call_sid)
            return
        await self.spool.done(name)
        self.events.count("RECORD_MOVED")


async def run_postcall(service_end: trio.MemoryReceiveChannel[CallSid], mover: RecordMover) -> None:
    """Have the record of each finished call moved, until every sender is closed and all is moved.

    A cancel loses nothing: the records are durable, and the next process moves them.
    """
    with service_end:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mover.run)
            async for _ in service_end:
                mover.look()
            mover.look()
            await mover.wait_idle()
            nursery.cancel_scope.cancel(reason="the last record is moved")

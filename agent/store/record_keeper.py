"""A record is tried until it is kept (DO-3): what the disk does not take waits in memory and is tried again.

A record is kept when it is on the disk, from where it goes to Postgres, or when Postgres has it itself. What
passes the bounds of the memory, and what is left when the process ends, goes to a directory of last resort, on
another disk if there is one; from there it is brought back as soon as there is room. What no place takes is said
by name.
"""

import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio
from typing_extensions import override

from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.units import CallSid
from agent.store import AWAY
from agent.store.spool import RecordStore, Spool, decode_record, encode_record

MOST_RECORDS: Final = 1000
MOST_BYTES: Final = 64 * 1024 * 1024
"""What is held in memory: the calls of hours, or of a busy minute."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0
"""Pauses between tries, each twice as long as the one before: soon after there is room, all is kept."""
WRITE_S: Final = 5.0
"""A disk that takes longer for one record counts as failing."""
KEEP_S: Final = 5.0
"""And so does a database."""
FINISH_S: Final = 5.0
"""How long the end of the process may take for what is still held."""
_threads: Final = trio.CapacityLimiter(1)
"""Not the spool's, which a disk that hangs may have all of."""
_SAID: Final = 20
"""Calls that one event names."""


def place_of_last_resort(data_dir: Path, chosen: Path | None) -> Spool:
    """Where records go that nothing else takes: one directory for each data directory, on no disk of ours.

    Without a ``chosen`` one it is in /var/tmp, which outlives a restart of the machine.
    """
    if chosen is not None:
        return Spool(chosen)
    name = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    lasting = Path("/var/tmp")  # noqa: S108 - who it belongs to is checked
    above = lasting if os.access(lasting, os.W_OK) else Path(tempfile.gettempdir())
    return Spool(above / f"call-agent-{os.geteuid()}-{name}", is_elsewhere=True)


@attrs.define(eq=False)
class RecordKeeper(RecordStore):
    """``RecordStore`` of a server. ``run`` tries again what is held; ``finish`` is its last word."""

    spool: Spool
    last_resort: Spool
    keep: Callable[[CallRecord], Awaitable[None]]
    """Keeps a record in Postgres, once however often it is asked. Raises psycopg.Error, DatabaseError."""
    events: EventLog
    look: Callable[[], None]
    """There is something new in the spool."""
    _held: dict[CallSid, CallRecord | bytes] = attrs.field(factory=dict)
    """The oldest first; encoded as soon as there is time for it."""
    _saving: dict[CallSid, CallRecord] = attrs.field(factory=dict)
    _rung: trio.Event = attrs.field(factory=trio.Event)

    @override
    async def save(self, record: CallRecord) -> Path:
        """Raises what the disk raises, and Cancelled; the record is held then, and tried again."""
        self._saving[record.call_sid] = record
        try:
            return await self.spool.save(record)
        except BaseException as error:
            self._held[record.call_sid] = record
            self._count()
            told = "the disk does not answer" if isinstance(error, trio.Cancelled) else _one_line(error)
            self.events.emit("RECORD_HELD", "error", call=record.call_sid, held=len(self._held), error=told)
            self._rung.set()
            raise
        finally:
            del self._saving[record.call_sid]

    async def run(self) -> None:
        """Try what is held until cancelled; a cancel loses nothing that ``finish`` does not still see."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._rung = trio.Event()
            if await self._try_all() and await self._bring_back():
                pause_s = FIRST_PAUSE_S
                await self._rung.wait()
            else:
                with trio.move_on_after(pause_s):
                    await self._rung.wait()
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def finish(self) -> None:
        """The process ends: keep what is held where it can be, within FINISH_S, and say what could not be kept.

        Run it shielded: a cancel loses what is held.
        """
        self._held |= self._saving  # a disk that hangs has them
        with trio.move_on_after(FINISH_S):
            if not await self._try_all():
                for call_sid in list(self._held):
                    await self._resort(call_sid)
        if self._held:
            self.events.emit("RECORDS_LOST", "error", count=len(self._held), calls=list(self._held)[:_SAID])

    async def _try_all(self) -> bool:
        """Try each, the oldest first; False: some are still held. A place that fails is not asked again."""
        disk = database = True
        for call_sid in list(self._held):
            disk = disk and await self._kept(call_sid, self._to_disk, "disk")
            if call_sid in self._held:
                database = database and await self._kept(call_sid, self._to_database, "database")
            if not (disk or database):
                break
        await self._bound()
        return not self._held

    async def _kept(
        self, call_sid: CallSid, keep: Callable[[CallSid, bytes], Awaitable[None]], where: str
    ) -> bool:
        try:
            await keep(call_sid, await self._encoded(call_sid))
        except (*AWAY, OSError, trio.TooSlowError):
            return False
        # The boundary of one record: what Postgres does not want of it, the disk will have.
        except Exception as error:  # noqa: BLE001
            self.events.emit_first("RECORD_REFUSED", "error", call=call_sid, where=where, error=repr(error))
            return True
        self._let_go(call_sid, where)
        return True

    async def _to_disk(self, call_sid: CallSid, record: bytes) -> None:
        with trio.fail_after(WRITE_S):
            await self.spool.save_encoded(call_sid, record)
        self.look()

    async def _to_database(self, _: CallSid, record: bytes) -> None:
        with trio.fail_after(KEEP_S):
            await self.keep(await trio.to_thread.run_sync(decode_record, record, limiter=_threads))

    async def _bound(self) -> None:
        """What passes the bounds goes to the last resort, the oldest first; what that does not take is lost."""
        for call_sid in list(self._held):
            await self._encoded(call_sid)
        while len(self._held) > MOST_RECORDS or self._bytes() > MOST_BYTES:
            call_sid = next(iter(self._held))
            if not await self._resort(call_sid):
                self._let_go(call_sid, "")
                self.events.emit("RECORDS_LOST", "error", count=1, calls=[call_sid])

    async def _resort(self, call_sid: CallSid) -> bool:
        return await self._kept(call_sid, self._to_last_resort, "last resort")

    async def _to_last_resort(self, call_sid: CallSid, record: bytes) -> None:
        with trio.fail_after(WRITE_S):
            await self.last_resort.save_encoded(call_sid, record)

    async def _bring_back(self) -> bool:
        """Move what is in the last resort into the spool: of this process, or an earlier one; False: not all."""
        try:
            for name in await self.last_resort.waiting():
                try:
                    record = await self.last_resort.load(name)
                except msgspec.MsgspecError as error:
                    aside = await self.last_resort.set_aside(name)
                    self.events.emit("SPOOL_CORRUPT", "error", path=str(aside), error=_one_line(error)[:200])
                    continue
                if isinstance(record, CallRecord):
                    await self.spool.save(record)
                    await self.last_resort.remove(name)
                    self.events.emit("RECORD_KEPT", "warning", call=record.call_sid, where="disk")
                    self.look()
        except OSError as error:
            self.events.emit_first("LAST_RESORT_WAITS", "warning", error=_one_line(error))
            return False
        return True

    async def _encoded(self, call_sid: CallSid) -> bytes:
        record = self._held[call_sid]
        if isinstance(record, bytes):
            return record
        encoded = await trio.to_thread.run_sync(partial(encode_record, record), limiter=_threads)
        self._held[call_sid] = encoded
        return encoded

    def _let_go(self, call_sid: CallSid, where: str) -> None:
        del self._held[call_sid]
        self._count()
        if where:
            self.events.emit("RECORD_KEPT", "warning", call=call_sid, where=where)

    def _bytes(self) -> int:
        return sum(len(record) for record in self._held.values() if isinstance(record, bytes))

    def _count(self) -> None:
        self.events.telemetry.records_held.set(len(self._held))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

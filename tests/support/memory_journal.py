"""Where calls are kept while they go on, in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import attrs
import trio

from agent.core.event_log import EventLog
from agent.core.records import Turn
from agent.core.telemetry import Telemetry
from agent.store.call_writer import CallWriter, Entry
from agent.store.sql.values import AnsweredCall


@attrs.define(eq=False)
class MemoryJournal:
    """A database in memory. ``before_each`` may wait, or raise what a database raises."""

    before_each: Callable[[], Any] | None = None
    calls: dict[str, AnsweredCall] = attrs.field(factory=dict)
    turns: dict[tuple[str, str], Turn] = attrs.field(factory=dict)
    writes: list[tuple[float, str]] = attrs.field(factory=list)
    """When, and of what kind."""
    beats_s: list[float] = attrs.field(factory=list)

    async def write(self, entry: Entry) -> None:
        """See ``write_entry``."""
        await trio.lowlevel.checkpoint()
        if self.before_each is not None:
            await self.before_each()
        now_s = trio.current_time()
        match entry:
            case AnsweredCall():
                self.writes.append((now_s, "answered"))
                self.calls.setdefault(entry.call_sid, entry)
            case UUID():
                self.beats_s.append(now_s)
            case (call_sid, turn):
                self.writes.append((now_s, turn.role))
                if call_sid in self.calls:
                    self.turns[call_sid, turn.item_id] = turn


@attrs.define(eq=False)
class MemorySpool:
    """What could not be written."""

    calls: list[AnsweredCall] = attrs.field(factory=list)
    fails: bool = False

    async def keep(self, call: AnsweredCall) -> None:
        """Keep it, on what would be a disk."""
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise OSError("the disk is full")
        self.calls.append(call)


def make_keeper(journal: MemoryJournal, spool: MemorySpool | None = None) -> CallWriter:
    return CallWriter(journal.write, EventLog(Telemetry()), (spool or MemorySpool()).keep)

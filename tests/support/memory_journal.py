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
from agent.store.call_writer import CallWriter, Journal
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

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.before_each is not None:
            await self.before_each()

    async def call_answered(self, call: AnsweredCall) -> None:
        """See Journal."""
        await self._wait()
        self.writes.append((trio.current_time(), "answered"))
        self.calls.setdefault(call.call_sid, call)

    async def save_turn(self, call_sid: str, turn: Turn) -> None:
        """See Journal."""
        await self._wait()
        self.writes.append((trio.current_time(), turn.role))
        if call_sid in self.calls:
            self.turns[call_sid, turn.item_id] = turn

    async def heartbeat(self, server_id: UUID) -> None:
        """See Journal."""
        await self._wait()
        self.beats_s.append(trio.current_time())


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


def make_keeper(journal: Journal, spool: MemorySpool | None = None) -> CallWriter:
    return CallWriter(journal, EventLog(Telemetry()), (spool or MemorySpool()).keep)

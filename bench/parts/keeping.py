"""What keeping a call costs the event loop that its audio runs on: the row, and each turn (NB-1, NB-5).

Measured where calls are: in one thread's event loop, against a real server. What counts is the loop's own time
(the thread's CPU time: waiting for the server is no one's loss), and the longest piece of it in one go.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime
from itertools import count
from typing import Final
from uuid import UUID

import attrs
import trio

from agent.core.event_log import EventLog
from agent.core.records import Turn
from agent.core.telemetry import Telemetry
from agent.store import Database
from agent.store.call_writer import CallWriter, Entry, write_entry
from agent.store.pg import open_pool
from agent.store.sql.values import AnsweredCall

MUST_MS: Final = 1.0
"""Added event-loop time per turn that is promised."""
TURNS: Final = 2000
WARM_UP: Final = 100
LIMIT_S: Final = 60.0
_WORDS: Final = "I would like to come in for a cleaning on Tuesday afternoon, if there is a place. "


@attrs.frozen
class KeepingFigures:
    """For one turn, in microseconds."""

    enqueue_us: float
    """Median of what the call itself waits: the put into the keeper's queue."""
    turn_us: float
    """The loop's time for a turn from its end to its row, on average, everything included."""
    longest_us: float
    """The longest the loop was held in one go, 99th percentile over the turns."""

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.turn_us < MUST_MS * 1000


@attrs.define(eq=False)
class _Journal:
    """The store's journal, which says when a turn is written."""

    database: Database
    written: trio.Event = attrs.field(factory=trio.Event)

    async def write(self, entry: Entry) -> None:
        """No heartbeat: one each ten seconds is no turn's."""
        if isinstance(entry, UUID):
            await trio.lowlevel.checkpoint()
            return
        await write_entry(self.database, entry)
        if isinstance(entry, tuple):
            self.written.set()


class _Steps(trio.abc.Instrument):
    """The longest step of any task since it was last asked."""

    longest_s: float = 0.0
    _began_s: float = 0.0

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self._began_s = time.perf_counter()

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.longest_s = max(self.longest_s, time.perf_counter() - self._began_s)

    def take(self) -> float:
        longest_s, self.longest_s = self.longest_s, 0.0
        return longest_s


async def measure_keeping(conninfo: str, *, turns: int = TURNS) -> KeepingFigures:
    """Keep a call of so many turns, one after the other; takes about two seconds.

    ``conninfo`` leads to a database of its own: it is migrated, and a call is left in it. Raises
    ``trio.TooSlowError`` after LIMIT_S, psycopg.Error, DatabaseError. Nothing else may run in the loop.
    """
    with trio.fail_after(LIMIT_S):
        async with open_pool(conninfo) as pool, trio.open_nursery() as nursery:
            database = Database(conninfo, pool)
            await database.make_ready()
            journal = _Journal(database)
            keeper = CallWriter(journal.write, EventLog(Telemetry()), _no_spool)
            nursery.start_soon(keeper.run)
            call = AnsweredCall(
                "CAbench", "default", "inbound", "+15551230001", "+15551230002", datetime.now(UTC)
            )
            keeper.answered(call)
            numbers = count()
            for _ in range(WARM_UP):
                await _keep_one(keeper, journal, next(numbers))
            before_s = time.thread_time()
            enqueued_s = [await _keep_one(keeper, journal, next(numbers)) for _ in range(turns)]
            loop_s = time.thread_time() - before_s
            # A second round for the longest steps: watching each of them costs as much as they do.
            steps, longest_s = _Steps(), list[float]()
            trio.lowlevel.add_instrument(steps)
            for _ in range(turns):
                await _keep_one(keeper, journal, next(numbers))
                longest_s.append(steps.take())
            trio.lowlevel.remove_instrument(steps)
            nursery.cancel_scope.cancel(reason="all is measured")
    return KeepingFigures(
        enqueue_us=statistics.median(enqueued_s) * 1e6,
        turn_us=loop_s / turns * 1e6,
        longest_us=sorted(longest_s)[int(len(longest_s) * 0.99)] * 1e6,
    )


async def _keep_one(keeper: CallWriter, journal: _Journal, number: int) -> float:
    """Keep a turn until its row is there; returns for how long its call was held."""
    turn = Turn("caller", f"item_{number}", _WORDS, _WORDS, number * 3000, 2500, 2500, interrupted=False)
    journal.written = trio.Event()
    began_s = time.perf_counter()
    keeper.turn("CAbench", turn)
    took_s = time.perf_counter() - began_s
    await journal.written.wait()
    return took_s


async def _no_spool(call: AnsweredCall) -> None:
    raise OSError(f"the database is to keep {call.call_sid}")

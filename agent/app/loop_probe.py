"""The loop-stall probe (NB-2): says when the event loop did not run, and what ran instead.

A task beats twenty times a second. A thread looks at the beat; when it is overdue it notes, once per stall,
where the loop's thread is: looking costs the loop nothing, and while it stalls nobody else can look. When
the loop runs again the task reports BLOCKING_DETECTED.
"""

import sys
import threading
import traceback
from collections.abc import Callable
from time import perf_counter, thread_time
from typing import Final

import attrs
import trio

from agent.core.event_log import EventLog

BEAT_S: Final = 0.05
LOOK_S: Final = 0.05
BLOCKED_S: Final = 0.200
"""A loop that did not run for longer than this was blocked (NB-2)."""
STACK_FRAMES: Final = 8
REPORT_EVERY_S: Final = 1.0
"""The longest gap goes into the histogram once in this time."""


@attrs.define(eq=False)
class LoopProbe:
    """Watches the event loop of one process. Run one ``run`` per loop."""

    events: EventLog
    beat: Callable[[float], None] = lambda _share: None
    """Told once a second which share of a core the loop's thread had."""
    blocked_s: float = BLOCKED_S
    _beat_s: float = attrs.field(init=False, factory=perf_counter)
    _culprit: str = ""
    _noted_beat_s: float = 0.0
    _over: threading.Event = attrs.field(factory=threading.Event)

    async def run(self) -> None:
        """Watch until cancelled; the thread is gone when this returns."""
        loop_thread = threading.get_ident()
        watcher = threading.Thread(target=self._look, args=(loop_thread,), name="loop probe", daemon=True)
        watcher.start()
        try:
            await self._beat()
        finally:
            self._over.set()
            watcher.join()

    async def _beat(self) -> None:
        worst_s, reported_s, used_s = 0.0, perf_counter(), thread_time()
        self._beat_s = reported_s
        while True:
            await trio.sleep(BEAT_S)
            now = perf_counter()
            gap_s = now - self._beat_s - BEAT_S
            self._beat_s = now
            worst_s = max(worst_s, gap_s)
            if gap_s > self.blocked_s:
                culprit, self._culprit = self._culprit, ""
                self.events.emit_sparsely(
                    "BLOCKING_DETECTED", max_gap_ms=round(gap_s * 1000), running=culprit or "unknown"
                )
            if now - reported_s >= REPORT_EVERY_S:
                self.events.telemetry.loop_gap.observe(worst_s)
                used_before_s, used_s = used_s, thread_time()
                self.beat((used_s - used_before_s) / (now - reported_s))
                worst_s, reported_s = 0.0, now

    def _look(self, loop_thread: int) -> None:
        while not self._over.wait(LOOK_S):
            beat_s = self._beat_s
            overdue_s = perf_counter() - beat_s - BEAT_S
            if overdue_s > self.blocked_s / 2 and self._noted_beat_s != beat_s:
                self._noted_beat_s = beat_s
                self._culprit = _where(loop_thread)


def _where(thread: int) -> str:
    """The innermost frames of a thread, innermost first, as ``file:line function``."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to see another thread's stack
    if frame is None:
        return ""
    stack = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=STACK_FRAMES, lookup_lines=False)
    return " < ".join(f"{entry.filename.rpartition('/')[2]}:{entry.lineno} {entry.name}" for entry in stack)

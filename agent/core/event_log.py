"""Events: counted at once, logged through a queue by a thread of their own, so logging never waits (TX-8).

An event has a stable upper-case name (``TX_STALL``, ``BARGE_IN``) and a few fields. ``EventLog.emit`` counts it
in the call's own tally and for Prometheus, and hands the raw fields to the queue; text is made in the thread.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Literal

import attrs
import structlog

from agent.core.log_text import tidy, tidy_traceback
from agent.core.telemetry import Telemetry

QUEUED_RECORDS: Final = 20_000
"""Log records held while the disk or terminal is slow; more are dropped and counted, never waited for."""

SPARSE_LINES: Final = 20
"""Lines a second in the whole process of one event that all calls may have at once, such as a stall."""

_OURS: Final = ("timestamp", "level")
Level = Literal["debug", "info", "warning", "error"]


@attrs.define(eq=False)
class _LineLimit:
    """How many lines of sparse events were written in this second."""

    second: int = 0
    lines: Counter[str] = attrs.field(factory=Counter)

    def has_room(self, event: str) -> bool:
        """Whether one more may be written; counts it."""
        second = int(time.monotonic())
        if second != self.second:
            self.second = second
            self.lines.clear()
        self.lines[event] += 1
        return self.lines[event] <= SPARSE_LINES


@attrs.define(eq=False)
class EventLog:
    """Where the events of one call (or of the server) go. Synchronous, never blocks, never raises."""

    telemetry: Telemetry
    fields: dict[str, Any] = attrs.field(factory=dict)
    counts: Counter[str] = attrs.field(factory=Counter)
    listener: Callable[[str, dict[str, Any]], None] | None = None
    """Told of every emitted event of this log: the call's timeline."""
    _limit: _LineLimit = attrs.field(factory=_LineLimit)
    _logger: Any = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._logger = structlog.get_logger("agent").bind(**self.fields)

    def bind(self, **fields: Any) -> EventLog:
        """A log with more fields and a tally of its own: one per call."""
        return EventLog(self.telemetry, {**self.fields, **fields}, limit=self._limit)

    def emit(self, event: str, level: Level = "info", **fields: Any) -> None:
        """Count the event and log it."""
        self.count(event)
        if self.listener is not None:
            self.listener(event, fields)
        getattr(self._logger, level)(event, **fields)

    def emit_sparsely(self, event: str, level: Level = "warning", **fields: Any) -> None:
        """As ``emit``, but all calls together log it SPARSE_LINES times a second at most: they stall together."""
        if self._limit.has_room(event):
            self.emit(event, level, **fields)
            return
        self.count(event)
        if self.listener is not None:
            self.listener(event, fields)

    def emit_first(self, event: str, level: Level = "warning", **fields: Any) -> None:
        """Count the event, and log only the first of its kind: for what a broken peer can repeat."""
        if self.counts[event]:
            self.count(event)
        else:
            self.emit(event, level, **fields)

    def count(self, event: str, amount: int = 1) -> None:
        """Count the event without a log line: for what can happen fifty times a second."""
        self.counts[event] += amount
        self.telemetry.events.labels(event=event).inc(amount)

    def exception(self, event: str, error: BaseException, **fields: Any) -> None:
        """Count and log an error with its traceback; the text is made in the log thread."""
        self.count(event)
        self._logger.error(event, exc_info=(type(error), error, error.__traceback__), **fields)


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Hands over the record as it is; the standard one would format it here, in the event loop."""

    def __init__(self, records: queue.Queue[Any], telemetry: Telemetry) -> None:
        super().__init__(records)
        self._telemetry = telemetry

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._telemetry.events.labels(event="LOG_DROPPED").inc()


class _PatientListener(logging.handlers.QueueListener):
    """Ends behind what is queued; the standard one raises queue.Full when the queue is full at the end."""

    def __init__(self, records: queue.Queue[Any], target: logging.Handler) -> None:
        super().__init__(records, target)
        self._records = records

    def enqueue_sentinel(self) -> None:
        self._records.put(None)  # the listener's mark for the end; it is reading, so there will be room


def _tidied(_logger: Any, _method: str, fields: dict[str, Any], *, show_numbers: bool) -> dict[str, Any]:
    """In the log thread: every field without what a log must not have."""
    for name, value in fields.items():
        if name == "exception":
            fields[name] = tidy_traceback(str(value), show_numbers=show_numbers)
        elif name not in _OURS:
            fields[name] = tidy(value, show_numbers=show_numbers)
    return fields


@contextmanager
def open_logging(
    level: Level,
    style: Literal["auto", "console", "json"],
    telemetry: Telemetry,
    *,
    show_numbers: bool = False,
) -> Iterator[None]:
    """Log to standard error until left; what is queued then is still written.

    Unless ``show_numbers``, of phone numbers only the last two digits are logged (see ``agent.core.log_text``).
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = (
        # Its own way with tracebacks shows the local variables: keys, passwords, what callers said.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console),
    ]
    configured = structlog.get_config()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    processors: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        partial(_tidied, show_numbers=show_numbers),
        renderer,
    ]
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    records: queue.Queue[Any] = queue.Queue(QUEUED_RECORDS)
    handler = _DroppingQueueHandler(records, telemetry)
    listener = _PatientListener(records, target)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(getattr(logging, level.upper()))
    for noisy in ("trio-websocket", "httpx", "httpx2", "twilio.http_client", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.removeHandler(handler)
        root.setLevel(before)
        structlog.configure(**configured)

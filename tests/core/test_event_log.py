"""The event log: counted at once, written by its own thread, never waited for (TX-8)."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal, NoReturn

import pytest
import structlog

from agent.core import event_log as eventlog
from agent.core.event_log import EventLog, Level, open_logging
from agent.core.telemetry import Telemetry


@pytest.fixture(autouse=True)
def own_configuration() -> Iterator[None]:
    """Whatever a test configures is undone."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@contextmanager
def logging_alone(level: Level = "info") -> Iterator[EventLog]:
    """An event log that is open, without pytest's own handlers: they format in the emitting thread."""
    root, telemetry = logging.getLogger(), Telemetry()
    others, root.handlers[:] = root.handlers[:], []
    try:
        with open_logging(level, "json", telemetry):
            yield EventLog(telemetry)
    finally:
        root.handlers[:] = others


def counted(telemetry: Telemetry, event: str) -> float:
    return telemetry.registry.get_sample_value("agent_events_total", {"event": event}) or 0


def written(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The JSON lines on standard error."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_tx_5_a_stalled_process_says_so_a_few_times_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 300 calls counts and notes its stall; of all lines the first are written, and next second's."""
    telemetry, told, now_s = Telemetry(), list[str](), 1000.5
    monkeypatch.setattr("agent.core.event_log.time", SimpleNamespace(monotonic=lambda: now_s))
    with open_logging("info", "json", telemetry):
        server = EventLog(telemetry)
        calls = [server.bind(call=number) for number in range(300)]
        for events in calls:
            events.listener = lambda event, _fields: told.append(event)
            events.emit_sparsely("TX_STALL", ms=400)
        now_s += 0.6
        calls[299].emit_sparsely("TX_STALL", ms=400)
    lines = [line["call"] for line in written(capsys)]
    assert lines == [*range(eventlog.SPARSE_LINES), 299]
    assert len(told) == 301
    assert calls[298].counts == {"TX_STALL": 1}
    assert counted(telemetry, "TX_STALL") == 301


def test_an_event_is_counted_told_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    told: list[tuple[str, dict[str, Any]]] = []
    with open_logging("info", "json", telemetry):
        events = EventLog(telemetry).bind(call="CA1")
        events.listener = lambda event, fields: told.append((event, fields))
        events.emit("BARGE_IN", heard_ms=1200)
    [line] = written(capsys)
    assert (line["event"], line["call"], line["heard_ms"], line["level"]) == ("BARGE_IN", "CA1", 1200, "info")
    assert told == [("BARGE_IN", {"heard_ms": 1200})]
    assert events.counts == {"BARGE_IN": 1}
    assert counted(telemetry, "BARGE_IN") == 1


def test_bind_has_a_tally_of_its_own_and_keeps_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    with open_logging("info", "json", telemetry):
        server = EventLog(telemetry, {"host": "a"})
        call = server.bind(call="CA1")
        call.emit("TX_STALL")
        server.count("REFUSED", 3)
    assert call.counts == {"TX_STALL": 1}
    assert server.counts == {"REFUSED": 3}
    assert counted(telemetry, "TX_STALL") == 1
    assert counted(telemetry, "REFUSED") == 3
    [line] = written(capsys)
    assert (line["host"], line["call"]) == ("a", "CA1")


def test_emit_first_logs_once_and_counts_all(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that sends rubbish fifty times a second gets one line."""
    with logging_alone() as events:
        for number in range(50):
            events.emit_first("MALFORMED", number=number)
    [line] = written(capsys)
    assert (line["number"], line["level"]) == (0, "warning")
    assert events.counts["MALFORMED"] == counted(events.telemetry, "MALFORMED") == 50


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels_below_the_limit_are_counted_but_not_logged(
    level: Level, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names: tuple[Level, ...] = ("debug", "info", "warning", "error")
    with logging_alone(level) as events:
        for name in names:
            events.emit(name.upper(), name)
    assert len(written(capsys)) == lines
    assert sum(events.counts.values()) == 4


def test_hebrew_stays_readable(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    with open_logging("info", "json", telemetry):
        EventLog(telemetry).emit("SAID", text="שלום")
    assert "שלום" in capsys.readouterr().err


class Slow:
    """A field whose text takes a while: remembers the threads that asked for it."""

    def __init__(self) -> None:
        self.asked_in: set[int] = set()

    def __repr__(self) -> str:
        self.asked_in.add(threading.get_ident())
        return "slow"


def fail() -> NoReturn:
    raise RuntimeError("נפל")


def test_tx_8_text_is_made_in_the_log_thread(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields and tracebacks are turned into text by the listener, not by the task that emits."""
    field = Slow()
    formatted_in: list[int] = []
    format_exception = structlog.processors.format_exc_info

    def observed(logger: Any, name: str, event: Any) -> Any:
        formatted_in.append(threading.get_ident())
        return format_exception(logger, name, event)

    monkeypatch.setattr(structlog.processors, "format_exc_info", observed)
    with logging_alone() as events:
        events.emit("ODD", field=field)
        try:
            fail()
        except RuntimeError as error:
            events.exception("CALL_FAILED", error, call="CA1")
    odd, failed = written(capsys)
    assert odd["field"] == "slow"
    assert "RuntimeError: נפל" in failed["exception"]
    assert (failed["level"], events.counts["CALL_FAILED"]) == ("error", 1)
    assert threading.get_ident() not in {*field.asked_in, *formatted_in}
    assert field.asked_in
    assert formatted_in


@contextmanager
def hung_terminal(monkeypatch: pytest.MonkeyPatch, queued: int) -> Iterator[EventLog]:
    """An event log with a queue of ``queued`` whose listener hangs in its first line until the block is left."""
    monkeypatch.setattr(eventlog, "QUEUED_RECORDS", queued)
    hung, let_go = threading.Event(), threading.Event()
    emit = logging.StreamHandler.emit

    def hang(handler: Any, record: logging.LogRecord) -> None:
        hung.set()
        assert let_go.wait(10)
        emit(handler, record)

    with logging_alone() as events:
        monkeypatch.setattr(logging.StreamHandler, "emit", hang)
        events.emit("FIRST")
        assert hung.wait(10)
        yield events
        threading.Timer(0.05, let_go.set).start()


def test_tx_8_a_full_queue_never_blocks_and_drops_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal hangs: the queue fills, what does not fit is counted; what fits is written."""
    with hung_terminal(monkeypatch, 10) as events:
        for _ in range(25):
            events.emit("MORE")
        assert events.counts["MORE"] == 25
        assert counted(events.telemetry, "LOG_DROPPED") == 15
    assert len(written(capsys)) == 1 + 10


def test_afterwards_logging_is_as_it_was() -> None:
    root = logging.getLogger()
    handlers, level, configured = list(root.handlers), root.level, structlog.get_config()
    with open_logging("debug", "console", Telemetry()):
        assert list(root.handlers) != handlers
    assert list(root.handlers) == handlers
    assert root.level == level
    assert structlog.get_config() == configured


def test_other_libraries_are_logged_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    with open_logging("info", "json", Telemetry()):
        logging.getLogger("some.library").warning("lost %s", "it")
    [line] = written(capsys)
    assert (line["event"], line["level"]) == ("lost it", "warning")


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_shows_no_values(
    capsys: pytest.CaptureFixture[str], style: Literal["console", "json"]
) -> None:
    """Keys, passwords and what callers said are in local variables."""

    def connect(conninfo: str) -> None:
        raise ValueError("no such host")

    telemetry, conninfo = Telemetry(), "password=hunter2"
    with open_logging("info", style, telemetry):
        try:
            connect(conninfo)
        except ValueError as error:
            EventLog(telemetry).exception("BROKEN", error)
    text = capsys.readouterr().err
    assert "no such host" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("style", ["console", "json"])
def test_strangers_write_no_lines_move_no_cursor_and_leave_no_number(
    capsys: pytest.CaptureFixture[str], style: Literal["console", "json"]
) -> None:
    """In fields, in messages of other libraries and in what errors quote."""
    telemetry, said = Telemetry(), "\x1b[2J\x9b\n00:00:00 [info] FORGED\u2028 +15551234567"
    with open_logging("info", style, telemetry):
        EventLog(telemetry).bind(call=said).emit("SAID", reason=said, many=[said])
        logging.getLogger("some.library").warning("from %s", said)
        try:
            raise ValueError(said)  # noqa: TRY301 - to have a traceback
        except ValueError as error:
            EventLog(telemetry).exception("BROKEN", error)
    text = capsys.readouterr().err
    assert not [line for line in text.splitlines() if line.startswith("00:00:00")]
    assert not {"\x1b[2J", "\x9b", "\u2028"} & {part for part in ("\x1b[2J", "\x9b", "\u2028") if part in text}
    assert "5551234567" not in text
    assert text.count("*67") == 5


def test_numbers_are_logged_whole_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    with open_logging("info", "json", telemetry, show_numbers=True):
        EventLog(telemetry).emit("TRANSFER_REFUSED", number="+15551234567")
    [line] = written(capsys)
    assert line["number"] == "+15551234567"

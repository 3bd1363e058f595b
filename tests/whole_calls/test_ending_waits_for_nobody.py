"""The ending waits for nobody: not for guests, not for their threads, not for a disk; and it hides no error."""

from __future__ import annotations

import threading
from pathlib import Path

import attrs
import pytest
import trio
from fault_calls import open_faulty_call, open_one_call, record_of
from memory_rest import MemoryRest
from unkind_models import Desk, suppose
from virtual_call import CALL_SID, open_call, open_services

import agent.call.ending
import agent.store.spool
from agent.call.tool_calls import LIMIT_S
from agent.call.tools.declare import ToolCall, make_tool
from agent.core.records import CallRecord, Outcome
from agent.core.units import CallSid, RecordingSid
from agent.sim.memory import memory_realtime, open_memory_sockets
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.store.spool import Spool
from agent.wire.websocket import TrioWebSocket

SOON_S = 3.0
"""Time enough for a hang-up and a record that wait for nobody."""
LOOK = Answer("Looking.", 400, tool_call=ScriptedToolCall("look"))


@attrs.define(eq=False)
class Library:
    """Look-ups that a cancel does not stop."""

    released: threading.Event = attrs.field(factory=threading.Event)

    async def look(self, call: ToolCall) -> str:
        """Look something up."""
        with trio.CancelScope(shield=True):
            await trio.sleep(60.0)
        return "found"

    async def look_in_a_thread(self, call: ToolCall) -> str:
        """Look something up."""
        await trio.to_thread.run_sync(self.released.wait)
        return "found"


@pytest.fixture
def slow_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """The carrier takes 9 s to begin a recording, in a thread that no cancel stops."""
    start = MemoryRest.start_recording

    async def start_slowly(rest: MemoryRest, call_sid: CallSid) -> RecordingSid:
        with trio.CancelScope(shield=True):
            await trio.sleep(9.0)
        return await start(rest, call_sid)

    monkeypatch.setattr(MemoryRest, "start_recording", start_slowly)


async def test_a_slow_start_of_the_recording_does_not_delay_the_hang_up(
    autojump_clock: object, slow_recording: None
) -> None:
    """After the goodbye the line is closed at once, although the recording's request is still on its way."""
    model = ScriptedRealtime([Answer("We are closed, goodbye.", 800, tool_call=ScriptedToolCall("end_call"))])
    async with open_one_call(model) as (services, stream, _):
        services.rest.streams[CALL_SID] = stream
        await stream.until_heard_ms(800)
        with trio.move_on_after(SOON_S):
            await stream.until_closed()
        closed = stream.is_closed
        await stream.hang_up()
    assert closed


async def record_after_hanging_up_on(library: Library, answer: Answer) -> list[CallRecord]:
    """The caller hangs up while a look-up is at work: the records that are durable soon after."""
    model = ScriptedRealtime([answer])
    tools = (make_tool(library.look), make_tool(library.look_in_a_thread))
    async with (
        open_services(memory_realtime(lambda: model), tools=tools) as services,
        open_faulty_call(services) as (stream, leg),
    ):
        await stream.until_heard_ms(400)
        await trio.sleep(0.5)
        await stream.hang_up()
        with trio.move_on_after(SOON_S):
            await leg.over.wait()
        kept = list(services.records.saved)
        library.released.set()
    suppose(services.records.saved, "the record is kept sooner or later")
    return kept


async def test_a_tool_that_no_cancel_stops_does_not_delay_the_record(autojump_clock: object) -> None:
    """The caller hangs up during a look-up of a minute: the record is durable within seconds."""
    assert await record_after_hanging_up_on(Library(), LOOK)


@pytest.mark.sockets
async def test_a_tool_in_a_thread_does_not_delay_the_record() -> None:
    """The same with a real thread, as tools are told to use them."""
    look = attrs.evolve(LOOK, tool_call=ScriptedToolCall("look_in_a_thread"))
    assert await record_after_hanging_up_on(Library(), look)


async def test_a_tool_that_no_cancel_stops_is_answered_at_its_limit(autojump_clock: object) -> None:
    """The model is told at the limit that the tool takes too long, whatever the tool does."""
    model = ScriptedRealtime([LOOK])
    tools = (make_tool(Library().look),)
    async with (
        open_services(memory_realtime(lambda: model), tools=tools) as services,
        open_faulty_call(services) as (stream, _),
    ):
        await stream.until_heard_ms(400)
        await trio.sleep(LIMIT_S + 2.0)
        outputs = list(model.session.conversation.tool_outputs.values())
        await stream.hang_up()
    assert len(outputs) == 1


@pytest.mark.sockets
async def test_a_disk_that_hangs_does_not_hold_the_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The disk hangs as the record is written: the call is over, active no more, within the ending's bound."""
    released = threading.Event()
    monkeypatch.setattr(agent.call.ending, "STEP_S", 0.5)
    monkeypatch.setattr(agent.store.spool, "sync_directory", lambda _: released.wait())
    model = ScriptedRealtime([Answer("Hello.", 1000)])
    async with open_services(memory_realtime(lambda: model)) as services:
        services.calls.records = Spool(tmp_path)
        async with open_call(services) as stream:
            await stream.until_heard_ms(300)
            services.calls.active[CallSid(CALL_SID)].cancel(reason="the server stops")
            with trio.move_on_after(SOON_S):
                await stream.until_closed()
            still_active = CALL_SID in services.calls.active
            released.set()
            await stream.until_closed()
    assert not still_active


async def fails_in_its_clean_up(call: ToolCall) -> str:
    """Look something up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the clean-up failed")


async def test_a_guests_failing_clean_up_is_not_the_calls_outcome(autojump_clock: object) -> None:
    """A tool with a nursery fails as it is cancelled: the call ended for the reason it was cancelled for."""
    model = ScriptedRealtime([attrs.evolve(LOOK, tool_call=ScriptedToolCall("fails_in_its_clean_up"))])
    tools = (make_tool(fails_in_its_clean_up),)
    async with (
        open_services(memory_realtime(lambda: model), tools=tools) as services,
        open_faulty_call(services) as (stream, leg),
    ):
        await stream.until_heard_ms(400)
        await trio.sleep(0.3)
        services.calls.active[CallSid(CALL_SID)].cancel(reason="the server stops")
        await leg.over.wait()
    record = record_of(services)
    assert record.outcome is Outcome.SERVER_STOPPED
    assert "ExceptionGroup" not in record.reason


async def fail_and_close(socket: TrioWebSocket) -> None:
    try:
        raise ValueError("the real error")
    finally:
        await socket.aclose()


async def test_closing_a_socket_hides_no_error(autojump_clock: object) -> None:
    """An error on its way out of a cancelled scope is still that error when the socket was closed."""
    async with open_memory_sockets() as (_, socket):
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(ValueError, match="the real error"):
                await fail_and_close(socket)
    assert not scope.cancelled_caught


async def test_a_write_that_fails_in_its_grace_leaves_an_event(autojump_clock: object) -> None:
    """The caller hangs up during a write, which then fails: the call's events say so."""
    model = ScriptedRealtime([Answer("I book that for you, goodbye.", 400, tool_call=ScriptedToolCall("book"))])
    tools = (make_tool(Desk(takes_s=1.0, fails=True).book, writes=True),)
    async with (
        open_services(memory_realtime(lambda: model), tools=tools) as services,
        open_faulty_call(services) as (stream, leg),
    ):
        await stream.until_heard_ms(400)
        await trio.sleep(0.3)
        await stream.hang_up()
        await leg.over.wait()
    events = record_of(services).metrics.events
    suppose("TOOL_USED" not in events, "the tool had not ended before")
    assert "TOOL_FAILED" in events

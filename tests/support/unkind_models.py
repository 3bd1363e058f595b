"""Models as unkind as the real one: slow to come back, their events altered on the way; what they were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agent.call.tools.declare import ToolCall
from agent.model.server_shapes import Outbox
from agent.model.session import Connector
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.memory import memory_realtime
from agent.sim.model.server import ScriptedRealtime
from agent.wire.websocket import TrioWebSocket

Edit = Callable[[str, dict[str, Any]], None]
"""Alters the fields of an event of the model before it is sent; it is told the event's type."""


@attrs.define(eq=False)
class Desk:
    """A desk with one tool: it takes ``takes_s``, notes each use, and fails on demand."""

    takes_s: float = 0.0
    fails: bool = False
    booked: list[str] = attrs.field(factory=list)

    async def book(self, call: ToolCall) -> str:
        """Book an appointment."""
        await trio.sleep(self.takes_s)
        if self.fails:
            raise RuntimeError("the calendar said no")
        self.booked.append(call.id)
        return "BOOKED-4711"


def suppose(holds: object, what: str) -> None:
    """Stop a test whose scene is not as it supposes: that is no claim unmet."""
    if not holds:
        raise RuntimeError(f"not as supposed: {what}")


def slow_to_connect(model: ScriptedRealtime, *, first_s: float = 0.0, later_s: float = 0.0) -> Connector:
    """A connector to ``model`` that takes a while: ``first_s`` the first time, ``later_s`` each time after it."""
    connect = memory_realtime(lambda: model)

    @asynccontextmanager
    async def connect_slowly() -> AsyncIterator[TrioWebSocket]:
        await trio.sleep(later_s if model.sessions else first_s)
        async with connect() as socket:
            yield socket

    return connect_slowly


def edit_events(monkeypatch: pytest.MonkeyPatch, edit: Edit) -> None:
    """Have every event of the scripted model, its audio deltas apart, altered by ``edit``."""
    send_all = Outbox.send_all

    def send_edited(outbox: Outbox, events: Iterable[Mapping[str, Any]]) -> None:
        edited = [dict(event) for event in events]
        for event in edited:
            edit(event["type"], event)
        send_all(outbox, edited)

    monkeypatch.setattr(Outbox, "send_all", send_edited)


def count_events(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The events of all models from now on, audio deltas apart, by their types."""
    counts: Counter[str] = Counter()
    edit_events(monkeypatch, lambda kind, _: counts.update([kind]))
    return counts


def told(model: ScriptedRealtime, text: str) -> int:
    """How many items of the last session say ``text``; the client put them there."""
    return sum(
        event["type"] == "conversation.item.create" and text in str(event) for _, event in model.session.received
    )


async def until_spoken_to(stream: SimulatedStream, at_most_s: float) -> float:
    """Wait until the caller hears something new; returns the seconds it took, ``at_most_s`` if nothing came."""
    began_s, heard_ms = trio.current_time(), stream.heard_ms()
    with trio.move_on_after(at_most_s):
        await stream.until_heard_ms(heard_ms + 20)
    return trio.current_time() - began_s


def run_in_order(main: Callable[[], Awaitable[Any]], seed: int, clock: MockClock) -> Any:
    """Run ``main`` in virtual time, the tasks of each batch in the order that ``seed`` gives."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    return trio.run(main, clock=clock)

"""Whole calls in which anything happens at any moment: what must hold of all of them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio
from fault_calls import assert_over, open_faulty_call, record_of
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from unkind_models import Desk, run_in_order, until_spoken_to
from virtual_call import CALL_SID, FakeServices, counts, open_services

from agent.call.tools.declare import make_tool
from agent.core.errors import SocketClosedError
from agent.core.records import Outcome
from agent.core.units import CallSid
from agent.model.session import Connector
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.link import HeldStream, memory_link
from agent.sim.memory import memory_realtime
from agent.sim.model.script import Answer, Faults, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone
from agent.wire.websocket import HANDSHAKE_S, TrioWebSocket, open_client_over, open_server_over

NEVER = ("CALL_ERROR", "GUEST_FAILED", "TOOL_FAILED", "POST_CANCEL_AUDIO_VIOLATION")
"""Events of a fault of ours."""
HARMLESS = {
    "conversation_already_has_active_response",
    "response_cancel_not_active",
    "item_truncate_invalid_item_id",
}
"""Refusals that cannot be avoided: what they are about ended while the request was on its way."""
ERRORS = ("server_error", "session_expired", "insufficient_quota")
FAULTS = ("nothing", "drop", "close", *ERRORS, "vanish", "hang up", "stop")


@attrs.define(eq=False)
class OutsideModel:
    """A model that is served outside of the call's tasks, as in life: it sees the end of its socket, or not."""

    script: ScriptedRealtime
    nursery: trio.Nursery
    serving: int = 0

    def connector(self) -> Connector:
        """How the agent reaches it."""

        @asynccontextmanager
        async def connect() -> AsyncIterator[TrioWebSocket]:
            async with open_client_over(self._begin(), "model", "/v1/realtime?model=scripted") as client:
                yield client

        return connect

    def _begin(self) -> HeldStream:
        ours, theirs = memory_link()
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, link: HeldStream) -> None:
        self.serving += 1
        with suppress(SocketClosedError, trio.TooSlowError):
            async with open_server_over(link) as handshake:
                await self.script.serve(await handshake.accept(), link)
        self.serving -= 1


async def strike(fault: str, services: FakeServices, model: ScriptedRealtime, stream: SimulatedStream) -> None:
    """One fault, now; one that there is nobody for any more does nothing."""
    scope = services.calls.active.get(CallSid(CALL_SID))
    if fault == "vanish":
        await stream.vanish()
    elif fault == "hang up":
        await stream.hang_up()
    elif fault == "stop" and scope is not None:
        scope.cancel(reason="the server stops")
    elif fault in ERRORS and model.sessions:
        model.inject({"type": "error", "error": {"type": "x", "code": fault, "message": "no more"}})
    elif fault in ("drop", "close") and model.sessions:
        model.disconnect(drop=fault == "drop")


async def call_with_a_fault(fault: str, at_ms: int, passes: int) -> None:
    """A greeting, a barge-in, a goodbye; the fault strikes a few passes of the scheduler after ``at_ms``."""
    goodbye = Answer("Goodbye then.", 160, first_delta_ms=40, tool_call=ScriptedToolCall("end_call"))
    script = ScriptedRealtime(
        [Answer("Hello, how can I help?", 1200, first_delta_ms=40)], default=goodbye, transcription_delay_ms=20
    )
    async with trio.open_nursery() as outside:
        model = OutsideModel(script, outside)
        quick: dict[str, Any] = {"greeting_protect_ms": 100, "vad_silence_ms": 100}
        async with open_services(model.connector(), **quick) as services:
            async with open_faulty_call(services) as (stream, leg), trio.open_nursery() as nursery:
                services.rest.streams[CALL_SID] = stream

                @nursery.start_soon
                async def _caller() -> None:
                    await stream.until_heard_ms(300)
                    stream.say(tone(120))

                while not services.calls.active:  # noqa: ASYNC110 - a call is no event of the house
                    await trio.lowlevel.checkpoint()
                await trio.sleep(at_ms / 1000)
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                await strike(fault, services, script, stream)
                with trio.move_on_after(12.0):
                    await leg.over.wait()
                nursery.cancel_scope.cancel(reason="the call is over")
                await stream.hang_up()
            # A server whose client is gone in the middle of the handshake only notices at its bound.
            await trio.sleep(HANDSHAKE_S + 1.0)
            left_open = model.serving
            outside.cancel_scope.cancel(reason="the test is over")
    assert_over(services)
    record = record_of(services)
    assert not set(NEVER) & set(counts(record))
    assert not stream.protocol_errors
    assert not left_open
    hung_up_by_us = record.outcome not in (Outcome.CALLER_HUNG_UP, Outcome.TRANSFERRED)
    assert services.rest.hung_up == [CALL_SID] * hung_up_by_us


@given(st.sampled_from(FAULTS), st.integers(0, 1200), st.integers(0, 12), st.integers(0, 999))
@settings(
    max_examples=40, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
def test_a_fault_at_any_moment_leaves_nothing_behind(fault: str, at_ms: int, passes: int, seed: int) -> None:
    """Whatever happens, whenever, in whatever order of tasks, the call ends whole.

    One record, kept and handed over; nothing left in the house; the caller's leg hung up by us unless the caller
    did; the carrier saw no nonsense; the model saw the end of each of its sockets; nothing of ours failed.
    """
    run_in_order(lambda: call_with_a_fault(fault, at_ms, passes), seed, MockClock(autojump_threshold=0))


def random_answer(chance: random.Random, number: int) -> Answer:
    tool = None
    if number and chance.random() < 0.25:
        tool = ScriptedToolCall("book")
    return Answer(
        f"Answer {number} with some words in it.",
        chance.choice([0, 200, 800, 2000, 4000] if tool else [200, 800, 2000, 4000]),
        tool_call=tool,
        speed=chance.choice([None, 1.1, 2, 4]),
        first_delta_ms=chance.choice([0, 20, 200, 700]),
        created_ms=chance.choice([0, 0, 0, 50, 400]),
    )


async def lively_call(chance: random.Random) -> None:
    """The caller talks, presses keys and loses frames at random; the model is odd, and disconnects."""
    faults = Faults(
        duplicate_created=chance.random() < 0.1,
        duplicate_done=chance.random() < 0.1,
        early_done=chance.random() < 0.1,
        busy_error=chance.random() < 0.5,
        stray_delta=chance.random() < 0.1,
        speech_started_delay_ms=chance.choice([0, 0, 100]),
    )
    model = ScriptedRealtime(
        [random_answer(chance, number) for number in range(40)],
        faults=faults,
        cancel_lag_ms=chance.choice([0, 0, 60, 200]),
        default=Answer("Default.", 500),
    )
    desk = Desk(takes_s=chance.choice([0.0, 0.05, 0.5, 1.5, 3.0]))
    tools = (make_tool(desk.book, writes=chance.random() < 0.5),)
    async with (
        open_services(
            memory_realtime(lambda: model), tools=tools, vad_silence_ms=chance.choice([100, 300, 500])
        ) as services,
        open_faulty_call(services) as (stream, _),
    ):
        for _ in range(chance.randrange(3, 12)):
            await trio.sleep(chance.choice([0, 0.02, 0.1, 0.3, 0.7, 1.5, 3]))
            what = chance.random()
            if what < 0.6:
                stream.say(tone(chance.choice([120, 200, 300, 800])))
            elif what < 0.7:
                stream.press(chance.choice("12#"))
            elif what < 0.8 and model.sessions:
                model.disconnect(drop=chance.random() < 0.5)
            elif what < 0.85:
                stream.lose(10)
        await stream.until_said()
        await trio.sleep(chance.choice([0, 0.05, 0.2, 0.5, 1.0]))
        stream.say(tone(chance.choice([200, 500])))
        await stream.until_said()
        silent_s = await until_spoken_to(stream, 12.0)
        await stream.hang_up()
    record = record_of(services)
    assert not {*NEVER, "MODEL_GIVEN_UP"} & set(counts(record))
    assert not stream.protocol_errors
    assert {error["code"] for error in model.errors_sent} <= HARMLESS
    assert silent_s < 12.0


@given(st.integers(0, 2**20))
@settings(
    max_examples=10, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
def test_a_lively_call_with_an_odd_model_is_served(seed: int) -> None:
    """Nothing of ours fails, the model is asked for nothing absurd, and who speaks last is answered."""
    run_in_order(lambda: lively_call(random.Random(seed)), seed, MockClock(autojump_threshold=0))  # noqa: S311

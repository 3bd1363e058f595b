"""The model's sessions one after the other: what begins them, ends them, and what is tried how often (D11)."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from agent.core.audio_format import ULAW_8K
from agent.core.errors import HandshakeRejectedError, ModelUnavailableError, SocketClosedError
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from agent.model.events import AudioDelta, ModelEvent, OtherEvent
from agent.model.outbox import ModelOutbox
from agent.model.session import (
    OPENED_S,
    OUTAGE_S,
    PING_BOUND_S,
    PING_EVERY_S,
    RENEW_AFTER_S,
    RENEW_AT_LATEST_S,
    RETRY_PAUSES_S,
    SILENT_S,
    STABLE_AFTER_S,
    STUCK_S,
    WATCH_S,
    ModelSessions,
    SessionUser,
)
from agent.wire.websocket import MessageSocket

CREATED = '{"type":"session.created","session":{"id":"s"}}'
SETTINGS: dict[str, Any] = {
    "type": "realtime",
    "audio": {
        "input": {
            "format": ULAW_8K.declare(),
            "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": False},
        },
        "output": {"format": ULAW_8K.declare(), "voice": "marin"},
    },
}


def updated(session: dict[str, Any] = SETTINGS) -> str:
    return json.dumps({"type": "session.updated", "session": session})


@attrs.define(eq=False)
class ModelEnd(MessageSocket):
    """One socket of a model: says what the test puts in, keeps what it is told."""

    opened_s: float
    told: list[tuple[float, str]] = attrs.field(factory=list)
    closed_s: float | None = None
    answers_pings: bool = True
    takes_s: float = 0.0
    confirms: bool = True
    """Whether it answers ``session.update``."""
    _in: trio.MemorySendChannel[str | SocketClosedError] = attrs.field(init=False)
    _out: trio.MemoryReceiveChannel[str | SocketClosedError] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[str | SocketClosedError](math.inf)

    def says(self, event: str) -> None:
        """The model sends an event."""
        self._in.send_nowait(event)

    def breaks(self) -> None:
        """The connection is gone."""
        self._in.send_nowait(SocketClosedError(1006))

    async def receive(self) -> str:
        """See MessageSocket."""
        event = await self._out.receive()
        if isinstance(event, SocketClosedError):
            raise event
        return event

    async def send(self, message: str | bytes, may_send: object = None) -> bool:
        """See MessageSocket."""
        assert isinstance(message, str)
        await trio.sleep(self.takes_s)
        self.told.append((trio.current_time(), message))
        if is_update(message) and self.confirms:
            self.says(updated(json.loads(message)["session"]))
        return True

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See MessageSocket."""

    async def ping(self) -> None:
        """See MessageSocket."""
        if not self.answers_pings:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()


Refusal = Exception
"""What opening a socket raises instead."""


@attrs.define(eq=False)
class Model:
    """A model that can be reached, refuses, or hangs: ``plan`` says what each try meets, and then it is there."""

    plan: list[Refusal | None] = attrs.field(factory=list)
    greets: bool = True
    tries_s: list[float] = attrs.field(factory=list)
    ends: list[ModelEnd] = attrs.field(factory=list)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[MessageSocket]:
        """See Connector."""
        self.tries_s.append(trio.current_time())
        meets = self.plan.pop(0) if self.plan else None
        await trio.lowlevel.checkpoint()
        if meets is not None:
            raise meets
        end = ModelEnd(trio.current_time())
        self.ends.append(end)
        if self.greets:
            end.says(CREATED)
        try:
            yield cast("MessageSocket", end)
        finally:
            end.closed_s = trio.current_time()

    @property
    def now_there(self) -> ModelEnd:
        """The present session's socket."""
        return self.ends[-1]


@attrs.define(eq=False)
class Desk(SessionUser):
    """The user of a model leg: its model, and all it told."""

    model: Model
    outbox: ModelOutbox = attrs.field(factory=lambda: ModelOutbox(lambda: None))
    leg: ModelSessions = attrs.field(init=False)
    events: list[ModelEvent] = attrs.field(factory=list)
    lost_s: list[float] = attrs.field(factory=list)
    quiet: bool = False
    answer_due: bool = False
    unheard_voice: bool = False
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        self.leg = ModelSessions(self.model.connect, self.outbox, EventLog(Telemetry()), self)

    def count(self, event: str) -> int:
        """How often an event was counted."""
        return self.leg.events.counts[event]

    @override
    def settings(self) -> dict[str, Any]:
        return copy.deepcopy(SETTINGS)

    @override
    def ready(self) -> list[str]:
        """One message that numbers the session."""
        return [f"opening {self.leg.sessions}"]

    @override
    def on_audio(self, event: AudioDelta) -> None:
        self.events.append(event)

    @override
    def on_event(self, event: ModelEvent) -> None:
        self.events.append(event)

    @override
    def lost(self) -> None:
        self.lost_s.append(trio.current_time())

    @override
    def next_event_id(self) -> str:
        return f"event {next(self._ids)}"


@asynccontextmanager
async def open_desk(model: Model) -> AsyncIterator[Desk]:
    """A leg that runs; left, it is cancelled."""
    desk = Desk(model)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.leg.run)
        await wait_all_tasks_blocked()
        yield desk
        nursery.cancel_scope.cancel()


def is_update(message: str) -> bool:
    return '"session.update"' in message


def texts(end: ModelEnd) -> list[str]:
    """What it was told, its settings apart."""
    return [text for _, text in end.told if not is_update(text)]


def settings_told(end: ModelEnd) -> list[dict[str, Any]]:
    return [json.loads(text)["session"] for _, text in end.told if is_update(text)]


async def test_a_session_begins_with_its_opening_and_then_what_waited(autojump_clock: MockClock) -> None:
    desk = Desk(Model())
    desk.outbox.put_audio("audio")
    with trio.move_on_after(1):
        await desk.leg.run()
    assert texts(desk.model.now_there) == ["opening 1", "audio"]
    assert desk.leg.reconnects == 0


async def test_nothing_is_written_before_the_session_began(autojump_clock: MockClock) -> None:
    """What is written to a session that never begins would be lost with it."""
    async with open_desk(Model(greets=False)) as desk:
        desk.outbox.put_audio("audio")
        await trio.sleep(2)
        assert desk.model.now_there.told == []
        desk.model.now_there.says(CREATED)
        await trio.sleep(0.1)
        assert texts(desk.model.now_there) == ["opening 1", "audio"]


async def test_a_second_session_created_opens_nothing_again(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        desk.model.now_there.says(CREATED)
        await trio.sleep(1)
        assert texts(desk.model.now_there) == ["opening 1"]
        assert desk.leg.sessions == 1


async def test_what_cannot_be_read_is_counted_and_the_session_goes_on(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        for raw in (
            "no json",
            "[]",
            '{"type":"response.output_audio.delta","delta":"?"}',
            '{"type":"ping.pong"}',
        ):
            desk.model.now_there.says(raw)
        await trio.sleep(1)
        assert desk.count("MODEL_JSON") == 1
        assert desk.count("MODEL_FIELD") == 1
        assert desk.count("MODEL_BASE64") == 1
        assert desk.events == [OtherEvent("ping.pong")]
        assert len(desk.model.ends) == 1


async def test_d11_a_lost_session_is_replaced_at_once(autojump_clock: MockClock) -> None:
    """Told as lost before the next one opens; events of the old one that were not written are gone with it."""
    async with open_desk(Model()) as desk:
        await trio.sleep(1)
        desk.model.now_there.takes_s = 1e9
        desk.outbox.put("being written")
        desk.outbox.put("response.cancel")
        desk.outbox.put_audio("audio")
        await wait_all_tasks_blocked()
        lost_s = trio.current_time()
        desk.model.now_there.breaks()
        await trio.sleep(2)
        assert desk.lost_s == [pytest.approx(lost_s, abs=0.6)], "after the writer's grace"
        assert len(desk.model.ends) == 2
        assert texts(desk.model.now_there) == ["opening 2", "audio"]
        assert desk.leg.reconnects == 1
        assert desk.count("MODEL_SESSION_LOST") == 1


@pytest.mark.parametrize(
    "refusal",
    [
        OSError("no route"),
        SocketClosedError(1006),
        trio.TooSlowError(),
        HandshakeRejectedError(429),
        HandshakeRejectedError(503),
    ],
    ids=repr,
)
async def test_d11_a_model_that_is_away_for_a_moment_is_tried_again(
    autojump_clock: MockClock, refusal: Refusal
) -> None:
    async with open_desk(Model([refusal, refusal])) as desk:
        await trio.sleep(1)
        assert len(desk.model.ends) == 1
        assert desk.model.tries_s == [0.0, RETRY_PAUSES_S[0], RETRY_PAUSES_S[0] + RETRY_PAUSES_S[1]]
        assert desk.leg.reconnects == 0, "no session was lost that had begun"


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_for_good_is_not_tried_again(autojump_clock: MockClock, status: int) -> None:
    desk = Desk(Model([HandshakeRejectedError(status, "no")]))
    with pytest.raises(ModelUnavailableError, match=str(status)):
        await desk.leg.run()
    assert len(desk.model.tries_s) == 1


def away(tries: int) -> list[Refusal | None]:
    return [OSError("away") for _ in range(tries)]


async def test_a_model_that_stays_away_is_given_up_after_the_last_pause(autojump_clock: MockClock) -> None:
    desk = Desk(Model(away(100)))
    with pytest.raises(ModelUnavailableError, match="away"):
        await desk.leg.run()
    assert len(desk.model.tries_s) == len(RETRY_PAUSES_S) + 1
    assert trio.current_time() == pytest.approx(sum(RETRY_PAUSES_S))


async def test_the_pauses_begin_anew_after_a_good_session(autojump_clock: MockClock) -> None:
    """Every hour something happens: a call of many hours is not ended for it."""
    async with open_desk(Model()) as desk:
        for _ in range(20):
            await trio.sleep(STABLE_AFTER_S + 1)
            desk.model.plan = away(2)
            desk.model.now_there.breaks()
            await trio.sleep(1)
        assert desk.leg.reconnects == 20


async def test_sessions_that_break_at_once_are_not_opened_for_ever(autojump_clock: MockClock) -> None:
    """Each begins and is lost within a second: that is no model to talk to."""
    desk = Desk(Model())

    async def break_each() -> None:
        while True:
            await trio.sleep(0.5)
            if desk.model.ends and desk.model.now_there.closed_s is None:
                desk.model.now_there.breaks()

    with trio.fail_after(60), pytest.RaisesGroup(ModelUnavailableError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_each)
            nursery.start_soon(desk.leg.run)
    assert len(desk.model.ends) == len(RETRY_PAUSES_S) + 1


async def test_sockets_that_open_but_never_begin_are_given_up_in_time(autojump_clock: MockClock) -> None:
    desk = Desk(Model(greets=False))
    with pytest.raises(ModelUnavailableError, match="silent"):
        await desk.leg.run()
    assert trio.current_time() <= OUTAGE_S + OPENED_S + 2 * WATCH_S
    assert desk.leg.sessions == 0


async def test_a_model_that_is_silent_when_an_answer_is_due_is_replaced(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(50)
        assert len(desk.model.ends) == 1, "nothing was due"
        desk.answer_due = True
        for _ in range(5):
            await trio.sleep(SILENT_S - 2 * WATCH_S)
            desk.model.now_there.says('{"type":"response.output_audio.delta.like"}')
        assert len(desk.model.ends) == 1, "it was heard from"
        desk.model.now_there.confirms = False
        await trio.sleep(SILENT_S + 2 * WATCH_S)
        assert len(desk.model.ends) == 2


async def test_mo_4_a_model_that_lives_but_says_nothing_of_an_answer_is_replaced(
    autojump_clock: MockClock,
) -> None:
    """It answers our questions whether it is there, and nothing else."""
    async with open_desk(Model()) as desk:
        await trio.sleep(STABLE_AFTER_S)
        desk.answer_due = True
        await trio.sleep(STUCK_S - WATCH_S)
        assert len(desk.model.ends) == 1
        await trio.sleep(3 * WATCH_S)
        assert len(desk.model.ends) == 2


@pytest.mark.parametrize("deaf", [True, False])
async def test_mo_4_a_model_that_did_not_hear_the_caller_is_asked_whether_it_is_there(
    autojump_clock: MockClock, *, deaf: bool
) -> None:
    """Words by our own ear, and nothing of the model: deaf, it is replaced; if it answers, it heard but noise."""
    async with open_desk(Model()) as desk:
        desk.model.now_there.confirms = not deaf
        desk.unheard_voice = True
        await trio.sleep(SILENT_S + 2 * WATCH_S)
        assert len(desk.model.ends) == 1 + deaf


async def test_mo_1_what_is_refused_is_left_out_and_nothing_is_said_before(autojump_clock: MockClock) -> None:
    model = Model(greets=False)
    async with open_desk(model) as desk:
        end = model.now_there
        end.confirms = False
        end.says(CREATED)
        await trio.sleep(0.1)
        refused = {"message": "retired", "param": "session.audio.output.voice", "event_id": "event 1"}
        end.says(json.dumps({"type": "error", "error": refused}))
        await trio.sleep(0.1)
        first, second = settings_told(end)
        assert first["audio"]["output"].pop("voice") == "marin"
        assert second == first
        assert texts(end) == []
        end.says(updated(second))
        await trio.sleep(0.1)
        assert texts(end) == ["opening 1"]
        assert desk.count("MODEL_SETTING_REFUSED") == 1


@pytest.mark.parametrize(
    "param", ["session.audio.output.format", "session.audio.input.turn_detection.type", None]
)
async def test_mo_1_without_the_calls_format_there_is_no_call(
    autojump_clock: MockClock, param: str | None
) -> None:
    model = Model(greets=False)
    desk = Desk(model)

    async def refuse() -> None:
        await trio.sleep(0.1)
        model.now_there.confirms = False
        model.now_there.says(CREATED)
        await trio.sleep(0.1)
        error = {"message": "no", "param": param, "event_id": "event 1"}
        model.now_there.says(json.dumps({"type": "error", "error": error}))

    with trio.fail_after(10), pytest.RaisesGroup(ModelUnavailableError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            nursery.start_soon(desk.leg.run)
    assert trio.current_time() < 1


@pytest.mark.parametrize("way", ["input", "output"])
async def test_mo_1_a_format_that_is_not_confirmed_is_not_played(autojump_clock: MockClock, way: str) -> None:
    """The provider's default, 16 bits at 24 kHz, would be noise."""
    model = Model(greets=False)
    desk = Desk(model)

    async def confirm_another() -> None:
        await trio.sleep(0.1)
        model.now_there.confirms = False
        model.now_there.says(CREATED)
        session = copy.deepcopy(SETTINGS)
        session["audio"][way]["format"] = {"type": "audio/pcm", "rate": 24000}
        model.now_there.says(updated(session))

    with trio.fail_after(10), pytest.RaisesGroup(ModelUnavailableError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(confirm_another)
            nursery.start_soon(desk.leg.run)
    assert desk.events == []


async def test_a_model_that_answers_no_ping_is_replaced(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(5 * PING_EVERY_S)
        assert len(desk.model.ends) == 1
        desk.model.now_there.answers_pings = False
        await trio.sleep(PING_EVERY_S + PING_BOUND_S + 1)
        assert len(desk.model.ends) == 2


async def test_a_session_near_its_limit_is_renewed_when_nobody_speaks(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(RENEW_AFTER_S + 60)
        assert len(desk.model.ends) == 1, "somebody speaks"
        desk.quiet = True
        await trio.sleep(1)
        assert len(desk.model.ends) == 2
        assert (desk.count("MODEL_SESSION_RENEWED"), desk.count("MODEL_SESSION_LOST")) == (1, 0)


async def test_a_session_is_renewed_at_the_latest_a_minute_before_its_limit(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(RENEW_AT_LATEST_S - 1)
        assert len(desk.model.ends) == 1
        await trio.sleep(2)
        assert len(desk.model.ends) == 2


async def test_renewing_on_purpose_opens_another(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(20)
        desk.leg.renew("expired")
        await trio.sleep(1)
        assert len(desk.model.ends) == 2
        assert desk.count("MODEL_SESSION_RENEWED") == 1


async def test_renewing_between_two_sessions_is_nothing(autojump_clock: MockClock) -> None:
    async with open_desk(Model(away(2))) as desk:
        desk.leg.renew("expired")
        await trio.sleep(1)
        assert len(desk.model.ends) == 1
        assert desk.count("MODEL_SESSION_RENEWED") == 0


async def test_a_cancel_ends_the_writer_between_messages_and_closes_the_socket(
    autojump_clock: MockClock,
) -> None:
    """The message under way is finished, no other is begun, and all of it takes less than a second."""
    async with open_desk(Model()) as desk:
        await trio.sleep(1)
        end = desk.model.now_there
        end.takes_s = 0.3
        for text in ("first", "second", "third"):
            desk.outbox.put(text)
        await trio.sleep(0.4)
        cancelled_s = trio.current_time()
    assert texts(end) == ["opening 1", "first", "second"]
    assert end.closed_s is not None
    assert end.closed_s - cancelled_s == pytest.approx(0.2)


async def test_a_cancel_does_not_wait_for_a_stuck_model(autojump_clock: MockClock) -> None:
    async with open_desk(Model()) as desk:
        await trio.sleep(1)
        desk.model.now_there.takes_s = 1e9
        desk.outbox.put("never written")
        await trio.sleep(0.1)
        cancelled_s = trio.current_time()
    assert trio.current_time() - cancelled_s < 1


async def test_an_error_of_the_calls_own_is_not_taken_for_a_lost_session(autojump_clock: MockClock) -> None:
    """A mistake in what handles an event ends the call with that mistake, not in another session."""

    class Faulty(Desk):
        @override
        def on_event(self, event: ModelEvent) -> None:
            raise KeyError("a bug")

    desk = Faulty(Model())
    desk.answer_due = True  # so that the model is asked for a sign of life, and gives one
    with trio.fail_after(10), pytest.RaisesGroup(KeyError):
        await desk.leg.run()
    assert len(desk.model.ends) == 1

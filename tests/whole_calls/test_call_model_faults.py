"""Faults of the model in whole calls: unreachable, lost at every stage, deaf, refusing, out of order.

Each has its outcome in the record and is counted, the caller hears as much as can be heard, and nothing is left.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import pytest
import trio
from fault_calls import (
    GREETING,
    LONG,
    SHORT,
    a_neighbour,
    assert_over,
    open_faulty_call,
    open_one_call,
    record_of,
)
from trio.testing import MockClock
from unkind_models import edit_events, until_spoken_to
from virtual_call import CALL_SID, FakeServices, counts, open_services, received

from agent.call.answers.response_requests import FAILED_PAUSE_S
from agent.call.prompts import UNAVAILABLE, prompt
from agent.core.audio_format import ULAW_8K
from agent.core.errors import HandshakeRejectedError
from agent.core.records import Outcome
from agent.core.task_nursery import open_task_nursery
from agent.model.server_shapes import ErrorDetails
from agent.model.session import Connector
from agent.sim.link import memory_link
from agent.sim.memory import Connect, memory_realtime
from agent.sim.model.script import RATE_LIMITED, SERVER_ERROR, Answer, Faults, Milestone
from agent.sim.model.server import ScriptedRealtime
from agent.sim.model.session import ModelSession
from agent.sim.sounds import numbers_in, tone
from agent.wire.websocket import MessageSocket, TrioWebSocket, open_client_over

EXPIRED = ErrorDetails("invalid_request_error", "session_expired", "Your session hit the maximum duration.")
NO_QUOTA = ErrorDetails("insufficient_quota", "insufficient_quota", "You exceeded your current quota.")


def raising(error: Exception, after_s: float = 0.0) -> Connector:
    """A model to which no connection succeeds."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[MessageSocket]:
        await trio.sleep(after_s)
        raise error
        yield

    return connect


def answering(head: bytes) -> Connector:
    """A server that answers the WebSocket handshake with ``head``, and then is silent."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[MessageSocket]:
        ours, theirs = memory_link()

        async def serve() -> None:
            await theirs.receive_some()
            await theirs.send_all(head)

        async with open_task_nursery() as tasks:
            tasks.start_soon(serve)
            async with open_client_over(ours, "model", "/v1/realtime") as socket:
                yield socket

    return connect


class Mute:
    """A model that accepts the connection and never says a word."""

    async def serve(self, socket: TrioWebSocket, link: object = None) -> None:
        """See RealtimeServer."""
        del socket, link
        await trio.sleep_forever()


def failing_first(connect: Connect, *errors: Exception) -> Connect:
    """A model that cannot be reached at the first tries."""
    left = list(errors)

    @asynccontextmanager
    async def connect_at_last() -> AsyncIterator[TrioWebSocket]:
        if left:
            raise left.pop(0)
        async with connect() as socket:
            yield socket

    return connect_at_last


UNREACHABLE: dict[str, tuple[Connector, float]] = {
    "refused": (raising(OSError("refused")), 4.5),
    "name not found": (raising(OSError("no such host")), 4.5),
    "no route for five seconds": (raising(trio.TooSlowError(), 5.0), 11.0),
    "HTTP 401": (raising(HandshakeRejectedError(401, "Incorrect API key")), 0.5),
    "HTTP 404": (raising(HandshakeRejectedError(404, "no such model")), 0.5),
    "HTTP 500": (raising(HandshakeRejectedError(500)), 4.5),
    "HTTP 429": (raising(HandshakeRejectedError(429)), 4.5),
    "a real HTTP 403": (answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"), 0.5),
    "a real HTTP 503": (answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), 4.5),
    "no HTTP at all": (answering(b"SSH-2.0-OpenSSH_9.6\r\n"), 11.0),
    "silence after accepting": (memory_realtime(Mute), 13.0),
    "closed before session.created": (
        memory_realtime(lambda: ScriptedRealtime(faults=Faults(close_at=Milestone.CONNECTED))),
        4.5,
    ),
    "dropped before session.created": (
        memory_realtime(lambda: ScriptedRealtime(faults=Faults(close_at=Milestone.CONNECTED, drop=True))),
        4.5,
    ),
}


NOTICEABLE = ("a real HTTP 403", "silence after accepting", "dropped before session.created")
"""A call beside it costs half a second of testing: it stands beside these."""


def maybe_a_neighbour(services: FakeServices, *, wanted: bool) -> AbstractAsyncContextManager[None]:
    """A healthy call beside the one under test, or none."""
    return a_neighbour(services) if wanted else nullcontext()


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_a_model_that_cannot_be_reached_is_said_to_the_caller(autojump_clock: MockClock, name: str) -> None:
    """The caller hears the bundled prompt in time, whole; the leg is hung up; MODEL_UNAVAILABLE is recorded."""
    connect, at_most_s = UNREACHABLE[name]
    async with open_services(connect) as services, maybe_a_neighbour(services, wanted=name in NOTICEABLE):
        async with open_faulty_call(services) as (stream, leg):
            await leg.over.wait()
        record = record_of(services)
        apology = prompt(UNAVAILABLE, ULAW_8K)
        assert record.outcome is Outcome.MODEL_UNAVAILABLE
        assert stream.playback.tape.audio()[: len(apology)] == apology
        assert stream.playback.underruns == []
        assert record.metrics.first_audio_ms is not None
        assert record.metrics.first_audio_ms <= at_most_s * 1000
        assert services.rest.hung_up == [CALL_SID]
        assert counts(record)["MODEL_GIVEN_UP"] == 1
        assert counts(record)["CALL_ERROR"] == 0
    assert_over(services)


async def test_a_model_reached_at_the_third_try_greets(autojump_clock: MockClock) -> None:
    """Two refusals, then an answer: half a second later than usual the caller hears the greeting, once."""
    model = ScriptedRealtime([GREETING])
    connect = failing_first(memory_realtime(lambda: model), OSError("refused"), HandshakeRejectedError(503))
    async with open_services(connect) as services, open_faulty_call(services) as (stream, _):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        await stream.hang_up()
    record = record_of(services)
    assert record.turns[0].heard_text == GREETING.text
    assert counts(record)["MODEL_SESSION_LOST"] == 2
    assert record.metrics.reconnects == 0
    assert len(received(model, "response.create")) == 1


def texts(model: ScriptedRealtime, session: int) -> list[tuple[str, str]]:
    """Who said what, as a session was told."""
    created = [event["item"] for _, event in model.sessions[session].received if "item" in event]
    return [(item["role"], item["content"][0]["text"]) for item in created if item["type"] == "message"]


@pytest.mark.parametrize("drop", [False, True], ids=["close frame", "dropped"])
@pytest.mark.parametrize("stage", Milestone)
async def test_a_session_lost_at_any_stage_is_replaced(
    autojump_clock: MockClock, stage: Milestone, *, drop: bool
) -> None:
    """Reconnect; the greeting is said once, or again only if nothing of it was; the call goes on to its end."""
    faults = Faults(sessions=1, close_at=stage, drop=drop, after_appends=15)
    model = ScriptedRealtime([GREETING, LONG, SHORT, SHORT], faults=faults)
    async with (
        open_services(memory_realtime(lambda: model)) as services,
        maybe_a_neighbour(services, wanted=drop),
    ):
        async with open_faulty_call(services) as (stream, _):
            await trio.sleep(5)
            await stream.until_quiet(0.5)
            heard_ms = stream.heard_ms()
            stream.say(tone(500))
            await trio.sleep(6)
            await stream.hang_up()
        record = record_of(services)
        assert record.outcome is Outcome.CALLER_HUNG_UP
        assert len(model.sessions) == 2
        assert counts(record)["MODEL_SESSION_LOST"] == 1
        assert record.metrics.reconnects == (0 if stage is Milestone.CONNECTED else 1)
        assert model.errors_sent == []
        assert stream.heard_ms() >= heard_ms + 800, "the caller's turn after it was answered"
        greetings = [event for event in received(model, "response.create") if "Say exactly" in str(event)]
        assert numbers_in(stream.playback.tape.audio())[0] > 0, "the greeting was heard"
        begun = stage in (Milestone.ANSWERING, Milestone.APPENDED)
        assert len(greetings) == 1
        if begun:
            [(role, text)] = texts(model, 1)
            assert role == "assistant"
            assert text
            assert GREETING.text.startswith(text)
        assert stream.playback.underruns == []
    assert_over(services)


async def test_after_a_loss_the_new_session_knows_what_was_heard_and_answers(autojump_clock: MockClock) -> None:
    """Greeting cut short by a barge-in, a turn, its answer lost half-way: told as heard, and answered again."""
    model = ScriptedRealtime([GREETING, Answer(LONG.text, 4000, speed=1.2), SHORT], transcripts=["What hours?"])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        stream.say(tone(500))
        await stream.until_said()
        await trio.sleep(2.5)
        model.disconnect(drop=True)
        await trio.sleep(8)
        await stream.hang_up()
    record = record_of(services)
    greeting, caller, lost, again = record.turns
    assert texts(model, 1) == [
        ("assistant", greeting.heard_text),
        ("user", "What hours?"),
        ("assistant", lost.heard_text),
    ]
    assert greeting.interrupted
    assert greeting.heard_text != greeting.text
    assert (caller.text, again.heard_text) == ("What hours?", SHORT.text)
    assert LONG.text.startswith(lost.heard_text)
    assert not lost.complete
    requests = [event["response"]["metadata"]["purpose"] for event in received(model, "response.create")]
    assert requests == ["greeting", "turn"]
    assert model.errors_sent == []


async def test_a_turn_whose_words_were_lost_is_told_as_lost(autojump_clock: MockClock) -> None:
    """The session dies between the end of a turn and its transcript: the next one knows that there was a turn."""
    slow = Answer(SHORT.text, 800, first_delta_ms=3000)
    model = ScriptedRealtime([SHORT, slow, SHORT], transcription_delay_ms=2000)
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        stream.say(tone(500))
        await trio.sleep(1.5)
        model.disconnect()
        await trio.sleep(5)
        await stream.hang_up()
    (_, greeting), (role, words) = texts(model, 1)
    assert (greeting, role) == (SHORT.text, "user")
    assert "lost" in words
    assert record_of(services).turns[-1].heard_text == SHORT.text


async def test_caller_audio_of_the_gap_is_delivered(autojump_clock: MockClock) -> None:
    """What the caller says while there is no session reaches the next one, whole, and is answered."""
    words = tone(600)
    model = ScriptedRealtime([SHORT, LONG], record_audio=True)
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        model.faults = Faults(sessions=3, close_at=Milestone.CONNECTED)
        model.disconnect(drop=True)
        stream.say(words)
        await trio.sleep(6)
        await stream.hang_up()
    record = record_of(services)
    assert words in bytes(model.session.appended)
    assert counts(record)["CALLER_AUDIO_DROPPED"] == 0
    assert record.turns[-1].heard_text == LONG.text
    assert counts(record)["MODEL_SESSION_LOST"] == 3


async def test_a_model_lost_for_good_is_said_to_the_caller(autojump_clock: MockClock) -> None:
    """Lost in the middle of an answer for good: what was received is heard, then the apology: MODEL_LOST."""
    model = ScriptedRealtime([GREETING], faults=Faults(sessions=1))
    connects = [memory_realtime(lambda: model), *[raising(OSError("refused"))] * 9]

    @asynccontextmanager
    async def connect() -> AsyncIterator[MessageSocket]:
        async with connects.pop(0)() as socket:
            yield socket

    async with open_services(connect) as services, a_neighbour(services):
        async with open_faulty_call(services, at_most_s=30) as (stream, leg):
            await stream.until_heard_ms(1000)
            model.disconnect(drop=True)
            await leg.over.wait()
        record = record_of(services)
        assert record.outcome is Outcome.MODEL_LOST
        assert stream.playback.tape.audio().count(prompt(UNAVAILABLE, ULAW_8K)) == 1
        assert 1000 * 8 < numbers_in(stream.playback.tape.audio())[0] <= 3010 * 8
        assert services.rest.hung_up == [CALL_SID]
        assert counts(record)["MODEL_GIVEN_UP"] == 1
    assert_over(services)


async def test_a_model_that_hangs_after_a_loss_is_given_up_in_time(autojump_clock: MockClock) -> None:
    """No try begins after six seconds without the model, however long each takes: bounded silence."""
    model = ScriptedRealtime([SHORT])
    connects = [memory_realtime(lambda: model), *[raising(trio.TooSlowError(), 5.0)] * 9]

    @asynccontextmanager
    async def connect() -> AsyncIterator[MessageSocket]:
        async with connects.pop(0)() as socket:
            yield socket

    async with open_services(connect) as services, open_faulty_call(services, at_most_s=40) as (stream, leg):
        await stream.until_heard_ms(800)
        model.disconnect()
        lost_s = trio.current_time()
        await leg.over.wait()
    events = {event.kind: event.t_ms for event in record_of(services).timeline}
    assert events["MODEL_GIVEN_UP"] <= (lost_s * 1000) + 11_000
    assert record_of(services).outcome is Outcome.MODEL_LOST


@pytest.mark.parametrize("stage", [Milestone.UPDATED, Milestone.ANSWERING, Milestone.APPENDED])
async def test_an_expired_session_is_renewed(autojump_clock: MockClock, stage: Milestone) -> None:
    """``session_expired``: another session, the call goes on."""
    model = ScriptedRealtime([GREETING, SHORT, SHORT], faults=Faults(sessions=1, error_at=(stage, EXPIRED)))
    async with open_one_call(model) as (services, stream, _):
        await trio.sleep(6)
        stream.say(tone(400))
        await trio.sleep(4)
        await stream.hang_up()
    record = record_of(services)
    assert len(model.sessions) == 2
    assert counts(record)["MODEL_ERROR"] == 1
    assert record.outcome is Outcome.CALLER_HUNG_UP
    assert record.turns[-1].heard_text == SHORT.text


@pytest.mark.parametrize("code", ["invalid_api_key", "insufficient_quota", "model_not_found"])
async def test_a_fatal_error_is_apologised_for_at_once(autojump_clock: MockClock, code: str) -> None:
    """No request can succeed any more: apology, hang-up, MODEL_LOST; repeated errors give up once."""
    model = ScriptedRealtime([GREETING])
    async with open_one_call(model, at_most_s=30) as (services, stream, leg):
        await stream.until_heard_ms(500)
        for _ in range(3):
            model.inject({"type": "error", "error": {"type": "x", "code": code, "message": "no more"}})
        began = trio.current_time()
        await leg.over.wait()
        assert trio.current_time() - began < 12
    record = record_of(services)
    assert record.outcome is Outcome.MODEL_LOST
    assert record.reason == "no more"
    assert (counts(record)["MODEL_ERROR"], counts(record)["MODEL_GIVEN_UP"]) == (3, 1)
    assert stream.playback.tape.audio().count(prompt(UNAVAILABLE, ULAW_8K)) == 1


async def test_answers_that_fail_are_asked_for_again_then_given_up(autojump_clock: MockClock) -> None:
    """Three answers in a row fail, with pauses between; then the apology."""
    model = ScriptedRealtime([GREETING], faults=Faults(fail_answers=SERVER_ERROR))
    async with open_one_call(model, at_most_s=40) as (services, stream, leg):
        await leg.over.wait()
    record = record_of(services)
    assert counts(record)["ANSWER_FAILED"] == 3
    assert record.outcome is Outcome.MODEL_LOST
    asked_s = [at_s for at_s, event in model.received if event["type"] == "response.create"]
    assert all(later - earlier >= FAILED_PAUSE_S for earlier, later in itertools.pairwise(asked_s))
    assert stream.playback.tape.audio().startswith(prompt(UNAVAILABLE, ULAW_8K))


async def test_an_answer_that_fails_once_is_given_after_all(autojump_clock: MockClock) -> None:
    """One failed answer: the turn is still owed, asked for again, heard; nothing is given up."""
    model = ScriptedRealtime([GREETING, SHORT, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(3000)
        await trio.sleep(0.5)
        stream.say(tone(400))
        await stream.until_said()
        await trio.sleep(0.3)
        model.session.faults = model.session._sender.faults = Faults(fail_answers=RATE_LIMITED)
        await trio.sleep(0.5)
        model.session.faults = model.session._sender.faults = Faults()
        await trio.sleep(8)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["ANSWER_FAILED"] == 1
    assert counts(record)["TURN_RECOVERED"] == 1
    assert record.turns[-1].heard_text == LONG.text


async def test_a_request_refused_by_an_error_event_is_made_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that names our ``response.create``: no answer comes of it, so it is asked for again (BI-6)."""
    model = ScriptedRealtime([SHORT, LONG])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(800)
        await trio.sleep(0.5)
        create = ModelSession._create

        def refuse_once(session: ModelSession, event: Mapping[str, Any], now: float) -> None:
            del now
            monkeypatch.setattr(ModelSession, "_create", create)
            session.error(RATE_LIMITED, event)

        monkeypatch.setattr(ModelSession, "_create", refuse_once)
        stream.press("1")
        stream.press("#")
        await trio.sleep(9)
        await stream.hang_up()
    record = record_of(services)
    assert counts(record)["ANSWER_FAILED"] == 1
    assert record.turns[-1].heard_text == LONG.text


async def test_a_failure_without_a_message_ends_its_response(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers fail with ``message: null``: the model is given up and the caller hears the apology."""

    def silence_errors(kind: str, fields: dict[str, Any]) -> None:
        if kind == "response.done" and fields["response"]["status"] == "failed":
            fields["response"]["status_details"]["error"]["message"] = None

    edit_events(monkeypatch, silence_errors)
    failing = Faults(fail_answers=ErrorDetails("server_error", "server_error", ""))
    async with open_one_call(ScriptedRealtime([GREETING], faults=failing)) as (services, stream, _):
        silent_s = await until_spoken_to(stream, 9.0)
        await stream.hang_up()
    assert counts(record_of(services))["ANSWER_FAILED"]
    assert silent_s < 9.0

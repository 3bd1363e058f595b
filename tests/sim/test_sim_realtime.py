"""The scripted Realtime server: every event has the provider's shape, every fault happens as asked for."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest
import trio
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from realtime_client import SPOKEN, Client, open_session, update
from trio.testing import MockClock

from agent.core.audio_format import ULAW_8K
from agent.core.errors import SocketClosedError
from agent.core.units import ItemId, ResponseId
from agent.model.requests import (
    encode_append,
    encode_item_delete,
    encode_response_cancel,
    encode_response_create,
    encode_session_update,
    encode_text_item,
    encode_tool_output,
    encode_truncate,
    make_session,
)
from agent.sim.memory import open_memory_sockets
from agent.sim.model.script import RATE_LIMITED, SERVER_ERROR, Answer, Faults, Milestone, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime, serve_realtime
from agent.sim.sounds import Utterance, numbered, numbers_in, silence, tone
from agent.wire.websocket import open_client

_server_event: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


async def answers_a_caller(client: Client, model: ScriptedRealtime) -> None:
    """The contract of a whole exchange, whatever carries it."""
    await client.send(
        update(silence_duration_ms=500, prefix_padding_ms=300), encode_response_create("ev_1", "hi")
    )
    await client.until("response.done")
    await client.speak()
    call = await client.until("response.function_call_arguments.done")
    await client.until("response.done", 2)
    await client.send(encode_tool_output(call["call_id"], '{"ok":true}', "ev_2"))
    await trio.sleep(0.3)
    assert len(client.of("response.created")) == 2, "a tool's output alone asks for nothing"
    await client.send(encode_response_create("ev_3", "tool"))
    await client.until("response.done", 3)
    assert client.garbage == []
    assert client.errors() == []
    assert model.errors_sent == []
    kinds = [event["type"] for _, event in client.events]
    assert kinds[:3] == ["session.created", "session.updated", "response.created"]
    assert kinds[3:7] == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
    ]
    first_done = kinds.index("response.done")
    assert kinds[first_done - 5 : first_done] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
    ]
    created = client.of("response.created")
    assert created[0]["response"]["metadata"] == {"purpose": "hi"}
    assert created[1]["response"]["metadata"] is None
    started, stopped = (
        client.of("input_audio_buffer.speech_started"),
        client.of("input_audio_buffer.speech_stopped"),
    )
    assert [event["audio_start_ms"] for event in started] == [100], "400 ms of silence less the padding"
    assert [event["audio_end_ms"] for event in stopped] == [1500]
    [committed] = client.of("input_audio_buffer.committed")
    assert committed["item_id"] == started[0]["item_id"] == stopped[0]["item_id"]
    [transcribed] = client.of("conversation.item.input_audio_transcription.completed")
    assert (transcribed["item_id"], transcribed["transcript"]) == (committed["item_id"], "שלום")
    assert model.session.conversation.tool_outputs == {call["call_id"]: '{"ok":true}'}
    assert (call["name"], call["arguments"]) == ("book", '{"day":"monday"}')
    assert [kind for _, event in model.received if (kind := event["type"])] == [
        "session.update",
        "response.create",
        "conversation.item.create",
        "response.create",
    ]
    assert model.session.vad.appended_ms == 1700


def three_answers() -> ScriptedRealtime:
    book = ScriptedToolCall("book", {"day": "monday"})
    answers = [Answer("Good morning to you.", 600), Answer("One moment.", 300, book), Answer("Done.", 300)]
    return ScriptedRealtime(answers, transcripts=["שלום"])


async def test_contract_in_virtual_time(autojump_clock: MockClock) -> None:
    model = three_answers()
    async with open_session(model) as client:
        await answers_a_caller(client, model)
    assert [response.status for response in model.session.responses] == ["completed"] * 3


@pytest.mark.sockets
async def test_contract_over_real_sockets() -> None:
    model = three_answers()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_realtime, 0, lambda: model)
            async with open_client(f"{url}?model=scripted") as socket:
                client = Client(socket)
                nursery.start_soon(client.run)
                await answers_a_caller(client, model)
            nursery.cancel_scope.cancel()


async def test_audio_comes_faster_than_it_plays_and_says_whose_it_is(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime([Answer("a b c d", 2000, speed=4.0), Answer("e", tone(500), speed=None)])
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"))
        await client.until("response.done")
        await client.send(encode_response_create("ev", "x"))
        await client.until("response.done", 2)
        first_audio, *_, last_audio = client.when("response.output_audio.delta")[:12]
        text_times = client.when("response.output_audio_transcript.delta")[:4]
    audio = decode_audio(client)
    assert audio == numbered(0, 2000) + tone(500)
    sizes = [len(delta["delta"]) * 3 // 4 // 100 for delta in client.of("response.output_audio.delta")]
    assert sizes[:4] == [8, 12, 20, 8]
    assert first_audio == pytest.approx(0.2)
    assert last_audio == pytest.approx(0.2 + 14000 / 8000 / 4)
    assert text_times[-1] < last_audio
    assert numbers_in(audio[:16000]) == {0: 16000}
    assert {response.number for response in model.session.responses} == {0, 1}


def decode_audio(client: Client) -> bytes:
    return b"".join(b64decode(delta["delta"]) for delta in client.of("response.output_audio.delta"))


async def test_a_cancel_ends_the_answer_and_is_an_error_when_there_is_none(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime([Answer("a b c", 4000, speed=2.0)])
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"))
        created = await client.until("response.created")
        await trio.sleep(0.61)
        response_id = ResponseId(created["response"]["id"])
        await client.send(encode_response_cancel(ResponseId("resp_other"), "ev_wrong"))
        await client.send(encode_response_cancel(response_id, "ev_right"))
        done = await client.until("response.done")
        deltas = len(client.of("response.output_audio.delta"))
        await client.send(encode_response_cancel(response_id, "ev_late"))
        await trio.sleep(5)
    assert done["response"]["status"] == "cancelled"
    assert done["response"]["status_details"]["reason"] == "client_cancelled"
    assert done["response"]["output"][0]["status"] == "incomplete"
    assert len(client.of("response.output_audio.delta")) == deltas > 0
    assert client.errors() == ["response_cancel_not_active"] * 2
    assert [error["event_id"] for error in model.errors_sent] == ["ev_wrong", "ev_late"]


async def test_deltas_may_follow_a_cancel_for_a_while(autojump_clock: MockClock) -> None:
    """As with the real one: what is on its way is not recalled."""
    model = ScriptedRealtime([Answer("a", 4000, speed=1.0)], cancel_lag_ms=300)
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"))
        await trio.sleep(1.01)
        before = len(client.of("response.output_audio.delta"))
        assert model.session.active is not None
        await client.send(encode_response_cancel(ResponseId(model.session.active.id), "ev"))
        await client.send(encode_response_cancel(ResponseId(model.session.active.id), "ev"))
        await client.until("response.done")
    assert len(client.of("response.output_audio.delta")) > before
    assert client.when("response.done") == pytest.approx([1.31])
    assert client.errors() == ["response_cancel_not_active"], "the second of two"


async def test_a_cancel_before_response_created_cancels_at_birth(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime([Answer("a", 1000, created_ms=200)])
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"), '{"type":"response.cancel"}')
        await client.until("response.done")
    assert client.when("response.created") == client.when("response.done") == [0.2]
    assert client.of("response.output_item.added") == []


async def test_truncate_is_refused_beyond_what_there_is(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime([Answer("a", 1000)])
    async with open_session(model) as client:
        await client.send(encode_text_item("user", "Hi.", "ev"), encode_response_create("ev", "x"))
        await client.until("response.done")
        item = ItemId(model.session.responses[0].item_id)
        user_item = ItemId(client.of("conversation.item.added")[0]["item"]["id"])
        await client.send(
            encode_truncate(item, 0, 1001, "ev_beyond"),
            encode_truncate(ItemId("item_nobody"), 0, 10, "ev_unknown"),
            encode_truncate(user_item, 0, 10, "ev_user"),
            encode_truncate(item, 0, 0, "ev_zero"),
            encode_truncate(item, 0, -1, "ev_negative"),
            encode_truncate(item, 0, 1000, "ev_all"),
            encode_truncate(item, 0, 400, "ev_right"),
            encode_truncate(item, 0, 401, "ev_already_shorter"),
            encode_item_delete(item, "ev_delete"),
            encode_item_delete(item, "ev_deleted_already"),
        )
        await trio.sleep(0.1)
    assert model.session.conversation.truncations == [(item, 1000), (item, 400)]
    assert model.session.conversation.deleted == [item]
    assert client.garbage == []
    assert [error["event_id"] for error in model.errors_sent] == [
        "ev_beyond",
        "ev_unknown",
        "ev_user",
        "ev_zero",
        "ev_negative",
        "ev_already_shorter",
        "ev_deleted_already",
    ]
    assert "Audio content of 1000ms is already shorter than 1001ms" in model.errors_sent[0]["message"]


@pytest.mark.parametrize("interrupt", [True, False])
async def test_speech_while_answering(autojump_clock: MockClock, *, interrupt: bool) -> None:
    """With interrupt_response the server cancels; without, a turn that ends meanwhile gets no answer."""
    model = ScriptedRealtime([Answer("a", 9000, speed=1.0)], faults=Faults(busy_error=True))
    session = make_session(
        audio=ULAW_8K,
        instructions="",
        voice="marin",
        turn_detection={"type": "server_vad"},
        transcription=None,
        noise_reduction=None,
        tools=[],
    )
    session["audio"]["input"]["turn_detection"]["interrupt_response"] = interrupt
    async with open_session(model) as client:
        await client.send(encode_session_update(session, "ev"), encode_response_create("ev", "x"))
        await client.speak()
        await client.send(encode_response_create("ev_second", "x"))
        await trio.sleep(20)
    assert client.of("conversation.item.input_audio_transcription.completed") == []
    statuses = [event["response"]["status"] for event in client.of("response.done")]
    busy = "conversation_already_has_active_response"
    if interrupt:
        assert statuses == ["cancelled", "completed"]
        assert client.of("response.done")[0]["response"]["status_details"]["reason"] == "turn_detected"
        assert client.errors() == [busy]
    else:
        assert statuses == ["completed"]
        assert client.errors() == [busy, busy]


async def test_wrong_requests_are_refused_by_name(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime()
    async with open_session(model) as client:
        await client.send(
            "{not json",
            "[1]",
            '{"type":"session.sing","event_id":"ev_1"}',
            '{"type":"session.update","session":{}}',
            '{"type":"session.update","session":{"type":"realtime","audio":{"input":{"format":{"type":"audio/pcma"}}}}}',
            '{"type":"conversation.item.create","item":{"type":"picture"}}',
            '{"type":"input_audio_buffer.append","audio":"%%%"}',
            '{"type":"input_audio_buffer.append","event_id":"ev_2"}',
            '{"type":"input_audio_buffer.clear"}',
            '{"type":"input_audio_buffer.commit"}',
        )
        await client.until("input_audio_buffer.committed")
    assert client.garbage == []
    assert len(client.errors()) == 8
    assert client.of("error")[2]["error"]["event_id"] == "ev_1"


async def test_without_turn_detection_nobody_listens(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime(record_audio=True)
    session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    async with open_session(model) as client:
        await client.send(encode_session_update(session, "ev"))
        await client.speak()
    assert client.of("input_audio_buffer.speech_started") == []
    assert bytes(model.session.appended) == SPOKEN.audio


async def test_events_can_be_injected_and_the_socket_cut_by_hand(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime()
    async with open_session(model) as client:
        await client.until("session.created")
        model.inject({"type": "rate_limits.updated", "event_id": "ev", "rate_limits": []})
        await client.until("rate_limits.updated")
        model.disconnect(drop=True)
        assert await client.until_closed() == 1006


# Faults.


async def run_fault(faults: Faults) -> Client:
    """One greeting of 2 s and one spoken turn, with ``faults``; 10 virtual seconds."""
    model = ScriptedRealtime([Answer("a b c", 2000)], faults=faults)
    async with open_session(model) as client:
        with trio.move_on_after(10):
            try:
                await client.send(update(), encode_response_create("ev", "x"))
                await client.speak()
            except SocketClosedError:
                await client.until_closed()
            await trio.sleep_forever()
    return client


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("stage", list(Milestone))
async def test_the_socket_closes_at_every_stage(
    autojump_clock: MockClock, stage: Milestone, *, drop: bool
) -> None:
    client = await run_fault(Faults(close_at=stage, drop=drop, after_appends=30))
    assert client.close_code == (1006 if drop else 1011)
    kinds = [event["type"] for _, event in client.events]
    assert ("session.created" in kinds) == (stage != Milestone.CONNECTED)
    assert ("session.updated" in kinds) == (stage != Milestone.CONNECTED)
    assert ("response.created" in kinds) == (stage in (Milestone.ANSWERING, Milestone.APPENDED))
    if stage == Milestone.UPDATED:
        assert kinds[-1] == "session.updated"
    if stage == Milestone.ANSWERING:
        assert 8000 <= len(decode_audio(client)) < 16000
    assert "response.done" not in kinds or stage == Milestone.APPENDED


async def test_only_the_first_sessions_suffer(autojump_clock: MockClock) -> None:
    """After a reconnect the script goes on where it was."""
    faults = Faults(close_at=Milestone.ANSWERING, sessions=1)
    model = ScriptedRealtime([Answer("first", 500), Answer("second", 500)], faults=faults)
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"))
        assert await client.until_closed() == 1011
    async with open_session(model) as client:
        await client.send(encode_response_create("ev", "x"))
        await client.until("response.done")
    assert [response.answer.text for session in model.sessions for response in session.responses] == [
        "first",
        "second",
    ]
    assert len(model.received) == 2


async def test_a_deaf_server_answers_neither_pings_nor_closes(autojump_clock: MockClock) -> None:
    """Leaving it is bounded by our own close grace; what it says still arrives."""
    model = ScriptedRealtime([Answer("a", 500)], faults=Faults(deaf_at=Milestone.UPDATED))
    async with open_session(model) as client:
        await client.send(update())
        await client.until("session.updated")
        model.inject({"type": "rate_limits.updated", "event_id": "ev", "rate_limits": []})
        await client.until("rate_limits.updated")
        with trio.move_on_after(5) as unanswered:
            await client.socket.ping()
        assert unanswered.cancelled_caught
        began_s = trio.current_time()
        await client.socket.aclose()
        assert trio.current_time() - began_s == pytest.approx(1.0)


async def test_a_close_frame_can_stay_without_an_answer(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime(faults=Faults(never_answer_close=True))
    async with open_session(model) as client:
        await client.until("session.created")
        await client.socket.ping()
        began_s = trio.current_time()
        await client.socket.aclose()
        assert trio.current_time() - began_s == pytest.approx(1.0)


async def test_faults_of_the_link_need_the_link(autojump_clock: MockClock) -> None:
    async with open_memory_sockets() as (_, server_end):
        with pytest.raises(ValueError, match="link"):
            await ScriptedRealtime(faults=Faults(never_answer_close=True)).serve(server_end)


async def test_garbage_strays_duplicates_and_disorder(autojump_clock: MockClock) -> None:
    client = await run_fault(
        Faults(garbage=True, stray_delta=True, duplicate_created=True, duplicate_done=True, early_done=True)
    )
    answers = 2
    assert len(client.garbage) == 2 * answers
    strays = [d for d in client.of("response.output_audio.delta") if d["response_id"] == "resp_nobody"]
    assert len(strays) == answers
    assert len(client.of("response.created")) == len(client.of("response.done")) == 2 * answers
    kinds = [event["type"] for _, event in client.events]
    assert kinds.index("response.done") < kinds.index("response.output_audio.done")
    assert (
        "response.output_audio.delta"
        in kinds[kinds.index("response.done") : kinds.index("response.output_audio.done")]
    )


async def test_errors_of_the_provider(autojump_clock: MockClock) -> None:
    client = await run_fault(Faults(fail_answers=RATE_LIMITED, error_at=(Milestone.UPDATED, SERVER_ERROR)))
    assert client.errors() == [None]
    assert client.of("error")[0]["error"]["type"] == "server_error"
    done = client.of("response.done")
    assert [event["response"]["status"] for event in done] == ["failed", "failed"]
    assert done[0]["response"]["status_details"]["error"]["code"] == "rate_limit_exceeded"
    assert client.of("response.output_audio.delta") == []


async def test_speech_started_can_come_late(autojump_clock: MockClock) -> None:
    """It still comes before speech_stopped."""
    punctual = await run_fault(Faults())
    late = await run_fault(Faults(speech_started_delay_ms=2000))
    [on_time_s] = punctual.when("input_audio_buffer.speech_started")
    [late_s] = late.when("input_audio_buffer.speech_started")
    assert (late_s - late.events[0][0]) - (on_time_s - punctual.events[0][0]) == pytest.approx(2.0)
    assert late.when("input_audio_buffer.speech_stopped") == [late_s]


async def test_appends_of_any_size_are_heard_alike(autojump_clock: MockClock) -> None:
    """The milliseconds of the VAD depend on the audio alone."""
    heard: list[tuple[int, int]] = []
    for size in (160, 100, 4000, len(SPOKEN.audio)):
        model = ScriptedRealtime()
        async with open_session(model) as client:
            await client.send(update())
            for at in range(0, len(SPOKEN.audio), size):
                await client.send(encode_append(b64encode(SPOKEN.audio[at : at + size]).decode()))
            stopped = await client.until("input_audio_buffer.speech_stopped")
            [started] = client.of("input_audio_buffer.speech_started")
            heard.append((started["audio_start_ms"], stopped["audio_end_ms"]))
    assert set(heard) == {(100, 1500)}


async def test_quiet_noise_and_clicks_are_no_speech(autojump_clock: MockClock) -> None:
    model = ScriptedRealtime()
    async with open_session(model) as client:
        await client.send(update())
        await client.speak(Utterance(tone(500, dbfs=-50.0) + silence(200) + tone(20) + silence(500)))
    assert client.of("input_audio_buffer.speech_started") == []

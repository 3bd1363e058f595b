"""The embedded model's side of the Realtime protocol, with fake networks, over a real WebSocket in virtual time.

Every event it sends is validated against the provider's own types.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, get_args

import attrs
import pytest
import trio
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel
from trio.testing import MockClock

from agent.audio.ulaw import ulaw_to_pcm16
from agent.call.model_leg import GREETING_REQUEST
from agent.call.tools.declare import END_CALL
from agent.core.audio_format import PCM16_24K, ULAW_8K, AudioFormat
from agent.core.units import BYTES_PER_MS, FRAME_MS, ItemId, ResponseId
from agent.local.session import LocalSession, make_outbox, run_session
from agent.model import events as ours
from agent.model import requests
from agent.sim.memory import open_memory_sockets
from agent.wire.message_socket import SendCheck
from agent.wire.websocket import MessageSocket

SHAPES: dict[str, type[BaseModel]] = {
    get_args(shape.model_fields["type"].annotation)[0]: shape
    for shape in get_args(get_args(RealtimeServerEvent)[0])
}
QUIET = 0xFF
SECOND_MS = 1000
STT_S = 0.15
TTS_S = 0.02
MS_A_SENTENCE = 1000


class LoudnessVad:
    """Speech is whatever is not silence."""

    def probability(self, window: bytes) -> float:
        """See Vad."""
        return 0.0 if window.count(QUIET) > len(window) // 2 else 1.0


@attrs.define(eq=False)
class FakeEngines:
    """Knows a few utterances by the byte they are made of; takes virtual time; counts what is abandoned."""

    texts: Mapping[int, str]
    vads: int = 0
    begun: list[bytes] = attrs.field(factory=list)
    abandoned: Counter[str] = attrs.field(factory=Counter)
    voices: list[str] = attrs.field(factory=list)

    def make_vad(self) -> LoudnessVad:
        """See Engines."""
        self.vads += 1
        return LoudnessVad()

    async def transcribe(self, ulaw: bytes) -> str:
        """See Engines."""
        self.begun.append(ulaw)
        await self._work("transcribe", STT_S)
        heard = Counter(ulaw)
        del heard[QUIET]
        return self.texts.get(heard.most_common(1)[0][0], "") if heard else ""

    def sentences(self, text: str) -> list[str]:
        """See Engines."""
        return [f"{part}." for part in text.removesuffix(".").split(". ")] if text else []

    async def speak(self, sentence: str, voice: str, audio: AudioFormat) -> bytes:
        """See Engines."""
        self.voices.append(voice)
        await self._work("speak", TTS_S)
        return bytes([len(sentence) % 100]) * (MS_A_SENTENCE * audio.bytes_per_ms)

    async def _work(self, kind: str, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.abandoned[kind] += 1
            raise


@attrs.define(eq=False)
class Client:
    """Our agent's end, reduced to what these tests need."""

    socket: MessageSocket
    events: list[dict[str, Any]] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    _news: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Receive and validate until cancelled."""
        while True:
            event = json.loads(await self.socket.receive())
            SHAPES[event["type"]].model_validate(event)
            ours.decode_event(json.dumps(event))
            self.events.append(event)
            self.times.append(trio.current_time())
            self._news.set()
            self._news = trio.Event()

    async def send(self, event_type: str, **fields: Any) -> None:
        """One client event."""
        await self.socket.send(json.dumps({"type": event_type, "event_id": f"mine_{event_type}", **fields}))

    async def until(self, event_type: str, count: int = 1) -> dict[str, Any]:
        """The ``count``-th event of a type, waiting for it."""
        with trio.fail_after(30):
            await trio.lowlevel.checkpoint()
            while len(found := self.of(event_type)) < count:
                await self._news.wait()
        return found[count - 1]

    def of(self, event_type: str) -> list[dict[str, Any]]:
        """All events of a type so far."""
        return [event for event in self.events if event["type"] == event_type]

    def at(self, event: Mapping[str, Any]) -> float:
        """When an event came."""
        return self.times[self.events.index(dict(event))]

    async def audio(self, ms: int, byte: int = QUIET) -> None:
        """Frames of 20 ms, in real (virtual) time."""
        payload = b64encode(bytes([byte]) * (FRAME_MS * BYTES_PER_MS)).decode()
        await trio.lowlevel.checkpoint()
        for _ in range(ms // FRAME_MS):
            await self.socket.send(requests.encode_append(payload))
            await trio.sleep(FRAME_MS / 1000)

    async def configure(self, silence_ms: int = 400, **detection: Any) -> None:
        """What our agent sets."""
        session = requests.make_session(
            audio=ULAW_8K,
            instructions="Opening hours: nine to five.\nAddress: one Main Street.",
            voice="marin",
            turn_detection={"type": "server_vad", "silence_duration_ms": silence_ms},
            transcription={"model": "gpt-4o-mini-transcribe"},
            noise_reduction="near_field",
            tools=[END_CALL.declare()],
        )
        session["audio"]["input"]["turn_detection"].update(detection)
        await self.send("session.update", session=session)
        await self.until("session.updated")

    async def say_exactly(self, text: str) -> None:
        """Ask for the greeting as our agent does."""
        await self.send("response.create", response={"instructions": f"{GREETING_REQUEST}{text}"})

    def spoken(self) -> list[str]:
        """The final transcripts of all answers so far."""
        return [event["transcript"] for event in self.of("response.output_audio_transcript.done")]

    def error(self) -> dict[str, Any]:
        """The one error there was."""
        [event] = self.of("error")
        error: dict[str, Any] = event["error"]
        return error


HOURS, BYE, NOISE, NAME = 10, 11, 12, 13
TEXTS = {HOURS: "What are your opening hours?", BYE: "Goodbye.", NAME: "My name is Dave."}


@asynccontextmanager
async def talking() -> AsyncIterator[tuple[Client, FakeEngines]]:
    """A session and its client."""
    engines = FakeEngines(TEXTS)
    async with open_memory_sockets() as (near, far), trio.open_nursery() as nursery:
        client = Client(near)
        nursery.start_soon(run_session, far, engines)
        nursery.start_soon(client.run)
        await client.until("session.created")
        yield client, engines
        nursery.cancel_scope.cancel()


async def test_a_spoken_question_is_answered(autojump_clock: MockClock) -> None:
    """The whole exchange, in the order and the shapes of the provider's protocol."""
    async with talking() as (client, engines):
        await client.configure()
        await client.audio(400)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(SECOND_MS)
        await client.until("response.done")
    wanted = [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "conversation.item.input_audio_transcription.completed",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    assert [event["type"] for event in client.events] == wanted
    started, stopped = (
        client.of("input_audio_buffer.speech_started")[0],
        client.of("input_audio_buffer.speech_stopped")[0],
    )
    item_id = started["item_id"]
    assert started["audio_start_ms"] == 384 - 300  # the window in which speech began, and its padding
    assert stopped["item_id"] == client.of("input_audio_buffer.committed")[0]["item_id"] == item_id
    transcribed = client.of("conversation.item.input_audio_transcription.completed")[0]
    assert (transcribed["item_id"], transcribed["transcript"]) == (item_id, TEXTS[HOURS])
    assert client.spoken() == ["Our opening hours are nine to five. May I have your name, please?."]
    audio = b"".join(b64decode(event["delta"]) for event in client.of("response.output_audio.delta"))
    assert len(audio) == 2 * MS_A_SENTENCE * BYTES_PER_MS
    assert engines.vads == 1
    done = client.of("response.done")[0]["response"]
    assert (done["status"], done["output"][0]["content"][0]["transcript"]) == ("completed", client.spoken()[0])


async def test_nobody_is_told_of_words_that_he_did_not_ask_for(autojump_clock: MockClock) -> None:
    """Heard they are all the same: the answer is to them."""
    async with talking() as (client, _):
        await client.configure()
        asked_for_nothing = {"type": "realtime", "audio": {"input": {"transcription": None}}}
        await client.send("session.update", session=asked_for_nothing)
        await client.audio(400)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(SECOND_MS)
        await client.until("response.done")
    assert client.of("conversation.item.input_audio_transcription.completed") == []
    assert "nine to five" in client.spoken()[0]


async def test_the_turn_is_transcribed_while_its_end_is_awaited(autojump_clock: MockClock) -> None:
    """First audio comes one synthesis after the end-point: recognition was done in the silence before it."""
    async with talking() as (client, engines):
        await client.configure(silence_ms=400)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(SECOND_MS)
        delta = await client.until("response.output_audio.delta")
        stopped = client.at(client.of("input_audio_buffer.speech_stopped")[0])
        assert client.at(delta) - stopped == pytest.approx(TTS_S, abs=0.005)
    assert len(engines.begun) == 1
    assert not engines.abandoned


async def test_speech_that_resumes_discards_the_guess(autojump_clock: MockClock) -> None:
    """A pause inside a turn: what was begun on it is abandoned, and the whole turn is transcribed."""
    async with talking() as (client, engines):
        await client.configure(silence_ms=500)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(260)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(SECOND_MS)
        await client.until("response.done")
        assert len(client.of("input_audio_buffer.committed")) == 1
    assert engines.abandoned["transcribe"] == 1
    first, whole = engines.begun
    assert len(whole) > len(first) + SECOND_MS * BYTES_PER_MS


async def test_wb_5_one_detector_a_session(autojump_clock: MockClock) -> None:
    """WB-5: the detector is made once and lives as long as the session, through clear and commit."""
    async with talking() as (client, engines):
        await client.configure()
        for _ in range(3):
            await client.audio(SECOND_MS, HOURS)
            await client.audio(SECOND_MS)
            await client.send("input_audio_buffer.clear")
            await client.configure(silence_ms=300)
        assert len(client.of("input_audio_buffer.committed")) == 3
    assert engines.vads == 1


async def test_the_greeting_is_said_word_for_word(autojump_clock: MockClock) -> None:
    async with talking() as (client, engines):
        await client.configure()
        await client.socket.send(
            requests.encode_response_create("e1", "greeting", f"{GREETING_REQUEST}Hello. שלום.")
        )
        done = await client.until("response.done")
        assert client.spoken() == ["Hello. שלום."]
        assert done["response"]["metadata"] == {"purpose": "greeting"}
        assert client.of("response.created")[0]["response"]["metadata"] == {"purpose": "greeting"}
    assert set(engines.voices) == {"marin"}


async def test_wb_3_a_session_in_pcm16(autojump_clock: MockClock) -> None:
    """The browser's format both ways: what is heard is narrowed here, what is said is made at 24 kHz."""
    async with talking() as (client, engines):
        pcm = PCM16_24K.declare()
        await client.send(
            "session.update", session={"audio": {"input": {"format": pcm}, "output": {"format": pcm}}}
        )
        shown = (await client.until("session.updated"))["session"]["audio"]
        assert shown["input"]["format"] == shown["output"]["format"] == pcm
        loud = ulaw_to_pcm16(bytes([HOURS]) * (FRAME_MS * BYTES_PER_MS)).repeat(3).astype("<i2").tobytes()
        for frame in [loud] * 30 + [PCM16_24K.silence_frame] * 40:
            await client.socket.send(requests.encode_append(b64encode(frame).decode()))
            await trio.sleep(FRAME_MS / 1000)
        committed = await client.until("input_audio_buffer.speech_stopped")
        assert committed["audio_end_ms"] == pytest.approx(1150, abs=100)
        await client.until("response.done")
        deltas = client.of("response.output_audio.delta")
        spoken_bytes = sum(len(b64decode(event["delta"])) for event in deltas)
        sentences = len(engines.voices)
        assert spoken_bytes == sentences * MS_A_SENTENCE * PCM16_24K.bytes_per_ms
        assert client.of("response.created")[0]["response"]["audio"]["output"]["format"] == pcm


async def test_the_greeting_is_said_though_the_sessions_instructions_speak_of_goodbye(
    autojump_clock: MockClock,
) -> None:
    """Ours repeat the session's instructions in each request; a goodbye in them is not what is asked for now."""
    async with talking() as (client, _):
        rules = "You are a receptionist. When the caller says goodbye, say goodbye and call end_call."
        await client.send("session.update", session={"instructions": rules})
        await client.until("session.updated")
        await client.send("response.create", response={"instructions": f"{rules}\n\n{GREETING_REQUEST}Hello."})
        await client.until("response.done")
        assert client.spoken() == ["Hello."]


async def test_cancel_stops_at_once(autojump_clock: MockClock) -> None:
    """After a cancel nothing of the answer is sent but its end; what was sent stays and can be truncated."""
    async with talking() as (client, engines):
        await client.configure()
        await client.say_exactly("One. Two. Three. Four.")
        delta = await client.until("response.output_audio.delta")
        await client.socket.send(requests.encode_response_cancel(ResponseId(delta["response_id"]), "c1"))
        done = await client.until("response.done")
        await trio.sleep(5)
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert done["response"]["output"][0]["status"] == "incomplete"
        assert client.events[-1] == done
        assert len(client.of("response.output_audio.done")) == 1
        await client.socket.send(requests.encode_truncate(ItemId(delta["item_id"]), 0, MS_A_SENTENCE, "t1"))
        await client.until("conversation.item.truncated")
        assert not client.of("error")
    assert engines.abandoned["speak"] == 1


async def test_cancel_without_an_answer_is_an_error(autojump_clock: MockClock) -> None:
    """BI-3's error, which our agent must never provoke: nothing active, or another response than named."""
    async with talking() as (client, _):
        await client.send("response.cancel")
        await client.until("error")
        assert client.error()["code"] == "response_cancel_not_active"
        assert client.error()["event_id"] == "mine_response.cancel"
        await client.say_exactly("One. Two.")
        await client.until("response.created")
        await client.send("response.cancel", response_id="another")
        await client.until("error", 2)
        assert (await client.until("response.done"))["response"]["status"] == "completed"


async def test_a_cancelled_turn_is_answered_with_the_next(autojump_clock: MockClock) -> None:
    """Words whose answer was cancelled before any of it was sent are not forgotten."""
    async with talking() as (client, _):
        await client.configure()
        for text in ("My name is Dave.", "Where are you?"):
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            await client.send("conversation.item.create", item=item)
            await client.send("response.create")
            if text.endswith("."):
                await client.until("response.created")
                await client.send("response.cancel")
                await client.until("response.done")
        await client.until("response.done", 2)
        assert client.spoken() == [
            "You find us at one Main Street. Thank you, Dave. Which city are you calling from?."
        ]


async def test_no_answer_by_itself_while_one_is_active(autojump_clock: MockClock) -> None:
    """BI-6's premise: with interrupt_response off, a turn committed during an answer waits to be asked for."""
    async with talking() as (client, _):
        await client.configure(silence_ms=200)
        await client.audio(SECOND_MS, HOURS)
        await client.say_exactly(". ".join(["Word"] * 100))
        await client.audio(320)
        await client.until("input_audio_buffer.committed")
        await client.until("conversation.item.input_audio_transcription.completed")
        await client.until("response.done")
        await client.audio(SECOND_MS)
        assert len(client.of("response.created")) == 1
        await client.send("response.create")
        await client.until("response.done", 2)
        assert client.spoken()[1].startswith("Our opening hours are nine to five.")


async def test_a_second_response_while_one_is_active_is_an_error(autojump_clock: MockClock) -> None:
    async with talking() as (client, _):
        await client.say_exactly("One. Two. Three.")
        await client.say_exactly("Four.")
        await client.until("error")
        assert client.error()["code"] == "conversation_already_has_active_response"
        await client.until("response.done")
        await trio.sleep(1)
        assert client.spoken() == ["One. Two. Three."]


async def test_interrupt_response_cancels_when_asked_to(autojump_clock: MockClock) -> None:
    async with talking() as (client, _):
        await client.configure(interrupt_response=True)
        await client.say_exactly(". ".join(["Word"] * 100))
        await client.audio(SECOND_MS, HOURS)
        done = await client.until("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"


async def test_noise_is_answered_only_if_it_cut_something(autojump_clock: MockClock) -> None:
    """Speech without words gets an empty answer; but after a barge-in the line must not stay dead."""
    async with talking() as (client, _):
        await client.configure()
        await client.audio(SECOND_MS, NOISE)
        await client.audio(SECOND_MS)
        done = await client.until("response.done")
        assert (done["response"]["status"], done["response"]["output"]) == ("completed", [])
        await client.say_exactly("One.")
        said = await client.until("response.done", 2)
        item_id = said["response"]["output"][0]["id"]
        await client.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=100)
        await client.audio(SECOND_MS, NOISE)
        await client.audio(SECOND_MS)
        await client.until("response.done", 3)
        assert client.spoken()[1].startswith("Sorry, I did not catch that.")


async def test_goodbye_calls_end_call_after_its_words(autojump_clock: MockClock) -> None:
    async with talking() as (client, _):
        await client.configure()
        await client.audio(SECOND_MS, BYE)
        await client.audio(SECOND_MS)
        done = await client.until("response.done")
        assert [item["type"] for item in done["response"]["output"]] == ["message", "function_call"]
        called = client.of("response.function_call_arguments.done")[0]
        assert called["name"] == "end_call"
        assert json.loads(called["arguments"]) == {"reason": "The caller said goodbye."}
        await client.socket.send(requests.encode_tool_output(called["call_id"], '{"ok": true}', "o1"))
        await client.send("response.create")
        await client.until("response.done", 2)
        assert client.spoken()[1].startswith("I have noted everything.")


async def test_an_ordered_goodbye_comes_before_unanswered_words(autojump_clock: MockClock) -> None:
    """At the time limit the call ends, whatever the caller was just saying."""
    async with talking() as (client, _):
        await client.configure(create_response=False)
        await client.audio(SECOND_MS, HOURS)
        await client.audio(SECOND_MS)
        await client.until("input_audio_buffer.committed")
        await client.send("response.create", response={"instructions": "Say a brief goodbye."})
        await client.until("response.done")
        assert client.spoken() == ["Thank you for calling. Goodbye!."]


async def test_a_replayed_history_is_not_answered_again(autojump_clock: MockClock) -> None:
    """After a reconnect the agent replays the transcript: the name is known, the old question is closed."""
    async with talking() as (client, _):
        await client.configure()
        for role, text in (("user", "My name is Dave."), ("assistant", "Hello Dave.")):
            await client.socket.send(requests.encode_text_item(role, text, "h1"))
        await client.audio(SECOND_MS, BYE)
        await client.audio(SECOND_MS)
        await client.until("response.done")
        assert client.spoken() == ["Thank you for calling, Dave. Goodbye!."]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"item_id": "none", "content_index": 0, "audio_end_ms": 0}, "item_truncate_invalid_item_id", "item_id"),
        ({"content_index": 0, "audio_end_ms": MS_A_SENTENCE + 1}, "invalid_value", "audio_end_ms"),
        ({"content_index": 1, "audio_end_ms": 0}, "invalid_value", "content_index"),
        ({"content_index": 0, "audio_end_ms": -1}, "invalid_value", "audio_end_ms"),
        ({"content_index": 0, "audio_end_ms": "all"}, "invalid_type", "audio_end_ms"),
    ],
)
async def test_truncating_beyond_the_truth_is_an_error(
    autojump_clock: MockClock, fields: dict[str, Any], code: str, param: str
) -> None:
    """PL-8's trap: an item unknown, or shorter than what is claimed to have been heard."""
    async with talking() as (client, _):
        await client.say_exactly("One.")
        done = await client.until("response.done")
        item_id = done["response"]["output"][0]["id"]
        await client.send("conversation.item.truncate", **{"item_id": item_id, **fields})
        await client.until("error")
        assert (client.error()["code"], client.error()["param"]) == (code, param)


async def test_delete(autojump_clock: MockClock) -> None:
    async with talking() as (client, _):
        await client.say_exactly("One.")
        done = await client.until("response.done")
        item_id = ItemId(done["response"]["output"][0]["id"])
        await client.socket.send(requests.encode_item_delete(item_id, "d1"))
        await client.until("conversation.item.deleted")
        await client.socket.send(requests.encode_item_delete(item_id, "d2"))
        await client.until("error")
        assert client.error()["code"] == "item_delete_invalid_item_id"


async def test_turns_committed_by_hand(autojump_clock: MockClock) -> None:
    """Without turn detection the client commits; silence is committed but never reaches the recogniser."""
    async with talking() as (client, engines):
        update = {"type": "realtime", "audio": {"input": {"turn_detection": None, "transcription": {}}}}
        await client.send("session.update", session=update)
        await client.send("input_audio_buffer.commit")
        await client.until("error")
        assert client.error()["code"] == "input_audio_buffer_commit_empty"
        await client.audio(SECOND_MS)
        await client.send("input_audio_buffer.commit")
        await client.audio(SECOND_MS, NAME)
        await client.audio(SECOND_MS)
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.input_audio_transcription.completed", 2)
        assert not client.of("input_audio_buffer.speech_started")
        assert not client.of("response.created")
        texts = [
            event["transcript"] for event in client.of("conversation.item.input_audio_transcription.completed")
        ]
        assert texts == ["", TEXTS[NAME]]
        await client.send("input_audio_buffer.append", audio=b64encode(bytes(80)).decode())
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        await client.send("input_audio_buffer.commit")
        await client.until("error", 2)
    assert len(engines.begun) == 1


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "missing_required_parameter"),
        ("{}", "missing_required_parameter"),
        ('{"type": "no.such"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": "a"}', "invalid_value"),
        ('{"type": "input_audio_buffer.append", "audio": 1}', "invalid_type"),
        ('{"type": "session.update", "session": 1}', "invalid_type"),
        ('{"type": "session.update", "session": {"type": "transcription"}}', "invalid_value"),
        ('{"type": "session.update", "session": {"tools": [1]}}', "invalid_type"),
        ('{"type": "session.update", "session": {"audio": null}}', "invalid_type"),
        (
            '{"type": "session.update", "session": {"audio": {"output": {"format": {"type": "audio/pcma"}}}}}',
            "invalid_value",
        ),
        ('{"type": "session.update", "session": {"audio": {"input": {"turn_detection": 1}}}}', "invalid_type"),
        ('{"type": "session.update", "session": {"audio": {"input": {"turn_detection": {}}}}}', "invalid_value"),
        ('{"type": "conversation.item.create", "item": {"type": "message"}}', "invalid_value"),
        ('{"type": "conversation.item.create", "item": {"type": "function_call_output"}}', "invalid_type"),
        ('{"type": "conversation.item.create", "item": {"type": "message", "role": "user"}}', "invalid_type"),
        (
            (
                '{"type": "conversation.item.create", "item":'
                ' {"type": "message", "role": "user", "content": [{"type": "input_audio"}]}}'
            ),
            "invalid_value",
        ),
    ],
)
async def test_bad_input_is_an_error_event(autojump_clock: MockClock, raw: str, code: str) -> None:
    """Whatever a client sends, the session answers with an error and goes on."""
    async with talking() as (client, _):
        await client.socket.send(raw)
        await client.until("error")
        assert client.error()["code"] == code
        await client.say_exactly("One.")
        await client.until("response.done")


@pytest.mark.parametrize(
    ("detection", "accepted"),
    [
        ({"type": "semantic_vad", "eagerness": "high"}, True),
        ({"type": "semantic_vad", "eagerness": "wild"}, False),
        ({"type": "server_vad", "threshold": 2}, False),
        ({"type": "server_vad", "silence_duration_ms": True}, False),
        ({"type": "server_vad", "threshold": 0.3, "prefix_padding_ms": 0}, True),
    ],
)
async def test_turn_detection_settings(
    autojump_clock: MockClock, detection: dict[str, Any], *, accepted: bool
) -> None:
    async with talking() as (client, _):
        await client.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})
        event = await client.until("session.updated" if accepted else "error")
        if accepted:
            assert event["session"]["audio"]["input"]["turn_detection"] == detection
            assert event["session"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}


async def test_a_client_that_leaves_ends_the_session(autojump_clock: MockClock) -> None:
    """No error, nothing left running, in the middle of an answer and of a turn."""
    engines = FakeEngines(TEXTS)
    ended = trio.Event()

    async def serve(socket: MessageSocket) -> None:
        await run_session(socket, engines)
        ended.set()

    async with open_memory_sockets() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(serve, far)
        async with trio.open_nursery() as reading:
            client = Client(near)
            reading.start_soon(client.run)
            await client.say_exactly(". ".join(["Word"] * 100))
            await client.until("response.output_audio.delta")
            reading.cancel_scope.cancel()
        await near.aclose()
        with trio.fail_after(5):
            await ended.wait()
    assert engines.abandoned["speak"] == 1


async def test_a_cancel_in_the_same_moment_as_the_next_sentence_wins(autojump_clock: MockClock) -> None:
    """The synthesis is done and its task due to run when the cancel is read: the sentence is not sent."""
    gate = trio.Event()

    @attrs.define(eq=False)
    class Gated(FakeEngines):
        async def speak(self, sentence: str, voice: str, audio: AudioFormat) -> bytes:
            """The first sentence waits for the gate."""
            await gate.wait()
            return b"\x10" * 800

    letters, arrived = trio.open_memory_channel[str](100)
    async with trio.open_nursery() as nursery:
        session = LocalSession.open(Gated(TEXTS), make_outbox(letters), nursery)
        create = {"type": "response.create", "response": {"instructions": "Say exactly: One. Two."}}
        await session.handle(json.dumps(create))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        session._answering.cancel("", "client_cancelled")
        await trio.testing.wait_all_tasks_blocked()
    letters.close()
    kinds = [json.loads(letter)["type"] async for letter in arrived]
    assert kinds == ["session.created", "response.created", "response.done"]


async def test_a_client_that_stops_reading_is_given_up(autojump_clock: MockClock) -> None:
    """Its events are not hoarded for ever: the session ends by itself."""

    @attrs.define(eq=False)
    class Stuck(MessageSocket):
        """Sends requests without end and lets nothing through the other way."""

        async def receive(self) -> str:
            """The same request for ever."""
            await trio.lowlevel.checkpoint()
            return '{"type": "no.such"}'

        async def send(self, message: str | bytes, wanted: SendCheck | None = None) -> bool:
            """Never done."""
            await trio.sleep_forever()
            return True

        async def ping(self) -> None:
            """Never asked."""
            await trio.lowlevel.checkpoint()

        async def aclose(self, code: int = 1000, reason: str = "") -> None:
            """Not the session's business."""
            await trio.lowlevel.checkpoint()

    with trio.fail_after(60):
        await run_session(Stuck(), FakeEngines(TEXTS))

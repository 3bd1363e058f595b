"""Real speech through the real networks: spoken, sent over the telephone's codec, found, and understood."""

from __future__ import annotations

import importlib.util
import re
from base64 import b64encode
from statistics import median

import pytest
import trio

from agent.audio.ulaw import SILENCE_DBFS, pcm16_to_ulaw, rms_dbfs, ulaw_to_pcm16
from agent.call.tools.declare import END_CALL
from agent.core.audio_format import ULAW_8K
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, FRAME_S, SILENCE_FRAME
from agent.local.process import open_local_model
from agent.local.speech.endpointing import Endpointer, EndpointEvent, TurnEnded, TurnStarted
from agent.local.speech.listening import Listener
from agent.model.events import (
    AudioDelta,
    FunctionCallDone,
    InputTranscribed,
    ModelEvent,
    ResponseDone,
    TranscriptDelta,
    decode_event,
)
from agent.model.requests import encode_append, encode_response_create, encode_session_update, make_session
from agent.wire.websocket import MessageSocket, open_client

pytestmark = [
    pytest.mark.speech,
    pytest.mark.skipif(importlib.util.find_spec("hibari") is None, reason="needs the [local] extra"),
]

SENTENCES = (
    "What are your opening hours?",
    "My name is John Miller and I live in Boston.",
    "I'd like to book an appointment for Tuesday at three pm.",
    "No, thank you. That's all. Goodbye.",
)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", re.sub(r"3 ?p\.?m\b", "three pm", text.lower()))


@pytest.mark.parametrize("voice", ["deep", "bright", "heart"])
def test_what_is_spoken_is_understood(voice: str) -> None:
    """Every voice survives 8 kHz mu-law and is transcribed word for word."""
    from agent.local.speech.samples import synthesise, transcribe  # noqa: PLC0415  (the extra)

    for sentence in SENTENCES:
        assert words(transcribe(synthesise(sentence, voice))) == words(sentence)


def test_spoken_words_are_loud_enough_and_neither_clipped_nor_padded() -> None:
    from agent.local.speech.samples import synthesise  # noqa: PLC0415  (the extra)

    ulaw = synthesise("What are your opening hours?")
    assert -26 < rms_dbfs(ulaw) < -16
    assert rms_dbfs(ulaw[: 20 * BYTES_PER_MS]) < -30  # a breath before the first sound, not a cut into it
    assert rms_dbfs(ulaw[: 150 * BYTES_PER_MS]) > -40  # but no more than that
    assert synthesise("") == synthesise("שלום") == b""


@pytest.mark.parametrize("sentence", ["Sure.", "Hello, this is the assistant.", *SENTENCES])
def test_wb_7_an_answer_begins_with_its_words(sentence: str) -> None:
    """What comes before them is silence that the caller waits through; it was 40 ms."""
    from agent.local.speech.samples import synthesise  # noqa: PLC0415  (the extra)

    speech = ulaw_to_pcm16(synthesise(sentence))
    loudest = max(map(abs, speech))
    assert next(at for at, sample in enumerate(speech) if abs(sample) > loudest * 0.03) <= 30 * BYTES_PER_MS


def test_silence_and_noise_are_not_words() -> None:
    """The recogniser invents words for silence; the guards drop them."""
    import numpy as np  # noqa: PLC0415  (with the extra)

    from agent.local.speech.samples import transcribe  # noqa: PLC0415  (the extra)

    noise = np.random.default_rng(1).normal(0, 500, 16000).astype(np.int16)
    assert transcribe(SILENCE_FRAME * 100) == transcribe(pcm16_to_ulaw(noise)) == transcribe(b"") == ""


def test_long_speech_is_transcribed_in_pieces() -> None:
    from agent.local.speech.samples import synthesise, transcribe  # noqa: PLC0415  (the extra)

    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    asked = " ".join(f"Are you open on {day}, and if so, when do you close? I could come then." for day in days)
    speech = synthesise(asked)
    assert len(speech) > 30_000 * BYTES_PER_MS
    text = transcribe(speech)
    assert sum(day in text for day in days) >= 6


def test_circles_are_recognised() -> None:
    from agent.local.speech.stt import is_looping  # noqa: PLC0415  (the extra)

    assert is_looping("Thank you. Thank you. Thank you. Thank you.")
    assert is_looping("so so so so so so")
    assert not is_looping("No, no, no, no.")
    assert not is_looping("No, no, no. I said Tuesday, not Thursday, and then I said it again.")


def test_addresses_and_numbers_are_said_as_people_say_them() -> None:
    from agent.local.speech.tts import sentences, speakable  # noqa: PLC0415  (the extra)

    assert speakable("Mail a.b@c-d.org now") == "Mail a dot b at c dash d dot org now"
    assert speakable("Call +1 555 0100.") == "Call 1 5 5 5 0 1 0 0."
    assert sentences("") == []
    assert sentences("Hello. How are you?") == ["Hello.", "How are you?"]
    long = "In this demonstration, our opening hours are Monday to Friday from nine to six. Bye."
    assert sentences(long)[0] == "In this demonstration,"
    assert " ".join(sentences(long)) == long


def endpoints(ulaw: bytes) -> list[EndpointEvent]:
    from agent.local.speech.vad import SileroVad  # noqa: PLC0415  (the extra)

    listener = Listener(SileroVad(), Endpointer(silence_duration_ms=400))
    return [event for event in listener.append(ulaw) if isinstance(event, TurnStarted | TurnEnded)]


def test_speech_is_found_where_it_is() -> None:
    """Within 150 ms of its beginning and the end-point of its end, also in noise 20 dB below it."""
    import numpy as np  # noqa: PLC0415  (with the extra)

    from agent.local.speech.samples import synthesise  # noqa: PLC0415  (the extra)

    speech = synthesise("What are your opening hours?")
    call = SILENCE_FRAME * 50 + speech + SILENCE_FRAME * 50
    noise = np.random.default_rng(2).normal(0, 330, len(call))
    noisy = pcm16_to_ulaw((ulaw_to_pcm16(call) + noise).clip(-32000, 32000).astype(np.int16))
    for ulaw in (call, noisy):
        started, stopped = endpoints(ulaw)
        assert isinstance(started, TurnStarted)
        assert isinstance(stopped, TurnEnded)
        assert abs(started.audio_start_ms + 300 - 1000) <= 150
        end_ms = 1000 + len(speech) // BYTES_PER_MS - 280
        assert abs(stopped.audio_end_ms - 400 - end_ms) <= 200
    assert endpoints(SILENCE_FRAME * 200) == []


async def collect(socket: MessageSocket, events: list[tuple[float, ModelEvent]]) -> None:
    while True:
        event = decode_event(await socket.receive())
        events.append((trio.current_time(), event))


async def speak(socket: MessageSocket, ulaw: bytes) -> float:
    """Send audio at the pace of a call, ending at its last sound; when that was."""
    while rms_dbfs(ulaw[-FRAME_BYTES:]) < -45:
        ulaw = ulaw[:-FRAME_BYTES]
    tick = trio.current_time()
    await trio.lowlevel.checkpoint()
    for start in range(0, len(ulaw), FRAME_BYTES):
        await trio.sleep_until(tick := tick + FRAME_S)
        frame = ulaw[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff")
        await socket.send(encode_append(b64encode(frame).decode()))
    return trio.current_time()


async def stay_silent(socket: MessageSocket, seconds: float) -> None:
    await trio.lowlevel.checkpoint()
    quiet, tick = b64encode(SILENCE_FRAME).decode(), trio.current_time()
    for _ in range(round(seconds / FRAME_S)):
        await trio.sleep_until(tick := tick + FRAME_S)
        await socket.send(encode_append(quiet))


@pytest.mark.sockets
async def test_the_model_holds_a_conversation() -> None:
    """The whole process over a real socket: spoken questions are answered, and goodbye ends the call.

    The time from the caller's last sound to the first audio is measured with a 400 ms end-point; the bound is
    twice the target, since other tests may share the machine.
    """
    from agent.local.speech.samples import synthesise, transcribe  # noqa: PLC0415  (the extra)

    spoken = [synthesise(line) for line in (*SENTENCES[:2], "No thanks, goodbye.")]
    events: list[tuple[float, ModelEvent]] = []
    ends: list[float] = []
    session = make_session(
        audio=ULAW_8K,
        instructions="You are the receptionist of Acme.\nOpening hours: nine to five.",
        voice="marin",
        turn_detection={"type": "server_vad", "silence_duration_ms": 400},
        transcription={"model": "whisper-1"},
        noise_reduction=None,
        tools=[END_CALL.declare()],
    )
    with trio.fail_after(120):
        async with (
            open_local_model() as url,
            open_client(url) as socket,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(collect, socket, events)
            await socket.send(encode_session_update(session, "u1"))
            await socket.send(encode_response_create("g1", "greeting", "Say exactly: Hello, this is Acme."))
            await stay_silent(socket, 0.6)
            for ulaw in spoken:
                ends.append(await speak(socket, ulaw))
                await stay_silent(socket, 1.6)
            nursery.cancel_scope.cancel()

    heard = [event.transcript for _, event in events if isinstance(event, InputTranscribed)]
    assert [words(text) for text in heard] == [words(t) for t in (*SENTENCES[:2], "No thanks, goodbye.")]
    said = "".join(event.text for _, event in events if isinstance(event, TranscriptDelta))
    assert said.startswith("Hello, this is Acme.")
    assert "Our opening hours are nine to five." in said
    assert "Thank you, John Miller. Boston, noted." in said
    assert "Thank you for calling, John Miller. Goodbye!" in said
    assert [event.name for _, event in events if isinstance(event, FunctionCallDone)] == ["end_call"]
    assert [e.status for _, e in events if isinstance(e, ResponseDone)] == ["completed"] * 4
    audio_times = [time for time, event in events if isinstance(event, AudioDelta)]
    latencies = [min(time for time in audio_times if time > end) - end for end in ends]
    assert median(latencies) < 1.4
    greeting = next(event.response_id for _, event in events if isinstance(event, AudioDelta))
    audio = b"".join(e.audio for _, e in events if isinstance(e, AudioDelta) and e.response_id == greeting)
    assert "this is" in transcribe(audio).lower()
    assert rms_dbfs(audio) > SILENCE_DBFS

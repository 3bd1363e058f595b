"""Recordings to words by OpenAI's API, simulated: what is sent, what comes back, and every way it goes wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import openai
import pytest
import trio
from recording_files import write_recording

from agent.core.errors import ModelGoneError, ProviderError, StepDeadError
from agent.core.settings import load_settings
from agent.pipeline.transcription import transcribing
from agent.pipeline.transcription.transcribing import OpenAiTranscriber, Transcriber, open_transcriber
from agent.pipeline.transcription.transcription import Segment
from agent.sim.carrier.rest.recordings import GeneratedSound, UlawSound
from agent.sim.model.rest import (
    NEVER,
    NONSENSE_BODY,
    SERVER_FAILS,
    TOO_MANY_REQUESTS,
    WRONG_KEY,
    WRONG_SHAPE,
    ApiFault,
    OpenAiRest,
)
from agent.sim.serving import serve_app
from agent.sim.sounds import silence, tone

pytestmark = pytest.mark.sockets


@attrs.define(eq=False)
class Counting(httpx.AsyncBaseTransport):
    """An API that hears nothing, and what it was sent."""

    sizes: list[int] = attrs.field(factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read the request as a socket would, piece by piece."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.sizes.append(sum([len(part) async for part in request.stream]))
        return httpx.Response(200, json={"segments": []})


def call(folder: Path) -> Path:
    """The agent speaks for a second, then the caller, then the agent."""
    agent = tone(1000) + silence(2000) + tone(1000)
    caller = silence(1500) + tone(1000)
    return write_recording(folder / "call.wav", UlawSound((caller, agent)))


@asynccontextmanager
async def open_api(
    model: str = "whisper-1", key: str = "sk-test"
) -> AsyncIterator[tuple[OpenAiRest, Transcriber]]:
    api = OpenAiRest(api_key="sk-test")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = await nursery.start(serve_app, api.make_app())
            settings = load_settings(openai_api_key=key, openai_base_url=f"{url}/v1", recording_model=model)
            async with open_transcriber(settings) as transcriber:
                yield api, transcriber
            nursery.cancel_scope.cancel()


async def test_each_channel_is_written_down_and_put_in_order(tmp_path: Path) -> None:
    """Two requests, one a channel; the silence in front of the caller is not sent, its length is kept."""
    async with open_api() as (api, transcriber):
        api.transcripts += ["I need a plumber.", "Hello there."]
        got = await transcriber.transcribe(call(tmp_path), language="en-GB")
        first, second = (request.body for request in api.requests)
    assert got.segments == (
        Segment("agent", 0, 4000, "Hello there."),
        Segment("caller", 1250, 2750, "I need a plumber."),
    )
    assert (got.channels, got.model) == (2, "whisper-1")
    assert (first["seconds"], second["seconds"]) == (1.5, 4.0)
    assert (first["model"], first["response_format"], first["language"]) == ("whisper-1", "verbose_json", "en")


async def test_a_model_without_times_is_asked_utterance_by_utterance(tmp_path: Path) -> None:
    async with open_api("gpt-transcribe") as (api, transcriber):
        api.transcripts += ["I need a plumber.", "Hello there.", "Goodbye."]
        got = await transcriber.transcribe(call(tmp_path), language="en-GB")
        assert all(request.body["response_format"] == "json" for request in api.requests)
        assert all("language" not in request.body for request in api.requests), "it is refused"
        assert all(request.body["languages[]"] == "en" for request in api.requests)
    assert [(segment.channel, segment.text) for segment in got.segments] == [
        ("agent", "Hello there."),
        ("caller", "I need a plumber."),
        ("agent", "Goodbye."),
    ]
    assert [segment.start_ms for segment in got.segments] == [0, 1250, 2750]


async def test_a_single_channel_is_nobodys(tmp_path: Path) -> None:
    async with open_api() as (_, transcriber):
        got = await transcriber.transcribe(write_recording(tmp_path / "mono.wav", UlawSound((tone(500),))))
    assert [segment.channel for segment in got.segments] == ["unknown"]
    assert got.channels == 1


async def test_silence_is_not_sent(tmp_path: Path) -> None:
    async with open_api() as (api, transcriber):
        got = await transcriber.transcribe(
            write_recording(tmp_path / "s.wav", UlawSound((silence(3000), silence(3000))))
        )
        assert not api.requests
    assert got.segments == ()


async def test_invented_words_are_dropped(tmp_path: Path) -> None:
    """What the model itself doubts twice, and what it heard where there is no sound."""
    doubted = (
        b'{"segments": [{"start": 0, "end": 1, "text": "Thank you for watching", "no_speech_prob": 0.9,'
        b' "avg_logprob": -1.5}, {"start": 1.6, "end": 2.5, "text": "in the pause"},'
        b' {"start": 0, "end": 99999, "text": "real"}, {"start": -5, "end": 1, "text": "too"}]}'
    )
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(ApiFault(body=doubted))
        sound = UlawSound((tone(1000) + silence(3000) + tone(1000),))
        got = await transcriber.transcribe(write_recording(tmp_path / "x.wav", sound))
    assert {(segment.start_ms, segment.end_ms, segment.text) for segment in got.segments} == {
        (0, 5000, "real"),
        (0, 1000, "too"),
    }


async def test_two_hours_go_in_pieces_and_take_little_memory(tmp_path: Path) -> None:
    """Both channels beep every other second for two hours: 48 requests of five minutes, each under 25 MB."""
    path = write_recording(tmp_path / "long.wav", GeneratedSound(7200.0))
    counting = Counting()
    http_client = httpx.AsyncClient(transport=counting)
    client = openai.AsyncOpenAI(
        api_key="sk-test",
        max_retries=0,
        http_client=http_client,  # type: ignore[arg-type]  # it takes this kind, too
    )
    tracemalloc.start()
    try:
        await OpenAiTranscriber(client, "whisper-1").transcribe(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(counting.sizes) == 48
    assert max(counting.sizes) < 5_000_000
    assert peak < 20_000_000


# Faults


@pytest.mark.parametrize("fault", [TOO_MANY_REQUESTS, SERVER_FAILS, ApiFault(503), ApiFault(408)])
async def test_a_passing_fault_is_not_noticed(tmp_path: Path, fault: ApiFault) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(fault)
        assert (await transcriber.transcribe(call(tmp_path))).segments
        assert len(api.requests) == 3


async def test_retry_after_is_honoured_within_a_bound(tmp_path: Path) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(ApiFault(429, retry_after="1"))
        await transcriber.transcribe(call(tmp_path))
        first, second, _ = api.requests
        assert second.t_s - first.t_s >= 1.0
        api.transcription_faults.append(ApiFault(429, retry_after="3600"))
        with pytest.raises(ProviderError, match="429"):
            await transcriber.transcribe(call(tmp_path))
        assert len(api.requests) == 4


@pytest.mark.parametrize("status", [429, 500])
async def test_a_lasting_fault_is_for_the_ledger(tmp_path: Path, status: int) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults += [ApiFault(status, retry_after="0")] * transcribing.ATTEMPTS
        with pytest.raises(ProviderError, match=str(status)):
            await transcriber.transcribe(call(tmp_path))
        assert len(api.requests) == transcribing.ATTEMPTS


async def test_an_empty_purse_is_not_tried_at_once(tmp_path: Path) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(ApiFault(429, "insufficient_quota"))
        with pytest.raises(ProviderError, match="429"):
            await transcriber.transcribe(call(tmp_path))
        assert len(api.requests) == 1


@pytest.mark.parametrize("fault", [NONSENSE_BODY, WRONG_SHAPE, ApiFault(body=b""), ApiFault(body=b"[]")])
@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
async def test_nonsense_is_tried_again_later(tmp_path: Path, fault: ApiFault, model: str) -> None:
    async with open_api(model) as (api, transcriber):
        api.transcription_faults.append(fault)
        with pytest.raises(ProviderError, match="makes no sense"):
            await transcriber.transcribe(call(tmp_path))


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (WRONG_KEY, "OPENAI_API_KEY"),
        (ApiFault(403), "allow the key's project"),
        (ApiFault(400), "not accepted"),
        (ApiFault(413), "not accepted"),
    ],
)
async def test_what_no_repetition_helps_is_dead_with_a_remedy(
    tmp_path: Path, fault: ApiFault, remedy: str
) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(fault)
        with pytest.raises(StepDeadError, match=remedy) as caught:
            await transcriber.transcribe(call(tmp_path))
        assert len(api.requests) == 1
        assert "sk-test" not in str(caught.value)


async def test_a_model_that_is_gone_is_named_with_its_setting(tmp_path: Path) -> None:
    async with open_api() as (api, transcriber):
        api.gone.add("whisper-1")
        with pytest.raises(ModelGoneError, match="AGENT_RECORDING_MODEL") as gone:
            await transcriber.transcribe(call(tmp_path))
    assert gone.value.model == "whisper-1"


async def test_an_api_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribing, "REQUEST_S", 0.1)
    monkeypatch.setattr(transcribing, "ATTEMPTS", 2)
    async with open_api() as (api, transcriber):
        api.transcription_faults += [NEVER, NEVER]
        with pytest.raises(ProviderError, match="transcription API"):
            await transcriber.transcribe(call(tmp_path))


async def test_an_api_that_is_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribing, "ATTEMPTS", 1)
    settings = load_settings(openai_api_key="sk-test", openai_base_url="http://127.0.0.1:9/v1")
    async with open_transcriber(settings) as transcriber:
        with pytest.raises(ProviderError, match="cannot be reached: Connect"):
            await transcriber.transcribe(call(tmp_path))


async def test_a_cancel_leaves_at_once(tmp_path: Path) -> None:
    async with open_api() as (api, transcriber):
        api.transcription_faults.append(NEVER)
        began_s = trio.current_time()
        with trio.move_on_after(0.5) as scope:
            await transcriber.transcribe(call(tmp_path))
        assert scope.cancelled_caught
        assert trio.current_time() - began_s < 1.5


@pytest.mark.parametrize("raw", [b"", b"<html>", b"RIFF\0\0\0\0WAVE"])
async def test_what_is_no_recording_is_dead(tmp_path: Path, raw: bytes) -> None:
    async with open_api() as (_, transcriber):
        (tmp_path / "x.wav").write_bytes(raw)
        with pytest.raises(StepDeadError, match="no WAV file"):
            await transcriber.transcribe(tmp_path / "x.wav")


async def test_a_recording_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """On another machine, say: it is fetched again."""
    async with open_api() as (_, transcriber):
        with pytest.raises(FileNotFoundError):
            await transcriber.transcribe(tmp_path / "x.wav")

"""The simulated REST API and the simulators' command line: what a benchmark in another process relies on."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import wave
from collections import deque

import httpx
import pytest
import trio

from agent.sim.model.rest import NEVER, TOO_MANY_REQUESTS, OpenAiRest

KEY = {"Authorization": "Bearer none"}


def client_of(api: OpenAiRest) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=api.make_app()), base_url="http://api.test/v1")


def wav(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(b"\0\0" * round(8000 * seconds))
    return file.getvalue()


async def test_a_recording_is_transcribed_with_times(autojump_clock: trio.testing.MockClock) -> None:
    api = OpenAiRest(transcripts=deque(["Hello."]), delay_s=0.2)
    async with client_of(api) as client:
        fields = {"model": "whisper-1", "response_format": "verbose_json", "language": "en"}
        answers = [
            await client.post("/audio/transcriptions", data=fields, files={"file": ("a.wav", audio)}, headers=KEY)
            for audio in (wav(1.5), wav(0.5))
        ]
    first, second = [answer.json() for answer in answers]
    assert (first["text"], first["duration"], first["language"]) == ("Hello.", 1.5, "en")
    assert [(part["start"], part["end"], part["text"]) for part in first["segments"]] == [(0.0, 1.5, "Hello.")]
    assert second["text"] == api.default_transcript
    assert [request.body["seconds"] for request in api.requests] == [1.5, 0.5]


async def test_models_are_listed_with_the_day_they_end_and_one_that_ended_is_not_found() -> None:
    api = OpenAiRest(models={"a": None, "b": "2027-02-26", "c": "2026-01-01"}, gone={"c"})
    async with client_of(api) as client:
        assert (await client.get("/models")).status_code == 401
        listed = (await client.get("/models", headers=KEY)).json()["data"]
        refused = await client.post("/responses", json={"model": "c", "input": []}, headers=KEY)
        taken = await client.post("/responses", json={"model": "b", "input": []}, headers=KEY)
    assert [(model["id"], model["shutdown_date"]) for model in listed] == [("a", None), ("b", "2027-02-26")]
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert taken.status_code == 200


async def test_a_model_without_times_gives_text_alone() -> None:
    async with client_of(OpenAiRest()) as client:
        files = {"file": ("a.wav", b"no WAV at all")}
        answer = await client.post(
            "/audio/transcriptions", data={"model": "gpt-4o-transcribe"}, files=files, headers=KEY
        )
    assert set(answer.json()) == {"text", "usage"}


async def test_each_endpoint_has_its_own_faults(autojump_clock: trio.testing.MockClock) -> None:
    api = OpenAiRest(transcription_faults=deque([TOO_MANY_REQUESTS, NEVER]))
    async with client_of(api) as client:
        files = {"file": ("a.wav", wav(1))}
        assert (await client.post("/responses", json={}, headers=KEY)).status_code == 200
        refused = await client.post("/audio/transcriptions", files=files, headers=KEY)
        with trio.move_on_after(60) as scope:
            await client.post("/audio/transcriptions", files=files, headers=KEY)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert scope.cancelled_caught
    assert api.counts == {"responses": 1, "transcriptions": 2}


async def test_without_a_key_nothing_is_answered() -> None:
    async with client_of(OpenAiRest()) as client:
        assert (await client.post("/responses", json={})).status_code == 401


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("command", "path", "told"),
    [
        ("openai-rest", "/counts", {}),
        ("webhook-receiver", "/received", {"keys": {}, "changed": {}, "unsigned": 0, "requests": 0}),
    ],
)
async def test_the_simulators_run_as_commands(command: str, path: str, told: dict[str, object]) -> None:
    with trio.fail_after(30):
        arguments = [sys.executable, "-m", "agent.sim", command, "--port", "0"]
        process = await trio.lowlevel.open_process(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            line = (await process.stdout.receive_some()).decode()
            [url] = [word for word in line.split() if word.startswith("http://127.0.0.1:")]
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(url + path)).json() == told
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()
            await process.stdout.aclose()

"""``call-agent demo`` as a user runs it: its files, its errors, and that it leaves no process behind."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import struct
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trio
from typer.testing import CliRunner

from agent.app.cli.app import app
from agent.app.demo.agent_process import DATA, PUBLIC_URL, Account, ServerError, environment, open_agent
from agent.app.demo.checks import TARGET_LATENCY_MS
from agent.app.demo.run import divide, read_recording
from agent.app.demo.script import CITY, NAME, SCRIPT
from agent.app.demo.wav import RecordingError, write_stereo
from agent.audio.ulaw import pcm16_to_ulaw
from agent.core.errors import LocalModelMissingError
from agent.sim.sounds import silence, tone

needs_speech = pytest.mark.skipif(importlib.util.find_spec("hibari") is None, reason="needs the [local] extra")
ACCOUNT = Account("AC" + "d" * 32, "token", "http://127.0.0.1:1", "+15552223333")
COMMAND = [sys.executable, "-m", "agent", "demo"]


def demo(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo in ``folder`` to its end."""
    return subprocess.run(
        [*COMMAND, *options],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_server_sees_nothing_of_the_users_settings() -> None:
    """No key reaches it, so that the embedded model answers; it is told of our carrier instead."""
    users = {
        "PATH": "/bin",
        "PYTHONPATH": "/mine",
        "OPENAI_API_KEY": "sk-mine",
        "OPENAI_REALTIME_URL": "wss://elsewhere",
        "AGENT_PUBLIC_URL": "https://mine.example",
        "agent_lead_ms": "0",
        "TWILIO_AUTH_TOKEN": "mine",
        "DATABASE_URL": "postgresql://mine",
        "PGPASSWORD": "mine",
        "DEBUG_TX": "1",
    }
    given = environment(users, ACCOUNT, Path("data"))
    assert given["PATH"] == "/bin"
    assert given["PYTHONPATH"].endswith(f"{os.pathsep}/mine")
    assert given["TWILIO_AUTH_TOKEN"] == ACCOUNT.auth_token
    assert given["AGENT_PUBLIC_URL"] == PUBLIC_URL
    assert {*users} & {*given} == {"PATH", "PYTHONPATH", "TWILIO_AUTH_TOKEN", "AGENT_PUBLIC_URL"}


def test_a_recording_is_divided_at_its_pauses() -> None:
    audio = silence(500) + tone(800) + silence(300) + tone(400) + silence(1500) + tone(600) + silence(200)
    first, second = divide(write_stereo(audio, audio))
    assert (len(first), len(second)) == (1500 * 8, 600 * 8)
    with pytest.raises(RecordingError, match="only silence"):
        divide(write_stereo(silence(500), silence(500)))
    with pytest.raises(RecordingError, match="longer than 10 minutes"):
        divide(write_stereo(tone(1000) * 601, b""))


async def test_what_is_wrong_with_a_recording_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot read .*missing\.wav: No such file"):
        await read_recording(tmp_path / "missing.wav")
    (tmp_path / "song.wav").write_bytes(b"ID3 not a wave")
    with pytest.raises(RecordingError, match=r"cannot phone with .*song\.wav: it is not a WAV file"):
        await read_recording(tmp_path / "song.wav")


@pytest.mark.sockets
def test_a_bad_recording_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = demo(tmp_path, "--caller", "missing.wav")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "call-agent: cannot read missing.wav: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sockets
def test_without_the_extra_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise LocalModelMissingError("the embedded model needs hibari-tts: pip install 'call-agent[local]'")

    monkeypatch.setattr("agent.app.demo.run.check_installed", missing)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "call-agent: the embedded model needs hibari-tts" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.sockets
async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The last line of its log, not a wait for the time limit."""
    account = Account("not an account", "token", "http://127.0.0.1:1", "+15552223333")
    with trio.fail_after(30), pytest.raises(ServerError, match="Account SID"):
        async with open_agent(account, tmp_path):
            raise AssertionError("it started")


def channel(path: Path, index: int) -> bytes:
    """One channel of a stereo file, as mu-law."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return pcm16_to_ulaw(samples[:, index])


def piece(ulaw: bytes, begin_s: float, end_s: float) -> bytes:
    return ulaw[round(begin_s * 8000) : round(end_s * 8000)]


def result_of(after: dict[str, Any], step: str) -> dict[str, Any]:
    """What a post-call step found."""
    [row] = [row for row in after["steps"] if row["step"] == step]
    result: dict[str, Any] = row["result"]
    return result


@pytest.mark.alone
@pytest.mark.sockets
@pytest.mark.speech
@needs_speech
def test_the_demo_call(tmp_path: Path) -> None:
    """Everything the demo promises, from another folder, with a key and a .env of the user's in the way.

    The call is heard again from call.wav: the caller's words left, the agent's right, at their times.
    """
    from agent.local.speech.samples import transcribe  # noqa: PLC0415  (the extra)

    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-of-the-user\nAGENT_GREETING=Wrong\n")
    env = {"OPENAI_API_KEY": "sk-of-the-user", "AGENT_PUBLIC_URL": "https://mine.example"}
    done = demo(tmp_path, "--out", "call", **env)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "[not heard:" in done.stdout
    assert "CALL_METRICS" in done.stdout
    out = tmp_path / "call"
    assert not (out / DATA / "postgres" / "postmaster.pid").exists()
    call: dict[str, Any] = json.loads((out / "call.json").read_bytes())
    record, carrier = call["record"], call["carrier"]
    assert all(check["held"] for check in call["checks"])
    assert record["outcome"] == "agent_hung_up"
    assert record["recording_sid"].startswith("RE")
    assert carrier["median_latency_ms"] <= TARGET_LATENCY_MS
    assert len(carrier["latencies_ms"]) == len(SCRIPT)
    assert struct.unpack_from(">II", (out / "timeline.png").read_bytes(), 16) == (1600, 700)

    left, right = channel(out / "call.wav", 0), channel(out / "call.wav", 1)
    after = call["after"]
    assert after["recording"]["channels"] == 2
    assert Path(after["recording"]["path"]).stat().st_size > 2 * 8000 * record["metrics"]["duration_ms"] / 1000
    assert {part["channel"] for part in result_of(after, "transcription")["segments"]} == {"caller", "agent"}
    assert CITY in result_of(after, "summary")["text"]
    assert (after["lead"]["name"], after["lead"]["city"]) == (NAME, CITY)
    assert [delivery["http_status"] for delivery in after["deliveries"]] == [200]
    shown = done.stdout.partition("call-agent calls show")[2]
    assert all(words in shown for words in ("Transcript", "[not heard:", "Harbour Dental", "Summary", "HTTP 200"))

    assert len(left) == len(right) == pytest.approx(carrier["duration_s"] * 8000, abs=200)
    greeting, answer, *_ = carrier["heard"]
    assert transcribe(piece(right, greeting["begin_s"], greeting["end_s"])).startswith("Hello")
    assert "Monday to Friday" in transcribe(piece(right, answer["begin_s"] - 0.1, answer["end_s"]))
    named = carrier["caller"][2]
    said = transcribe(piece(left, named["begin_s"] - 0.1, named["end_s"] + 0.1))
    assert NAME in said
    assert CITY in said


@pytest.mark.sockets
@pytest.mark.speech
@needs_speech
def test_a_signal_ends_the_demo_and_all_its_processes(tmp_path: Path) -> None:
    """Ctrl-C while the phone is up: status 130, no traceback, no server, no model."""
    with subprocess.Popen(
        COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = io.StringIO()
        while "phones" not in said.getvalue():
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said.write(line)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
        assert process.stderr.read() == ""
        assert not [child for child in children if child.is_running()]
        assert not (tmp_path / "demo-call" / DATA / "postgres" / "postmaster.pid").exists()

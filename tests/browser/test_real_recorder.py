"""Low bandwidth in a real Chromium: its MediaRecorder, our reader, the embedded model (WB-4, WB-6)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_page import (
    ROOT,
    drive,
    heard_ms,
    needs_chromium,
    newest_record,
    open_talk,
    write_conversation,
    write_microphone,
)

from agent.sim.sounds import silence

pytestmark = needs_chromium()
PROGRAM = "chromium_recorder.py"
ADMIN = "operator"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question after the greeting, and another one into its answer."""
    return write_conversation(tmp_path_factory.mktemp("microphone") / "microphone.wav")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page of an agent, and where its records are."""
    with open_talk(tmp_path_factory.mktemp("agent"), AGENT_ADMIN_TOKEN=ADMIN) as served:
        yield served


def metric(page: str, name: str) -> float:
    """What the server's metrics say."""
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{page}metrics", headers={"Authorization": f"Bearer {ADMIN}"})
    [line] = [line for line in answer.text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def assert_conversation(report: dict[str, Any], record: dict[str, Any]) -> None:
    """Greeted, asked, interrupted, answered; the page played what counts as heard."""
    agent = [turn for turn in record["turns"] if turn["role"] == "agent"]
    caller = [turn["text"] for turn in record["turns"] if turn["role"] == "caller"]
    assert record["outcome"] == "caller_hung_up"
    assert agent[0]["heard_text"].startswith("Hello")
    assert any("opening hours" in text.lower() for text in caller), caller
    assert [turn["interrupted"] for turn in agent].count(True) >= 1
    assert "interrupted" in report["captions"]
    assert abs(int(report["playedMs"]) - heard_ms(record)) <= 40 + 20 * len(agent)


def test_wb_4_a_spoken_conversation_by_media_recorder(server: tuple[str, Path], microphone: Path) -> None:
    """With an interruption, at a sixteenth of the bytes; the choice is remembered, and what it cost is told."""
    page, data = server
    report = drive("low", page, microphone, program=PROGRAM)
    record = newest_record(data)
    assert_conversation(report, record)
    assert (report["format"], report["headers"]) == ("webm/opus", 1)
    assert (report["remembered"], report["locked"]) == (True, True)
    seconds = record["metrics"]["duration_ms"] / 1000
    assert report["bytes"] / seconds < 48_000 / 8
    assert report["chunks"] / seconds == pytest.approx(1000 / 300, rel=0.3)
    assert record["metrics"]["frames_in"] / 50 == pytest.approx(seconds, abs=1.5), "as long as the call"
    assert 0 < metric(page, "agent_browser_decode_cpu_seconds_total") / seconds < 0.02
    assert metric(page, "agent_browser_decode_lag_seconds_count") >= report["chunks"] - 2


def test_a_browser_without_audio_worklet(server: tuple[str, Path], microphone: Path) -> None:
    """It records, whatever was chosen, and plays by timed pieces; what counts as heard is as true."""
    page, data = server
    report = drive("old", page, microphone, program=PROGRAM)
    assert_conversation(report, newest_record(data))
    assert (report["format"], report["choice"]) == ("webm/opus", False)


@pytest.mark.parametrize("chosen", ["", "low"])
def test_wb_6_a_full_send_buffer_closes_the_microphone(
    chosen: str, server: tuple[str, Path], tmp_path: Path
) -> None:
    """And not the call: past 2 MB nothing is recorded; the page says so, and opens it when it has caught up."""
    said = write_microphone(tmp_path / "mic.wav", silence(6500), "What are your opening hours?", silence(20_000))
    report = drive("stuck", server[0], said, chosen, program=PROGRAM)
    record = newest_record(server[1])
    assert report["states"] == ["talking", "talking"]
    assert report["meanwhile"] == 0
    assert "microphone is closed" in report["notice"]
    assert report["cleared"]
    assert report["after"] > 0
    assert report["headers"] == (2 if chosen else 0), "another recording for the same call"
    assert record["outcome"] == "caller_hung_up"
    assert any("opening hours" in turn["text"].lower() for turn in record["turns"] if turn["role"] == "caller")


def test_a_server_without_the_extra_says_so(tmp_path: Path, microphone: Path) -> None:
    """The call goes on in full bandwidth, and a browser that can only record is told what to do."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['av'] = None\n")
    with open_talk(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}") as (page, _):
        report = drive("not_here", page, microphone, program=PROGRAM)
    assert report["format"] == "pcm16"
    assert "cannot do low bandwidth" in report["notice"]
    assert "Use another browser" in report["without"]

"""``call-agent talk`` as a process, a microphone that speaks, and programs that drive Chromium before it."""

import json
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent.audio.ulaw import ulaw_to_pcm16
from agent.sim.sounds import silence
from bench.parts.browser import talking
from bench.parts.browser.chromium import HOW_TO_GET_IT, chromium

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parent.parent
AT_MOST_S = 120


def needs_chromium() -> list[pytest.MarkDecorator]:
    """The marks of a file whose tests drive Chromium and talk to the embedded model."""
    found = find_spec("playwright") and chromium()
    missing = pytest.mark.skipif(not found, reason=HOW_TO_GET_IT)
    return [pytest.mark.sockets, pytest.mark.speech, missing]


def write_microphone(path: Path, *said: bytes | str) -> Path:
    """A file that Chromium takes for a microphone: 8 kHz mu-law, or what a voice is to say."""
    pytest.importorskip("hibari")
    from agent.local.speech.samples import synthesise  # noqa: PLC0415 - it needs the [local] extra

    audio = b"".join(synthesise(part) if isinstance(part, str) else part for part in said)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(ulaw_to_pcm16(audio).tobytes())
    return path


def write_conversation(path: Path) -> Path:
    """A question after the greeting, and another one into its answer."""
    return write_microphone(
        path,
        silence(4500),
        "What are your opening hours?",
        silence(4500),
        "Where are you?",
        silence(30_000),
    )


@contextmanager
def open_talk(folder: Path, **settings: Any) -> Iterator[tuple[str, Path]]:
    """``call-agent talk`` with the embedded model: its page, and where its records are."""
    with talking.open_server(folder, **settings) as server:
        yield server.page, server.calls.parent


def call_agent(folder: Path, *arguments: str) -> None:
    """Run a command beside the server."""
    command = [sys.executable, "-m", "agent", *arguments]
    subprocess.run(command, cwd=folder, env=_environment(), check=True, capture_output=True)


def _environment() -> dict[str, str]:
    """Of this process, without settings of an agent."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "OPENAI_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def drive(what: str, *arguments: object, program: str = "chromium_page.py") -> dict[str, Any]:
    """Have a program drive Chromium; what it reports."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / program), what, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=AT_MOST_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def newest_record(data: Path) -> dict[str, Any]:
    """The record of the last call."""
    return talking.newest_record(data / "calls")


def heard_ms(record: dict[str, Any]) -> int:
    """What the record says was heard of the agent."""
    return sum(turn["heard_ms"] for turn in record["turns"] if turn["role"] == "agent")

"""A server with the embedded model, and whole calls of a real Chromium to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from agent.audio.ulaw import ulaw_to_pcm16
from agent.sim.sounds import silence
from bench.rig.processes import BenchError

ROOT: Final = Path(__file__).parents[3]
STOP_S: Final = 30.0
_OURS: Final = ("AGENT_", "OPENAI_", "TWILIO_", "DATABASE_URL", "PG")


@attrs.frozen
class Server:
    """A running ``call-agent talk``."""

    page: str
    """The URL."""
    calls: Path
    """The folder of its records."""
    process: subprocess.Popen[str]


@contextmanager
def open_server(folder: Path, *, port: int = 0, **settings: str) -> Iterator[Server]:
    """``call-agent talk``, with its data in ``folder``; asked to end when left. Raises BenchError."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    set_to = {"AGENT_ADMIN_PORT": "0", "AGENT_DRAIN_S": "0", "PYTHONPATH": str(ROOT), **settings}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "agent", "talk", "--port", str(port), "--no-open"],
            cwd=folder,
            env={**kept, **set_to},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            lines = process.stdout or ()
            url = next((line.split()[-1] for line in lines if line.startswith("Talk to the agent")), "")
            if not url:
                raise BenchError(f"the server did not start: {(folder / 'log').read_text()[-300:]}")
            yield Server(url, folder / "data" / "calls", process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)
            if process.stdout is not None:
                process.stdout.close()


def newest_record(calls: Path) -> dict[str, Any]:
    """The record of the last call of a browser."""
    newest = max(calls.glob("BR*.json"), key=lambda path: path.stat().st_mtime)
    record: dict[str, Any] = json.loads(newest.read_text("utf-8"))
    return record


def write_microphone(path: Path, said: Sequence[tuple[int, str]], rest_ms: int = 30_000) -> Path:
    """A file for Chromium's microphone: each text behind so many milliseconds of silence. Raises BenchError."""
    try:
        from agent.local.speech.samples import synthesise  # noqa: PLC0415 - of the [local] extra
    except ImportError as error:
        raise BenchError(f"the [local] extra is missing ({error})") from None
    audio = b"".join(silence(pause_ms) + synthesise(text) for pause_ms, text in said) + silence(rest_ms)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(ulaw_to_pcm16(audio).tobytes())
    return path

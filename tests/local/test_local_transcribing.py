"""Recordings to words without a key: the process, what it says, and that nothing is left of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import trio
from recording_files import write_recording

from agent.audio.ulaw import rms_dbfs
from agent.core.errors import ProviderError, StepDeadError
from agent.core.records import Turn
from agent.core.settings import load_settings
from agent.local.speech.transcribing import write_down
from agent.pipeline.transcription import local_transcribing
from agent.pipeline.transcription.local_transcribing import LocalTranscriber, OutputLine
from agent.pipeline.transcription.transcribing import open_transcriber
from agent.pipeline.transcription.wav_reading import open_wav
from agent.sim.carrier.rest.recordings import UlawSound
from agent.sim.sounds import silence, tone


class LevelVad:
    """Loud is speech."""

    def probability(self, window: bytes) -> float:
        """See Vad."""
        return 1.0 if rms_dbfs(window) > -40 else 0.0


def test_each_channel_is_listened_to_and_timed(tmp_path: Path) -> None:
    """Also what is still being said when the recording ends."""
    agent = silence(1000) + tone(1000) + silence(3000) + tone(500)
    path = write_recording(tmp_path / "x.wav", UlawSound((silence(5500), agent)))
    heard: list[int] = []

    def transcribe(ulaw: bytes) -> str:
        heard.append(len(ulaw) // 8)
        return f"words {len(heard)}"

    lines = list(write_down(open_wav(path), LevelVad, transcribe))
    said = [line for line in lines if line.text]
    assert [(line.channel, line.text) for line in said] == [(1, "words 1"), (1, "words 2")]
    for line, (start_ms, end_ms) in zip(said, [(1000, 2000), (5000, 5500)], strict=True):
        assert line.start_ms == pytest.approx(start_ms - 300, abs=40)  # the prefix kept in front
        assert line.end_ms == pytest.approx(end_ms, abs=70)
    assert heard[0] == pytest.approx(300 + 1000 + 500, abs=70)
    assert lines[-1] == OutputLine(channels=2)


# With processes that say what a test wants


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Run this source instead of the real process."""

    def put(source: str) -> None:
        (tmp_path / "stand_in.py").write_text(source)

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(local_transcribing, "MODULE", "stand_in")
    yield put
    assert not [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


HANGS = "import time; time.sleep(60)"


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("print('no JSON', flush=True)\n" + HANGS, ProviderError, "makes no sense"),
        ('print(\'{"channel": "two"}\')', ProviderError, "makes no sense"),
        ("import sys; sys.exit(7)", ProviderError, "ended with status 7"),
        ("import os; os.kill(os.getpid(), 9)", ProviderError, "ended with status -9"),
        ('print(\'{"failed": "it is at 44100 Hz"}\')', StepDeadError, "44100 Hz"),
        (HANGS, ProviderError, "said nothing"),
        ("print('x' * 2_000_000, flush=True, end='')\n" + HANGS, ProviderError, "does not end"),
    ],
)
async def test_a_process_that_fails(
    module: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    error: type[Exception],
    says: str,
) -> None:
    """Each way has its error, and no process is left, not even a dead one."""
    monkeypatch.setattr(local_transcribing, "SILENCE_S", 2.0)
    module(source)
    before = len(psutil.Process().children())
    with trio.fail_after(20), pytest.raises(error, match=says):
        await LocalTranscriber().transcribe(Path("x.wav"))
    assert len(psutil.Process().children()) == before


@pytest.mark.sockets
async def test_a_cancel_kills_the_process_and_buries_it(module: Callable[[str], None]) -> None:
    module("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANGS)
    me = psutil.Process()
    before, descriptors = len(me.children()), me.num_fds()
    with trio.fail_after(20), trio.move_on_after(0.5) as scope:
        await LocalTranscriber().transcribe(Path("x.wav"))
    assert scope.cancelled_caught
    assert len(me.children()) == before
    assert me.num_fds() <= descriptors


@pytest.mark.sockets
async def test_recordings_wait_for_each_other(module: Callable[[str], None]) -> None:
    module("import time; time.sleep(0.2); print('{\"channels\": 1}')")
    transcriber, most = LocalTranscriber(), 0
    before = len(psutil.Process().children())
    with trio.fail_after(30):
        async with trio.open_nursery() as watch:

            @watch.start_soon
            async def _count() -> None:
                nonlocal most
                while True:
                    most = max(most, len(psutil.Process().children()) - before)
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(transcriber.transcribe, Path("x.wav"))
            watch.cancel_scope.cancel()
    assert most == 1


@pytest.mark.sockets
async def test_secrets_stay_with_us(module: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "TWILIO_AUTH_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, "secret")
    module("import os, json; print(json.dumps({'failed': repr(sorted(os.environ))}))")
    with trio.fail_after(20), pytest.raises(StepDeadError) as caught:
        await LocalTranscriber().transcribe(Path("x.wav"))
    assert "PATH" in str(caught.value)
    assert not [name for name in ("OPENAI", "TWILIO", "DATABASE") if name in str(caught.value)]


@pytest.mark.sockets
def test_the_transcriber_imports_nothing_of_the_extra() -> None:
    extra = "'ctranslate2' in sys.modules or 'onnxruntime' in sys.modules"
    code = f"import sys, agent.pipeline.transcription.transcribing; sys.exit({extra})"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


# With the real networks


@pytest.mark.speech
@pytest.mark.sockets
async def test_without_a_key_a_recording_is_written_down(tmp_path: Path) -> None:
    """Two voices on two channels, the agent's first: whose is whose is found by what the agent said."""
    from agent.local.speech.samples import synthesise  # noqa: PLC0415  (needs the extra)

    agent_says, caller_says = "Hello, this is Harbour Plumbing. How can I help you?", "My kitchen tap is leaking."
    agent = synthesise(agent_says, "heart") + silence(4000)
    caller = silence(len(agent) // 8 - 3500) + synthesise(caller_says)
    turns = [
        Turn("agent", "1", agent_says, agent_says, 0, 1, 1, interrupted=False),
        Turn("caller", "2", caller_says, caller_says, 0, 1, 1, interrupted=False),
    ]
    path = write_recording(tmp_path / "x.wav", UlawSound((agent, caller)))
    async with open_transcriber(load_settings(openai_api_key="")) as transcriber:
        with trio.fail_after(60):
            got = await transcriber.transcribe(path, language="en", turns=turns)
    assert got.reversed_channels
    assert got.segments[0].channel == "agent"
    assert got.segments[-1].channel == "caller"
    text = " ".join(segment.text for segment in got.segments).lower()
    assert "plumbing" in text
    assert "leaking" in text


@pytest.mark.speech
@pytest.mark.sockets
async def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Its standard input closes when whoever started it dies, however that was."""
    path = write_recording(tmp_path / "x.wav", UlawSound((tone(600_000),)))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", local_transcribing.MODULE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(30):
            await trio.sleep(1.0)
            assert process.stdin is not None
            await process.stdin.aclose()
            assert await process.wait() == 3
    finally:
        with trio.move_on_after(5, shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()


@pytest.mark.speech
@pytest.mark.sockets
async def test_a_bad_file_is_dead(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"<html>")
    with trio.fail_after(60), pytest.raises(StepDeadError, match="no WAV file"):
        await LocalTranscriber().transcribe(tmp_path / "x.wav")

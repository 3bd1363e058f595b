"""Recordings to words without a key: the local networks, in a process of their own for each recording.

Its CPU never disturbs a call: it runs at low priority, one at a time. It imports the ``[local]`` extra, this
module does not. English only.
"""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio
from typing_extensions import override

from agent.core.errors import ProviderError, StepDeadError
from agent.core.records import Turn
from agent.pipeline.transcription.transcription import (
    ChannelWords,
    Transcriber,
    Transcription,
    make_transcription,
)

MODULE: Final = "agent.local.speech.transcribing"
"""What the process runs."""
MODEL: Final = "whisper tiny.en (local)"
SILENCE_S: Final = 120.0
"""Longest time without a line: loading takes 2 s, a minute of speech 3 s on a free core."""
KILL_S: Final = 2.0
"""How long to wait until a killed process is reaped."""
_MOST_LINE_BYTES: Final = 1024 * 1024
_SECRETS: Final = ("OPENAI_", "TWILIO_", "DATABASE_")


class OutputLine(msgspec.Struct, omit_defaults=True):
    """One line of the process: an utterance, how far it came, its success, or why there is none."""

    channel: int = 0
    start_ms: int = 0
    end_ms: int = 0
    text: str = ""
    channels: int = 0
    """Set in the last line, when everything was written down."""
    failed: str = ""
    """Why the recording cannot be written down."""


@attrs.define(eq=False)
class LocalTranscriber(Transcriber):
    """``Transcriber`` by Silero VAD and Whisper; recordings wait for each other."""

    _turnstile: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @override
    async def transcribe(self, path: Path, *, language: str = "", turns: Sequence[Turn] = ()) -> Transcription:
        """``language`` is of no use here. A cancel kills the process."""
        del language
        said: dict[int, list[ChannelWords]] = {}
        async with self._turnstile, _open_process(path) as process, aclosing(_lines(process)) as lines:
            async for line in lines:
                if line.failed:
                    raise StepDeadError(f"the recording cannot be transcribed here: {line.failed}")
                if line.channels:
                    heard = [said.get(channel, []) for channel in range(line.channels)]
                    return make_transcription(heard, MODEL, turns)
                if line.text:
                    said.setdefault(line.channel, []).append(ChannelWords(line.start_ms, line.end_ms, line.text))
            status = await process.wait()
        raise ProviderError(f"the local transcription ended with status {status} before it was through")


@asynccontextmanager
async def _open_process(path: Path) -> AsyncIterator[trio.Process]:
    """A process at work on ``path``; when left it is killed, if it has not ended, and reaped."""
    # -P: the working directory is no place to import from.
    process = await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", MODULE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)},
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        },
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with trio.move_on_after(KILL_S, shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()


async def _lines(process: trio.Process) -> AsyncGenerator[OutputLine, None]:
    """What the process says. Raises ProviderError when it says nothing for too long, or nonsense."""
    if process.stdout is None:
        raise ValueError("the process has no pipe")
    pending = b""
    while True:
        with trio.move_on_after(SILENCE_S) as waiting:
            received = await process.stdout.receive_some()
        if waiting.cancelled_caught:
            raise ProviderError(f"the local transcription said nothing for {SILENCE_S:.0f} s")
        if not received:
            return
        *whole, pending = (pending + received).split(b"\n")
        if len(pending) > _MOST_LINE_BYTES:
            raise ProviderError("the local transcription's line does not end")
        for line in whole:
            try:
                yield msgspec.json.decode(line, type=OutputLine)
            except msgspec.DecodeError as error:
                raise ProviderError(f"the local transcription's answer makes no sense: {error}") from None

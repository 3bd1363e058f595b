"""``python -m agent.local.speech.transcribing FILE``: write down a recording, one JSON line for each utterance.

The last line names the number of channels, or says why there is no transcription (see
``agent.pipeline.transcription.local_transcribing``).
The process has low priority and ends when its standard input closes, so that it never outlives who started it.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from agent.audio.ulaw import pcm16_to_ulaw
from agent.core.errors import StepDeadError, WeightsError
from agent.core.units import BYTES_PER_MS, SAMPLE_RATE_HZ, ULAW_SILENCE
from agent.local.speech.endpointing import Endpointer, TurnEnded
from agent.local.speech.listening import Listener, Vad
from agent.pipeline.transcription.local_transcribing import OutputLine
from agent.pipeline.transcription.wav_reading import WavFile, open_wav

NICE: Final = 10
"""Below the embedded model's server, which is below the calls."""
SILENCE_MS: Final = 500
"""Ends an utterance."""
_LEFT_ALONE: Final = 3
"""Exit status when standard input closed."""


def write_down(
    wav: WavFile, make_vad: Callable[[], Vad], transcribe: Callable[[bytes], str]
) -> Iterator[OutputLine]:
    """The lines of a recording, channel after channel; one without text for each block listened to."""
    if wav.head.rate_hz != SAMPLE_RATE_HZ:
        raise StepDeadError(f"it is at {wav.head.rate_hz} Hz; the local networks take {SAMPLE_RATE_HZ} Hz only")
    for channel in range(wav.channels):
        listener = Listener(make_vad(), Endpointer(silence_duration_ms=SILENCE_MS))
        for ulaw in _channel(wav, channel):
            for event in listener.append(ulaw):
                if isinstance(event, TurnEnded):
                    text = transcribe(listener.cut(event.audio_start_ms, event.audio_end_ms))
                    end_ms = max(event.audio_start_ms, event.audio_end_ms - SILENCE_MS)
                    yield OutputLine(channel, event.audio_start_ms, end_ms, text)
            yield OutputLine(channel)
    yield OutputLine(channels=wav.channels)


def _channel(wav: WavFile, channel: int) -> Iterator[bytes]:
    """One channel as mu-law, and enough silence behind it to end what is being said."""
    for block in wav.blocks():
        yield pcm16_to_ulaw(block[:, channel])
    yield bytes([ULAW_SILENCE]) * (2 * SILENCE_MS * BYTES_PER_MS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m agent.local.speech.transcribing", description=__doc__)
    parser.add_argument("file", type=Path, help="a WAV file, 16 bits at 8 kHz")
    path: Path = parser.parse_args().file
    os.nice(NICE)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        from agent.local.speech.stt import WhisperStt  # noqa: PLC0415  (the extra may be missing)
        from agent.local.speech.vad import SileroVad  # noqa: PLC0415  (likewise)

        for line in write_down(open_wav(path), SileroVad, WhisperStt.load().transcribe):
            _tell(line)
    except ImportError as error:
        _tell(OutputLine(failed=f"{error}: pip install 'call-agent[local]', or set OPENAI_API_KEY"))
    except (StepDeadError, WeightsError) as error:
        _tell(OutputLine(failed=str(error)))


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(_LEFT_ALONE)


def _tell(line: OutputLine) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

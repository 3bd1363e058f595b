"""Speech for demos and tests: a simulated caller's words, and what was said in a recording. English only.

The networks are loaded at the first call and kept. Both functions take tens to hundreds of milliseconds of CPU:
call them in a thread, or before the call begins.
"""

from functools import cache

from agent.local.speech.stt import WhisperStt
from agent.local.speech.tts import CALLER_VOICE, HibariTts


def synthesise(text: str, voice: str | None = None) -> bytes:
    """8 kHz mu-law of ``text``, by default in a voice that is not the agent's (``tts.VOICES``)."""
    return _tts().speak(text, voice or CALLER_VOICE)


def transcribe(ulaw: bytes) -> str:
    """What is said in 8 kHz mu-law; empty if nothing is."""
    return _stt().transcribe(ulaw)


@cache
def _tts() -> HibariTts:
    return HibariTts.load()


@cache
def _stt() -> WhisperStt:
    return WhisperStt.load()

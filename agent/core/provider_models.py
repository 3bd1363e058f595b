"""The provider's models: which are used unless a setting names others, and what a name tells of a model. Pure.

No other module names one (``tests/core/test_provider_models.py``): providers retire models.
Sources: https://developers.openai.com/api/docs/deprecations, .../api/docs/guides/speech-to-text.
"""

from typing import Any, Final

REALTIME: Final = "gpt-realtime-2.1"
"""Answers calls."""
TRANSCRIPTION: Final = ""
"""Writes down the caller's words within a Realtime session. Empty: only the recording is transcribed, later."""
RECORDING: Final = "gpt-transcribe"
"""Transcribes recordings."""
SUMMARY: Final = "gpt-6.1-terra"
"""Summarises calls and extracts particulars."""

_REASONING: Final = ("gpt-5", "gpt-6", "o1", "o3", "o4")
_WITH_TIMES: Final = "whisper-1"
_SEVERAL_LANGUAGES: Final = ("gpt-transcribe", "gpt-live-transcribe")


def reasons(model: str) -> bool:
    """Whether the model thinks before it answers, and takes a measure for it."""
    return model.startswith(_REASONING)


def tells_times(model: str) -> bool:
    """Whether a transcription comes in segments with times (``verbose_json``); all others return text alone."""
    return model == _WITH_TIMES


def language_hint(model: str, language: str) -> dict[str, Any]:
    """How a transcription model is told that ``language`` (BCP 47; empty: unknown) is spoken.

    Newer models refuse the field of the older ones.
    """
    code = language.partition("-")[0].lower()
    if not code:
        return {}
    return {"languages": [code]} if model.startswith(_SEVERAL_LANGUAGES) else {"language": code}

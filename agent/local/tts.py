"""Text to telephone speech: hibari at 24 kHz, brought to 8 kHz mu-law. English only.

The package carries one voice. Others are made of it by speaking faster or slower and playing the result at
another rate, which moves pitch and formants together as another throat would: so a simulated caller does not
sound like the agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

import attrs
import hibari  # type: ignore[import-untyped]  # ships no types
import numpy as np

from agent.local.resampling import resample
from agent.ulaw import pcm16_to_ulaw
from agent.units import SAMPLE_RATE_HZ

AGENT_VOICE: Final = "heart"
CALLER_VOICE: Final = "deep"
VOICES: Final[Mapping[str, Fraction]] = MappingProxyType(
    {AGENT_VOICE: Fraction(1), CALLER_VOICE: Fraction(21, 25), "bright": Fraction(28, 25)}
)
"""Our voices, each with its pitch relative to the packaged one."""
_LOUDNESS: Final = 0.1
"""Root mean square of the speech, full scale being 1: -20 dBFS, what telephone speech commonly has."""
_CEILING: Final = 0.97
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE: Final = re.compile(r"\+?\d(?:[\d -]{5,})\d")
_SIGNS: Final = {".": " dot ", "-": " dash ", "_": " underscore ", "+": " plus ", "@": " at "}


def speakable(text: str) -> str:
    """``text`` with e-mail addresses spelt as they are said and telephone numbers digit by digit."""
    text = _EMAIL.sub(lambda found: _spell(found[0]), text)
    return _PHONE.sub(lambda found: " ".join(c for c in found[0] if c.isdigit()), text)


def _spell(address: str) -> str:
    return "".join(_SIGNS.get(character, character) for character in address)


def sentences(text: str) -> list[str]:
    """The pieces in which ``text`` is spoken, so that the first is heard before the last is made."""
    return [str(sentence) for sentence in hibari.Hibari.split_sentences(text)]


@attrs.define(eq=False)
class HibariTts:
    """Speech of text; one instance serves every session, one sentence at a time."""

    _network: Any

    @classmethod
    def load(cls) -> HibariTts:
        """Load the voice and its dictionaries (about half a second), and warm both up."""
        speech = cls(hibari.Hibari(threads=1))
        speech.speak("Hello.")
        return speech

    def sentences(self, text: str) -> list[str]:
        """See the function."""
        return sentences(text)

    def speak(self, text: str, voice: str = AGENT_VOICE) -> bytes:
        """8 kHz mu-law of ``text``; an unknown voice is AGENT_VOICE; empty if nothing in it can be said."""
        pitch = VOICES.get(voice, VOICES[AGENT_VOICE])
        wave = self._network(speakable(text), speed=float(1 / pitch), seed=0)
        if not len(wave):
            return b""
        ratio = Fraction(SAMPLE_RATE_HZ, hibari.SAMPLE_RATE) / pitch
        narrow = resample(wave, ratio.numerator, ratio.denominator)
        loudness = float(np.sqrt(np.mean(narrow**2))) or 1.0
        levelled = np.clip(narrow * (_LOUDNESS / loudness), -_CEILING, _CEILING)
        return pcm16_to_ulaw((levelled * 32767).astype(np.int16))

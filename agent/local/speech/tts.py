"""Text to telephone speech: hibari at 24 kHz, brought to 8 kHz mu-law. English only.

The package carries one voice. Others are made of it by speaking faster or slower and playing the result at
another rate, which moves pitch and formants together as another throat would: so a simulated caller does not
sound like the agent.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final, Self

import attrs
import hibari
import numpy as np

from agent.audio.ulaw import pcm16_to_ulaw
from agent.core.audio_format import ULAW_8K, AudioFormat
from agent.local.speech.resampling import Wave, resample
from agent.local.speech.weights import HIBARI

AGENT_VOICE: Final = "heart"
CALLER_VOICE: Final = "deep"
VOICES: Final[Mapping[str, Fraction]] = MappingProxyType(
    {AGENT_VOICE: Fraction(1), CALLER_VOICE: Fraction(21, 25), "bright": Fraction(28, 25)}
)
"""Our voices, each with its pitch relative to the packaged one."""
_LOUDNESS: Final = 0.1
"""Root mean square of the speech, full scale being 1: -20 dBFS, what telephone speech commonly has."""
_CEILING: Final = 0.97
_LONG: Final = 60
"""A first sentence of more characters is divided; one of these takes 20 ms."""
_CLAUSE: Final = re.compile(r"(?<=.{16},) (?=.{20})")
_PER_MS: Final = hibari.SAMPLE_RATE // 1000
_AUDIBLE: Final = 0.03
"""Below this part of the peak (-30 dB) the edges of a piece are silence."""
_HEAD_MS: Final = 20
_TAIL_MS: Final = 280
"""Pause after a sentence; conversational English has 200 to 400 ms."""
_CLAUSE_TAIL_MS: Final = 120
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
    """The pieces in which ``text`` is spoken, so that the first is heard while the next is made.

    A long first sentence is divided at a comma: its first clause is ready sooner.
    """
    pieces = [str(sentence) for sentence in hibari.Hibari.split_sentences(text)]
    if pieces and len(pieces[0]) > _LONG and (comma := _CLAUSE.search(pieces[0])):
        pieces[:1] = [pieces[0][: comma.start()], pieces[0][comma.end() :]]
    return pieces


def _without_edges(wave: Wave, tail_ms: int) -> Wave:
    """``wave`` without the half second of near-silence that the network puts around each piece."""
    audible = np.flatnonzero(np.abs(wave) > _AUDIBLE * np.abs(wave).max())
    start = audible[0] - _HEAD_MS * _PER_MS
    return wave[max(0, start) : audible[-1] + tail_ms * _PER_MS]


@attrs.define(eq=False)
class HibariTts:
    """Speech of text; one instance serves every session, one sentence at a time."""

    _network: Any

    @classmethod
    def load(cls) -> Self:
        """Load the voice and its dictionaries (about half a second), and warm both up. Raises WeightsError."""
        HIBARI.checked()
        speech = cls(hibari.Hibari(threads=1))
        speech.speak("Hello.")
        return speech

    def sentences(self, text: str) -> list[str]:
        """The pieces in which ``text`` is spoken."""
        return sentences(text)

    def speak(self, text: str, voice: str = AGENT_VOICE, audio: AudioFormat = ULAW_8K) -> bytes:
        """``text`` in mu-law or PCM16; an unknown voice is AGENT_VOICE; empty if nothing in it can be said."""
        pitch = VOICES.get(voice, VOICES[AGENT_VOICE])
        tail_ms = _TAIL_MS if text.rstrip().endswith((".", "!", "?")) else _CLAUSE_TAIL_MS
        waves = self._network.stream(speakable(text), speed=float(1 / pitch), seed=0)
        pieces = [_without_edges(wave, tail_ms) for wave in waves if np.any(wave)]
        if not pieces:
            return b""
        wave = np.concatenate(pieces)
        ratio = Fraction(audio.rate_hz, hibari.SAMPLE_RATE) / pitch
        narrow = resample(wave, ratio.numerator, ratio.denominator)
        loudness = float(np.sqrt(np.mean(narrow**2)))
        levelled = np.clip(narrow * (_LOUDNESS / loudness), -_CEILING, _CEILING)
        samples = (levelled * 32767).astype("<i2")
        return pcm16_to_ulaw(samples) if audio == ULAW_8K else samples.tobytes()

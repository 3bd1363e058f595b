"""What did the caller say? Whisper tiny.en, 8-bit, on CTranslate2 with one thread. English only.

The spectrogram is padded to 15 s instead of Whisper's 30, which halves the time and costs no accuracy on turns
that short (DESIGN D15). Whisper invents text for what is no speech, hence the guards: only audio in which VAD
found speech comes here, an answer the network itself calls silence is dropped, its length is bounded by the
length of the audio, and text that goes round in circles is dropped.
"""

import re
from typing import Any, Final, Self

import attrs
import ctranslate2
import numpy as np
import tokenizers

from agent.audio.ulaw import ulaw_to_pcm16
from agent.core.units import SAMPLE_RATE_HZ, SILENCE_FRAME
from agent.local.speech.mel import FRAMES_PER_S, log_mel
from agent.local.speech.resampling import resample
from agent.local.speech.weights import WHISPER

NO_SPEECH: Final = 0.6
"""Above this probability of silence the text is dropped (Whisper's own default)."""
_UNIT: Final = np.float32(1 / 32768)
_PIECE_S: Final = 29
"""Longer turns are transcribed in pieces; the encoder takes at most 30 s."""
_SHORT_S: Final = 15
_BEAMS: Final = 5
_TOKENS: Final = 12
_TOKENS_PER_S: Final = 8
"""Most tokens of a text: nobody speaks faster than this, but a network in a loop does."""
_LOOP: Final = re.compile(r"\b(\w+)(?:\W+\1\b){5}|\b(\w+\W[\w' ,.]*?\w)(?:\W+\2\b){3}", re.IGNORECASE)


def is_looping(text: str) -> bool:
    """Does a word follow itself six times, or a phrase four times? People say "no, no, no, no", but not more."""
    return _LOOP.search(text) is not None


@attrs.define(eq=False)
class WhisperStt:
    """Text of speech; one instance serves every session, one utterance at a time."""

    _network: Any
    _tokens: Any
    _prompt: tuple[int | None, ...]

    @classmethod
    def load(cls) -> Self:
        """Load the weights from the installed package (about half a second), and warm them up.

        Raises WeightsError, ModuleNotFoundError.
        """
        path = WHISPER.checked()
        network = ctranslate2.models.Whisper(
            str(path), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
        )
        tokens = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        prompt = tuple(tokens.token_to_id(name) for name in ("<|startoftranscript|>", "<|notimestamps|>"))
        speech = cls(network, tokens, prompt)
        speech.transcribe(SILENCE_FRAME)
        return speech

    def transcribe(self, ulaw: bytes) -> str:
        """Text of 8 kHz mu-law speech of any length; empty if there is none to be understood."""
        size = _PIECE_S * SAMPLE_RATE_HZ
        texts = (self._piece(ulaw[start : start + size]) for start in range(0, len(ulaw), size))
        return " ".join(text for text in texts if text)

    def _piece(self, ulaw: bytes) -> str:
        seconds = len(ulaw) / SAMPLE_RATE_HZ
        samples = resample(ulaw_to_pcm16(ulaw).astype(np.float32) * _UNIT, 2, 1)
        frames = (_SHORT_S if seconds <= _SHORT_S else 30) * FRAMES_PER_S
        features = ctranslate2.StorageView.from_array(log_mel(samples, frames)[np.newaxis])
        [result] = self._network.generate(
            features,
            [list(self._prompt)],
            beam_size=_BEAMS,
            max_length=len(self._prompt) + _TOKENS + round(seconds * _TOKENS_PER_S),
            return_no_speech_prob=True,
        )
        text = str(self._tokens.decode(result.sequences_ids[0])).strip()
        return "" if result.no_speech_prob > NO_SPEECH or is_looping(text) else text

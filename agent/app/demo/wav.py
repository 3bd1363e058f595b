"""WAV files: any common one in, stereo PCM16 out. Pure: bytes to samples and back."""

from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from agent.audio.ulaw import pcm16_to_ulaw, ulaw_to_pcm16
from agent.core.errors import MalformedMessageError, SettingsError
from agent.core.units import SAMPLE_RATE_HZ
from agent.local.speech.resampling import Wave, resample
from agent.pipeline.recording.wav_format import WavHead, read_head, write_head
from agent.sim.carrier.rest.recordings import UlawSound

_RATES: Final = range(4000, 384_001)
_FINEST_RATIO: Final = 1000
"""Rates are matched to a thousandth: odd ones would need transforms of many millions of samples."""
_WRONG: Final = {
    "not_wav": "it is not a WAV file",
    "cut": "it is not a whole WAV file: its header or its sound is missing",
}
"""What is wrong with a head, by its kind; the others are damaged."""


class RecordingError(SettingsError):
    """The recording the user named cannot be phoned with; the message says why."""


def read_wav(raw: bytes) -> bytes:
    """The sound of a WAV file as 8 kHz mu-law, all channels mixed.

    Takes PCM of 8, 16, 24 and 32 bits, floats, and mu-law, at any rate. Raises RecordingError, without the name
    of the file.
    """
    if not raw:
        raise RecordingError("it is empty")
    try:
        head = read_head(raw)
    except MalformedMessageError as error:
        raise RecordingError(_WRONG.get(error.kind, f"its header is damaged: {error.detail}")) from None
    if head.rate_hz not in _RATES:
        raise RecordingError(f"its header is damaged: a rate of {head.rate_hz} Hz")
    # A recorder that was cut off promised more than there is.
    end = len(raw) if head.data_bytes is None else head.data_at + head.data_bytes
    mono = _mono(head, raw[head.data_at : end])
    if not len(mono):
        raise RecordingError("there is no sound in it")
    ratio = Fraction(SAMPLE_RATE_HZ, head.rate_hz).limit_denominator(_FINEST_RATIO)
    return _ulaw(resample(mono, ratio.numerator, ratio.denominator) if ratio != 1 else mono)


def write_stereo(left: bytes, right: bytes) -> bytes:
    """A WAV file, PCM16 at 8 kHz, of two mu-law channels; the shorter is filled up with silence."""
    sound = UlawSound((left, right))
    both = sound.read(0, sound.frames)
    return write_head(len(both), sound.channels, SAMPLE_RATE_HZ) + both


def _mono(form: WavHead, data: bytes) -> Wave:
    usable = len(data) - len(data) % form.frame_bytes
    samples = _samples(form, data[:usable]).reshape(-1, form.channels)
    mono: Wave = np.nan_to_num(samples.mean(axis=1, dtype=np.float32))
    return mono


def _samples(form: WavHead, data: bytes) -> Wave:
    """All samples, channels interleaved, full scale being 1."""
    whole: npt.NDArray[Any]
    match form.tag, form.bits:  # 1 is PCM, 3 IEEE float, 7 mu-law
        case (1, 8):
            whole, scale = np.frombuffer(data, np.uint8).astype(np.float32) - 128, 2**7
        case (1, 16):
            whole, scale = np.frombuffer(data, "<i2"), 2**15
        case (1, 24):
            three = np.frombuffer(data, np.uint8).reshape(-1, 3)
            # A lowest byte of zero keeps the sign where it belongs.
            whole, scale = np.pad(three, ((0, 0), (1, 0))).reshape(-1).view("<i4"), 2**31
        case (1, 32):
            whole, scale = np.frombuffer(data, "<i4"), 2**31
        case (3, 32 | 64):
            whole, scale = np.frombuffer(data, f"<f{form.bits // 8}"), 1
        case (7, 8):
            whole, scale = ulaw_to_pcm16(data), 2**15
        case _:
            raise RecordingError(
                f"its encoding (format {form.tag}, {form.bits} bits) is not supported; save it as 16-bit PCM"
            )
    return (whole / scale).astype(np.float32)


def _ulaw(mono: Wave) -> bytes:
    return pcm16_to_ulaw((np.clip(mono, -1, 1) * 32767).astype(np.int16))

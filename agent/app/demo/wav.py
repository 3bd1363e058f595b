"""WAV files: any common one in, stereo PCM16 out. Pure: bytes to samples and back.

Source: Microsoft's "Multiple channel audio data and WAVE files" (WAVE_FORMAT_EXTENSIBLE) and RFC 2361 (format
tags). The standard library's ``wave`` of Python 3.11 reads neither extensible headers nor floats.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

import attrs
import numpy as np
import numpy.typing as npt

from agent.audio.ulaw import pcm16_to_ulaw, ulaw_to_pcm16
from agent.core.errors import SettingsError
from agent.core.units import SAMPLE_RATE_HZ
from agent.local.speech.resampling import Wave, resample

_EXTENSIBLE: Final = 0xFFFE
_RATES: Final = range(4000, 384_001)
_MAX_CHANNELS: Final = 32
_FMT_BYTES: Final = 16
_EXTENSIBLE_BYTES: Final = 26
_FINEST_RATIO: Final = 1000
"""Rates are matched to a thousandth: odd ones would need transforms of many millions of samples."""


class RecordingError(SettingsError):
    """The recording the user named cannot be phoned with; the message says why."""


@attrs.frozen
class _Format:
    tag: int
    channels: int
    rate: int
    bits: int


def read_wav(raw: bytes) -> bytes:
    """The sound of a WAV file as 8 kHz mu-law, all channels mixed.

    Takes PCM of 8, 16, 24 and 32 bits, floats, and mu-law, at any rate. Raises RecordingError, without the name
    of the file.
    """
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise RecordingError("it is not a WAV file" if raw else "it is empty")
    form, data = None, None
    for name, body in _chunks(raw):
        if name == b"fmt ":
            form = _read_format(body)
        elif name == b"data":
            data = body
    if form is None or data is None:
        raise RecordingError("it is not a whole WAV file: its header or its sound is missing")
    mono = _mono(form, data)
    if not len(mono):
        raise RecordingError("there is no sound in it")
    ratio = Fraction(SAMPLE_RATE_HZ, form.rate).limit_denominator(_FINEST_RATIO)
    return _ulaw(resample(mono, ratio.numerator, ratio.denominator) if ratio != 1 else mono)


def write_stereo(left: bytes, right: bytes) -> bytes:
    """A WAV file, PCM16 at 8 kHz, of two mu-law channels; the shorter is filled up with silence."""
    both = np.zeros((max(len(left), len(right)), 2), dtype="<i2")
    both[: len(left), 0] = ulaw_to_pcm16(left)
    both[: len(right), 1] = ulaw_to_pcm16(right)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(both.tobytes())
    return file.getvalue()


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and bodies; a body longer than the file (a recorder that was cut off) is what there is of it."""
    at = 12
    while at + 8 <= len(raw):
        name, length = struct.unpack_from("<4sI", raw, at)
        yield name, raw[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _read_format(body: bytes) -> _Format:
    if len(body) < _FMT_BYTES:
        raise RecordingError("its header is damaged")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= _EXTENSIBLE_BYTES:
        [tag] = struct.unpack_from("<H", body, 24)
    if not 1 <= channels <= _MAX_CHANNELS or rate not in _RATES:
        raise RecordingError(f"its header is damaged: {channels} channels at {rate} Hz")
    return _Format(tag, channels, rate, bits)


def _mono(form: _Format, data: bytes) -> Wave:
    width = form.bits // 8
    usable = len(data) - len(data) % max(width * form.channels, 1)
    samples = _samples(form, data[:usable]).reshape(-1, form.channels)
    mono: Wave = np.nan_to_num(samples.mean(axis=1, dtype=np.float32))
    return mono


def _samples(form: _Format, data: bytes) -> Wave:
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

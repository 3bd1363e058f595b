"""WAV files for the demo: whatever a recorder writes is understood, and what is not is said in one sentence."""

from __future__ import annotations

import io
import struct
import wave
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.demo.wav import RecordingError, read_wav, write_stereo
from agent.audio.ulaw import rms_dbfs, ulaw_to_pcm16

PCM, FLOAT, MULAW, EXTENSIBLE = 1, 3, 7, 0xFFFE
TONE_DBFS = -9.0
"""A sine of half of full scale."""


def tone(hz: float, rate: int, seconds: float = 0.5) -> npt.NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def packed(samples: npt.NDArray[np.float64], tag: int, bits: int) -> bytes:
    """Samples of full scale 1 as they stand in a file."""
    match tag, bits:
        case (1, 8):
            return (samples * 127 + 128).astype(np.uint8).tobytes()
        case (1, 16):
            return (samples * 32767).astype("<i2").tobytes()
        case (1, 24):
            wide = (samples * (2**31 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
            return wide[:, 1:].tobytes()
        case (1, 32):
            return (samples * (2**31 - 1)).astype("<i4").tobytes()
        case _:
            return samples.astype(f"<f{bits // 8}").tobytes()


def wav(
    body: bytes, *, tag: int = PCM, bits: int = 16, rate: int = 8000, channels: int = 1, more: bytes = b""
) -> bytes:
    """A whole file; ``more`` are chunks before the sound."""
    width = bits // 8 * channels
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits)
    if tag == EXTENSIBLE:
        fmt += struct.pack(
            "<HHIH14s", 22, bits, 0, PCM, b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
        )
    chunks = struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + more + struct.pack("<4sI", b"data", len(body)) + body
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def loudest_hz(ulaw: bytes) -> float:
    spectrum = np.abs(np.fft.rfft(ulaw_to_pcm16(ulaw)))
    return float(np.argmax(spectrum) * 8000 / len(ulaw))


@pytest.mark.parametrize(("tag", "bits"), [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)])
def test_every_common_encoding_is_the_same_sound(tag: int, bits: int) -> None:
    ulaw = read_wav(wav(packed(tone(440, 8000), tag, bits), tag=tag, bits=bits))
    assert len(ulaw) == 4000
    assert loudest_hz(ulaw) == pytest.approx(440, abs=2)
    assert rms_dbfs(ulaw) == pytest.approx(TONE_DBFS, abs=0.3)


def test_extensible_headers_and_chunks_in_between_are_understood() -> None:
    """24 bits are commonly written with an extensible header; recorders add chunks, some of odd length."""
    body = packed(tone(440, 8000), PCM, 24)
    more = struct.pack("<4sI", b"LIST", 3) + b"abc\x00"
    assert rms_dbfs(read_wav(wav(body, tag=EXTENSIBLE, bits=24, more=more))) == pytest.approx(TONE_DBFS, abs=0.3)


def test_telephone_mulaw_is_taken_as_it_is() -> None:
    ulaw = bytes(range(256)) * 10
    assert ulaw_to_pcm16(read_wav(wav(ulaw, tag=MULAW, bits=8))) == pytest.approx(ulaw_to_pcm16(ulaw), abs=1)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000])
def test_every_rate_comes_out_at_the_same_pitch_and_length(rate: int) -> None:
    ulaw = read_wav(wav(packed(tone(1000, rate), PCM, 16), rate=rate))
    assert len(ulaw) == pytest.approx(4000, abs=2)
    assert loudest_hz(ulaw) == pytest.approx(1000, abs=4)
    assert rms_dbfs(ulaw) == pytest.approx(TONE_DBFS, abs=0.5)


def test_what_a_telephone_cannot_carry_is_filtered_not_folded() -> None:
    """6 kHz would fold to 2 kHz without a filter; it is gone instead."""
    assert rms_dbfs(read_wav(wav(packed(tone(6000, 48000), PCM, 16), rate=48000))) < -45


def test_stereo_is_mixed() -> None:
    both = np.stack([tone(440, 8000), np.zeros(4000)], axis=1).reshape(-1)
    ulaw = read_wav(wav(packed(both, PCM, 16), channels=2))
    assert len(ulaw) == 4000
    assert rms_dbfs(ulaw) == pytest.approx(TONE_DBFS - 6, abs=0.3)


def test_a_recording_cut_off_while_it_was_written_is_what_there_is_of_it() -> None:
    """Recorders leave the length at its largest; the last sample may be half there."""
    whole = wav(packed(tone(440, 8000), PCM, 16))
    at = whole.index(b"data") + 4
    streamed = whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 : -1001]
    assert len(read_wav(streamed)) == 4000 - 501


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"OggS" + bytes(100), "not a WAV file"),
        (b"RIFF\x04\x00\x00\x00WAVE", "missing"),
        (wav(b""), "no sound"),
        (wav(bytes(100), tag=0x55), "format 85, 16 bits.*16-bit PCM"),
        (wav(bytes(100), bits=12), "format 1, 12 bits"),
        (wav(bytes(100), bits=0), "1 channels of 0 bits"),
        (wav(bytes(100), rate=0), "damaged"),
        (wav(bytes(100), channels=0), "damaged"),
        (b"RIFF\x04\x00\x00\x00WAVEfmt \x02\x00\x00\x00ab", "damaged|missing"),
    ],
)
def test_what_cannot_be_used_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(RecordingError, match=reason):
        read_wav(raw)


@given(st.binary(max_size=200), st.integers(0, 80))
def test_damage_is_an_error_or_a_sound_and_nothing_else(noise: bytes, at: int) -> None:
    whole = wav(packed(tone(440, 8000, 0.01), PCM, 16))
    with suppress(RecordingError):
        assert read_wav(whole[:at] + noise + whole[at:])


def test_two_channels_are_written_side_by_side() -> None:
    """Caller left, agent right; the shorter is filled up."""
    raw = write_stereo(bytes([0x80]) * 160, bytes([0x00]) * 320)
    with wave.open(io.BytesIO(raw)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (
            2,
            2,
            8000,
            320,
        )
        samples = np.frombuffer(file.readframes(320), "<i2").reshape(-1, 2)
    assert list(samples[0]) == [32124, -32124]
    assert list(samples[200]) == [0, -32124]

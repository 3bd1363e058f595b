"""The head of a WAV file, whole, odd and damaged."""

import io
import struct
import wave
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import MalformedMessageError
from agent.pipeline.recording.wav_format import WavHead, read_head, write_head


@given(st.integers(0, 10**6), st.sampled_from([1, 2]), st.sampled_from([8000, 16000, 44100]))
def test_what_is_written_is_read(frames: int, channels: int, rate_hz: int) -> None:
    data_bytes = frames * channels * 2
    head = read_head(write_head(data_bytes, channels, rate_hz))
    assert head == WavHead(1, channels, rate_hz, 16, 44, data_bytes)
    assert head.duration_s(44 + data_bytes) == frames / rate_hz
    assert head.missing_bytes(44 + data_bytes) == 0


def test_the_standard_library_reads_what_is_written() -> None:
    with wave.open(io.BytesIO(write_head(8, 2, 8000) + bytes(8))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (
            2,
            2,
            8000,
            2,
        )


def test_chunks_before_the_samples_are_passed_over() -> None:
    plain = write_head(4, 1, 8000)
    odd = plain[:36] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + plain[36:]
    assert read_head(odd).data_at == len(odd)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_writer_that_could_not_go_back_means_up_to_the_end(length: int) -> None:
    head = read_head(write_head(0, 2, 8000)[:-4] + struct.pack("<I", length))
    assert head.data_bytes is None
    assert head.missing_bytes(1000) == 0
    assert head.duration_s(44 + 32000) == 1.0


def test_what_is_missing_is_counted() -> None:
    head = read_head(write_head(32000, 2, 8000))
    assert head.missing_bytes(44 + 12000) == 20000
    assert head.duration_s(44 + 16000) == 0.5
    assert head.duration_s(10) == 0


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "not_wav"),
        (b'{"code": 20404}', "not_wav"),
        (write_head(10, 2, 8000)[:30], "cut"),
        (write_head(10, 2, 8000)[:40], "cut"),
        (write_head(10, 2, 8000)[:12] + write_head(10, 2, 8000)[36:], "format"),
        (write_head(10, 0, 8000), "format"),
        (write_head(10, 2, 0), "format"),
    ],
)
def test_a_damaged_head_is_named(raw: bytes, kind: str) -> None:
    with pytest.raises(MalformedMessageError) as caught:
        read_head(raw)
    assert caught.value.kind == kind


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(raw: bytes) -> None:
    with suppress(MalformedMessageError):
        read_head(b"RIFF\0\0\0\0WAVE" + raw)

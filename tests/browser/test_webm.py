"""WebM as it arrives: of Chromium, of ffmpeg's muxer, of nobody at all; nothing in it is trusted (WB-4)."""

import io
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.browser.webm import MOST_ELEMENTS, MOST_SKIPPED, OpusTrack, Packet, WebmReader, packet_ms
from agent.core.errors import UnreadableAudioError
from agent.sim.browser.recorder import element, webm_header

CHROMIUM = Path(__file__).with_name("chromium.webm").read_bytes()
"""2.34 s of a tone of 440 Hz by the MediaRecorder of Chromium 156, at 24 kbit/s."""
HEAD = b"OpusHead\x01\x01\x00\x00\x80\xbb\x00\x00\x00\x00\x00"
BEGINNING = webm_header(HEAD)
CLUSTER = b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7
PACKET = b"\x08" + bytes(20)
"""20 ms of SILK."""


def block(packet: bytes = PACKET, *, track: int = 1, flags: int = 0x80) -> bytes:
    return element("a3", bytes([0x80 | track, 0, 0, flags]) + packet)


def made_by_ffmpeg(*, layout: str = "mono", rate: int = 48_000, **options: str) -> bytes:
    """Two seconds of a tone in a file of ffmpeg's muxer."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm", options=options) as container:
        stream: Any = container.add_stream("libopus", rate=rate)
        stream.layout = layout
        samples = (12_000 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.int16)
        format_ = stream.codec_context.format.name if stream.codec_context.format else "s16"
        resampler = av.AudioResampler(format_, layout, rate, frame_size=960)
        whole = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        for frame in (*resampler.resample(whole), *resampler.resample(None), None):
            container.mux(stream.encode(frame))
    return file.getvalue()


def read(file: bytes, sizes: Iterator[int] | None = None) -> list[OpusTrack | Packet]:
    """What a reader finds in a file that comes in pieces."""
    reader, found, at = WebmReader(), [], 0
    while at < len(file):
        size = next(sizes, len(file)) if sizes else len(file)
        found += reader.feed(file[at : at + size])
        at += size
    return found


def demuxed(file: bytes) -> list[bytes]:
    """What ffmpeg finds in it."""
    with av.open(io.BytesIO(file), "r") as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize(
    "file",
    [
        CHROMIUM,
        made_by_ffmpeg(),
        made_by_ffmpeg(layout="stereo"),
        made_by_ffmpeg(rate=16_000),
        made_by_ffmpeg(live="1", cluster_time_limit="250"),
    ],
    ids=["chromium", "ffmpeg", "stereo", "16 kHz", "live"],
)
def test_every_packet_is_found(file: bytes) -> None:
    """The same as ffmpeg's demuxer finds; one track, announced first."""
    track, *packets = read(file)
    assert isinstance(track, OpusTrack)
    assert track.head.startswith(b"OpusHead")
    assert [packet.data for packet in packets if isinstance(packet, Packet)] == demuxed(file)


@settings(deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1))
def test_it_may_be_cut_anywhere(sizes: list[int]) -> None:
    assert read(CHROMIUM, iter(sizes)) == read(CHROMIUM)
    assert read(CHROMIUM, iter([1] * len(CHROMIUM))) == read(CHROMIUM)


def test_a_recorder_that_starts_again_begins_anew() -> None:
    """In the middle of an element, too: what the recorder before still owed does not swallow the new header."""
    reader = WebmReader()
    first = reader.feed(BEGINNING + CLUSTER + block() + block()[:-5])
    again = reader.feed(BEGINNING + CLUSTER + block())
    assert first == again == [OpusTrack(HEAD), Packet(PACKET, 20.0)]
    skipping = WebmReader()
    skipping.feed(BEGINNING + element("ec", bytes(1000))[:-500])
    assert skipping.feed(BEGINNING + CLUSTER + block()) == again


def test_blocks_in_groups_and_what_is_not_needed() -> None:
    group = element("a0", element("a1", b"\x81\0\0\0" + PACKET) + element("75a2", b"\1"))
    other = element("1c53bb6b", bytes(5000)) + element("ec", b"") + element("1254c367", b"title")
    assert read(BEGINNING + other + CLUSTER + group + other + block())[1:] == [Packet(PACKET, 20.0)] * 2


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"RIFF....WAVEfmt ", "not WebM"),
        (b"OggS" + bytes(100), "not WebM"),
        (bytes(100), "no element begins with 0x00"),
        (CLUSTER + block(), "not WebM"),
        (element("1a45dfa3", element("4282", b"matroschka")), "not WebM but b'matroschka'"),
        (element("1a45dfa3", b"\x42\x82\x90webm"), "longer than what it is in"),
        (webm_header(HEAD, b"A_VORBIS"), "codec is A_VORBIS"),
        (webm_header(HEAD, b"V_VP8"), "codec is V_VP8"),
        (webm_header(HEAD[:9] + b"\6" + HEAD[10:]), "one or two channels"),
        (webm_header(HEAD[:18] + b"\1"), "one or two channels"),
        (webm_header(b""), "OpusHead is missing"),
        (BEGINNING + element("1654ae6b", b""), "0 tracks"),
        (BEGINNING + element("1654ae6b", element("ae", b"") * 2), "2 tracks"),
        (BEGINNING + CLUSTER + block(track=2), "track 2"),
        (element("1a45dfa3", element("4282", b"webm")) + CLUSTER + block(), "not announced"),
        (BEGINNING + CLUSTER + block(flags=0x82), "laced"),
        (BEGINNING + CLUSTER + element("a3", b"\x81\0"), "cut off"),
        (BEGINNING + CLUSTER + block(b""), "cut off"),
        (BEGINNING + CLUSTER + block(b"\x03\x00"), "0 times 10 ms"),
        (BEGINNING + CLUSTER + block(b"\x1b\x03" + bytes(9)), "3 times 60 ms"),
        (BEGINNING + CLUSTER + b"\xa3\x01" + b"\xff" * 7, "unknown"),
        (BEGINNING + CLUSTER + b"\xa3\x08\xff\xff\xff\xff", "4294967295 bytes"),
        (BEGINNING + CLUSTER + b"\xa3\x01" + b"\xfe" * 7, "bytes"),
        (BEGINNING + b"\xec\x01" + b"\xff" * 7, "unknown"),
        (BEGINNING + b"\xec\x00", "a size that is none"),
        (BEGINNING + element("ec", bytes(MOST_SKIPPED // 2)) * 3, "no audio"),
        (BEGINNING + CLUSTER + element("ec", b"") * (MOST_ELEMENTS + 1), "no audio"),
        (CLUSTER * 10, "not WebM"),
        (BEGINNING + CLUSTER * (MOST_ELEMENTS + 1), "no audio"),
    ],
)
def test_what_is_not_webm_with_one_opus_track_is_said(file: bytes, says: str) -> None:
    """Sizes that lie, other codecs, video, lacing: an error that names it, however it is cut."""
    for sizes in (None, iter([7] * len(file))):
        with pytest.raises(UnreadableAudioError, match=says.replace("(", r"\(")):
            read(file, sizes)


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes() -> None:
    whole = read(CHROMIUM)
    for end in range(0, len(CHROMIUM), 97):
        part = read(CHROMIUM[:end])
        assert part == whole[: len(part)]


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 200))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int) -> None:
    """And never kept beyond the longest element."""
    for file in (noise, BEGINNING + CLUSTER + noise, CHROMIUM[:at] + noise + CHROMIUM[at:]):
        reader = WebmReader()
        with suppress(UnreadableAudioError):
            for begin in range(0, len(file), 50):
                reader.feed(file[begin : begin + 50])
                assert len(reader._buffer) <= 16 * 1024 + 12


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=3))
def test_the_length_of_a_packet_is_as_the_decoder_finds_it(packet: bytes) -> None:
    """Checked against ffmpeg, for packets that it takes: so no audio is ever longer than what was allowed."""
    with suppress(UnreadableAudioError):
        length_ms = packet_ms(packet)
        decoder: Any = av.CodecContext.create("libopus", "r")
        decoder.layout = "mono"
        with suppress(av.FFmpegError):
            decoded = sum(frame.samples for frame in decoder.decode(av.Packet(packet)))
            assert decoded <= length_ms * 48

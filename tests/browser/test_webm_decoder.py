"""WebM/Opus to the call's own audio: nothing of it lost, nothing of it believed (WB-3, WB-4)."""

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from typing_extensions import override

from agent.browser.decoding import (
    MOST_CHUNK_BYTES,
    MOST_WAITING_BYTES,
    ChunkDecoder,
    Decoding,
    DecodingObserver,
    Job,
    run_in_thread,
)
from agent.browser.webm_decoder import MOST_BEGINNINGS, WebmDecoder
from agent.core.errors import UnreadableAudioError
from agent.sim.browser.recorder import WebmRecorder, element, webm_header

CHROMIUM = Path(__file__).with_name("chromium.webm").read_bytes()
HEAD = b"OpusHead\x01\x01\x00\x00\x80\xbb\x00\x00\x00\x00\x00"
LONG_MS = 1e9


def tone(length_ms: int, hz: int = 440) -> npt.NDArray[np.int16]:
    at_s = np.arange(24 * length_ms) / 24_000
    return (12_000 * np.sin(2 * np.pi * hz * at_s)).astype(np.int16)


def recorded(samples: npt.NDArray[np.int16], recorder: WebmRecorder | None = None) -> list[bytes]:
    """The chunks of a recorder that hears ``samples``."""
    recorder, audio = recorder or WebmRecorder(), samples.tobytes()
    chunks = [recorder.record(audio[at : at + 960]) for at in range(0, len(audio), 960)]
    return [chunk for chunk in (*chunks, recorder.stop()) if chunk]


def decoded(chunks: list[bytes], decoder: WebmDecoder | None = None) -> npt.NDArray[np.int16]:
    decoder = decoder or WebmDecoder()
    frames = [frame for chunk in chunks for frame in decoder.decode(chunk, LONG_MS)]
    assert {len(frame) for frame in frames} <= {960}
    return np.frombuffer(b"".join(frames), np.int16)


def delay_ms(heard: npt.NDArray[np.int16], said: npt.NDArray[np.int16]) -> float:
    """By how much what is heard lies behind what was said."""
    length = min(len(heard), len(said))
    match = np.correlate(heard[:length].astype(float), said[:length].astype(float), "full")
    return float(match.argmax() - length + 1) / 24


def test_wb_4_nothing_is_lost_at_the_beginning() -> None:
    """Not the first 60 ms, which ffmpeg's `nobuffer` eats; what precedes them is left out (pre-skip)."""
    noise = np.random.default_rng(1).normal(0, 3000, 24 * 1000).astype(np.int16)
    noise = np.convolve(noise, np.ones(8) / 8, "same").astype(np.int16)  # as speech: little above 3 kHz
    heard = decoded(recorded(noise))
    assert len(heard) == pytest.approx(24 * 1000, abs=24 * 21)
    assert abs(delay_ms(heard, noise)) < 1
    first = slice(0, 24 * 60)
    assert np.corrcoef(heard[first], noise[first])[0, 1] > 0.7


def test_what_chromium_records_is_heard() -> None:
    heard = decoded([CHROMIUM[at : at + 961] for at in range(0, len(CHROMIUM), 961)])
    assert len(heard) / 24 == pytest.approx(2280, abs=61)
    spectrum = np.abs(np.fft.rfft(heard[24_000:]))
    assert spectrum.argmax() * 24_000 / len(heard[24_000:]) == pytest.approx(440, abs=2)


def test_however_it_is_cut_it_is_the_same() -> None:
    """One decoder from the first chunk to the last: no seam between chunks."""
    whole = decoded([CHROMIUM])
    assert np.array_equal(decoded([CHROMIUM[at : at + 100] for at in range(0, len(CHROMIUM), 100)]), whole)


def test_a_recorder_that_starts_again_goes_on() -> None:
    recorder, decoder = WebmRecorder(), WebmDecoder()
    first = decoded(recorded(tone(1000), recorder), decoder)
    recorder.start()
    again = decoded(recorded(tone(1000), recorder), decoder)
    assert len(first) / 24 == pytest.approx(1000, abs=21)
    assert len(again) / 24 == pytest.approx(1000, abs=21)
    assert again[480:].std() == pytest.approx(12_000 / 2**0.5, rel=0.05)


def test_two_channels_are_mixed() -> None:
    """Packets of a stereo recorder; the head may announce one channel or two."""
    from fractions import Fraction  # noqa: PLC0415

    import av  # noqa: PLC0415

    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
    left = (12_000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype(np.int16)
    both = np.stack([left, left]).T.reshape(1, -1)
    packets = []
    for at in range(0, 96_000, 1920):
        frame = av.AudioFrame.from_ndarray(both[:, at : at + 1920].copy(), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at // 2, Fraction(1, 48_000)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    for channels in (1, 2):
        file = webm_header(HEAD[:9] + bytes([channels]) + HEAD[10:])
        file += b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7
        file += b"".join(element("a3", b"\x81\0\0\x80" + packet) for packet in packets)
        heard = decoded([file])
        assert len(heard) / 24 == pytest.approx(1000, abs=21)
        assert heard[4800:].std() == pytest.approx(12_000 / 2**0.5, rel=0.1)


def test_what_is_too_long_is_refused_before_it_is_decoded() -> None:
    """Eleven bytes can be 120 ms: a flood of them costs no more than reading them."""
    packet = element("a3", b"\x81\0\0\x80" + b"\x1b\x02\x00")
    chunk = webm_header(HEAD) + b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7 + packet * 5000
    assert len(chunk) < MOST_CHUNK_BYTES
    decoder = WebmDecoder()
    with pytest.raises(UnreadableAudioError, match="more audio than time"):
        decoder.decode(chunk, 20_000)
    assert decoder._decoder is None


def test_beginnings_are_bounded() -> None:
    decoder = WebmDecoder()
    for _ in range(MOST_BEGINNINGS):
        decoder.decode(webm_header(HEAD), LONG_MS)
    with pytest.raises(UnreadableAudioError, match="beginnings"):
        decoder.decode(webm_header(HEAD), LONG_MS)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=20), st.binary(min_size=8, max_size=8))
def test_any_packets_are_decoded_or_refused(packets: list[bytes], head: bytes) -> None:
    """The decoder takes what it takes, with any delay, rate and gain; no other error than ours comes out."""
    file = webm_header(HEAD[:10] + head + b"\0") + b"\x1f\x43\xb6\x75\x01" + b"\xff" * 7
    file += b"".join(element("a3", b"\x81\0\0\x80" + packet) for packet in packets)
    with suppress(UnreadableAudioError):
        WebmDecoder().decode(file, LONG_MS)


class Costs(DecodingObserver):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lags_s: list[float] = []
        self.cpu_s = 0.0

    @override
    def decoded(self, cpu_s: float, lag_s: float) -> None:
        self.cpu_s += cpu_s
        self.lags_s.append(lag_s)


class Idle(ChunkDecoder):
    """A decoder that decodes nothing, and remembers the threads it was in."""

    threads: frozenset[int] = frozenset()

    @override
    def decode(self, chunk: bytes, most_ms: float) -> list[bytes]:
        self.threads |= {threading.get_ident()}
        return [chunk]


async def test_the_lag_is_from_the_coming_of_a_chunk(autojump_clock: MockClock) -> None:
    async def slowly(job: Job) -> list[bytes]:
        await trio.sleep(0.03)
        return job()

    costs = Costs()
    taken: list[bytes] = []
    decoding = Decoding(Idle(), costs, slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(decoding.run, taken.append, lambda: LONG_MS)
        for chunk in (b"1", b"2", b"3"):
            assert decoding.put(chunk)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert taken == [b"1", b"2", b"3"]
    assert costs.lags_s == pytest.approx([0.03, 0.06, 0.09])


async def test_what_waits_is_bounded(autojump_clock: MockClock) -> None:
    decoding = Decoding(Idle(), Costs())
    assert not decoding.put(bytes(MOST_CHUNK_BYTES + 1))
    taken = 0
    while decoding.put(bytes(MOST_CHUNK_BYTES)):
        taken += MOST_CHUNK_BYTES
    assert taken <= MOST_WAITING_BYTES + MOST_CHUNK_BYTES


@pytest.mark.sockets
async def test_a_cancel_waits_until_the_decoder_is_free() -> None:
    """The call that ends leaves no thread behind that is still in its decoder (ST-1)."""
    inside, go_on, ended = threading.Event(), threading.Event(), []

    class Busy(ChunkDecoder):
        @override
        def decode(self, chunk: bytes, most_ms: float) -> list[bytes]:
            inside.set()
            go_on.wait(20)
            ended.append(chunk)
            return [chunk]

    taken: list[bytes] = []
    decoding = Decoding(Busy(), Costs())
    decoding.put(b"x")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(decoding.run, taken.append, lambda: LONG_MS)
            await trio.to_thread.run_sync(inside.wait, 20)
            nursery.cancel_scope.cancel()
            go_on.set()
    assert ended == [b"x"]


@pytest.mark.sockets
async def test_st_3_decoding_is_off_the_event_loop() -> None:
    idle = Idle()
    taken: list[bytes] = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                decoding = Decoding(idle, Costs(), run_in_thread)
                decoding.put(b"x")
                nursery.start_soon(decoding.run, taken.append, lambda: LONG_MS)
            while len(taken) < 3:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert threading.get_ident() not in idle.threads

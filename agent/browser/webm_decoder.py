"""WebM/Opus to the call's PCM16 at 24 kHz, by PyAV: the optional extra ``[browser]``."""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any, Final

import attrs
from typing_extensions import override

from agent.browser.decoding import ChunkDecoder, Decoding, DecodingObserver
from agent.browser.webm import OpusTrack, Packet, WebmReader
from agent.core.audio_format import PCM16_24K
from agent.core.errors import UnreadableAudioError

MOST_BEGINNINGS: Final = 50
"""Streams in one call: a recorder is started again when a caller's microphone was closed for a while."""
DECODED_HZ: Final = 48_000
"""Of every Opus decoder of ffmpeg."""
_BYTES: Final = 2
"""Of a sample."""


def is_installed() -> bool:
    """Whether PyAV is there. Imports it: 50 ms and 19 MB that no call should be the first to pay."""
    if importlib.util.find_spec("av") is None:
        return False
    importlib.import_module("av")
    return True


def open_decoding(observer: DecodingObserver) -> Decoding:
    """The decoding of one call."""
    return Decoding(WebmDecoder(), observer)


@attrs.define(eq=False)
class WebmDecoder(ChunkDecoder):
    """Decodes the chunks of one call (WB-4), two channels mixed to one: one decoder from the first to the last.

    Made and used outside the event loop, by one thread at a time.
    """

    _av: Any = attrs.field(factory=lambda: importlib.import_module("av"))
    _numpy: Any = attrs.field(factory=lambda: importlib.import_module("numpy"))
    _reader: WebmReader = attrs.field(factory=WebmReader)
    _decoder: Any = None
    _resampler: Any = None
    _beginnings: int = 0
    _decoded_ms: float = 0.0
    _rest: bytearray = attrs.field(factory=bytearray)

    @override
    def decode(self, chunk: bytes, most_ms: float) -> list[bytes]:
        """See ChunkDecoder; what would be too long is not decoded."""
        found = self._reader.feed(chunk)
        self._decoded_ms += sum(part.length_ms for part in found if isinstance(part, Packet))
        if self._decoded_ms > most_ms:
            raise UnreadableAudioError("more audio than time")
        decoded = bytearray()
        for part in found:
            if isinstance(part, OpusTrack):
                self._begin(part)
            else:
                decoded += self._samples(part.data)
        if decoded:
            self._rest += self._resampled(decoded)
        frame_bytes = PCM16_24K.frame_bytes
        whole = len(self._rest) // frame_bytes * frame_bytes
        frames = [bytes(self._rest[at : at + frame_bytes]) for at in range(0, whole, frame_bytes)]
        del self._rest[:whole]
        return frames

    def _begin(self, track: OpusTrack) -> None:
        self._beginnings += 1
        if self._beginnings > MOST_BEGINNINGS:
            raise UnreadableAudioError("too many beginnings")
        self._decoder = self._av.CodecContext.create("libopus", "r")
        self._decoder.extradata = track.head  # with it, what precedes the first sound is left out (RFC 7845 4.2)
        self._decoder.layout = "mono"
        self._decoder.thread_count = 1
        if self._resampler is None:
            self._resampler = self._av.AudioResampler("s16", "mono", PCM16_24K.rate_hz)

    def _samples(self, data: bytes) -> bytes:
        """What the decoder makes of a packet, at its own rate."""
        try:
            return _bytes_of(self._decoder.decode(self._av.Packet(data)))
        except self._av.FFmpegError as error:
            raise UnreadableAudioError(f"an Opus packet of {len(data)} bytes is broken: {error}") from None

    def _resampled(self, decoded: bytearray) -> bytes:
        """All of a chunk at once: by the packet it costs a quarter of all decoding more."""
        samples = self._numpy.frombuffer(decoded, self._numpy.int16)[None]
        frame = self._av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = DECODED_HZ
        return _bytes_of(self._resampler.resample(frame))


def _bytes_of(frames: Iterable[Any]) -> bytes:
    return b"".join(bytes(frame.planes[0])[: frame.samples * _BYTES] for frame in frames)

"""What a MediaRecorder makes of a microphone: WebM/Opus in chunks, by PyAV's encoder and a muxer of 30 lines."""

from fractions import Fraction
from typing import Any, Final

import attrs
import numpy as np

from agent.core.audio_format import PCM16_24K

CHUNK_MS: Final = 250
BIT_RATE: Final = 24_000
PACKET_MS: Final = 20
_PACKET_BYTES: Final = PACKET_MS * PCM16_24K.bytes_per_ms
_UNKNOWN: Final = b"\x01" + b"\xff" * 7


@attrs.define(eq=False)
class WebmRecorder:
    """Records PCM16 at 24 kHz; ``start`` it again for a new stream. Needs the extra ``[browser]``."""

    _encoder: Any = attrs.field(init=False)
    _pcm: bytearray = attrs.field(factory=bytearray)
    _chunk: bytearray = attrs.field(init=False)
    _encoded_ms: int = 0
    _cluster_ms: int = 0
    _given_ms: int = 0

    def __attrs_post_init__(self) -> None:
        """Begin."""
        self.start()

    def start(self) -> None:
        """Begin a stream: what was not given out yet is lost, as with a recorder that is stopped for good."""
        from av.codec.context import CodecContext  # noqa: PLC0415 - an optional extra

        self._encoder = CodecContext.create("libopus", "w")
        self._encoder.sample_rate = PCM16_24K.rate_hz
        self._encoder.layout, self._encoder.format = "mono", "s16"
        self._encoder.bit_rate = BIT_RATE
        self._encoder.options = {"application": "voip", "frame_duration": str(PACKET_MS)}
        self._encoder.time_base = Fraction(1, PCM16_24K.rate_hz)
        self._encoder.open()
        self._encoded_ms = self._cluster_ms = self._given_ms = 0
        self._pcm.clear()
        self._chunk = bytearray(webm_header(bytes(self._encoder.extradata)))

    def record(self, pcm: bytes) -> bytes:
        """Take audio of any length; the chunk that is complete with it, or nothing."""
        from av.audio.frame import AudioFrame  # noqa: PLC0415

        self._pcm += pcm
        while len(self._pcm) >= _PACKET_BYTES:
            samples = np.frombuffer(bytes(self._pcm[:_PACKET_BYTES]), np.int16)
            del self._pcm[:_PACKET_BYTES]
            frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = PCM16_24K.rate_hz
            for packet in self._encoder.encode(frame):
                self._put(bytes(packet))
        return self.stop() if self._encoded_ms - self._given_ms >= CHUNK_MS else b""

    def stop(self) -> bytes:
        """What is recorded and not given out yet."""
        self._given_ms = self._encoded_ms
        chunk, self._chunk = bytes(self._chunk), bytearray()
        return chunk

    def _put(self, packet: bytes) -> None:
        if self._encoded_ms % 10_000 == 0:
            self._cluster_ms = self._encoded_ms
            self._chunk += b"\x1f\x43\xb6\x75" + _UNKNOWN + element("e7", self._cluster_ms.to_bytes(4, "big"))
        at_ms = self._encoded_ms - self._cluster_ms
        self._chunk += element("a3", b"\x81" + at_ms.to_bytes(2, "big") + b"\x80" + packet)
        self._encoded_ms += PACKET_MS


def webm_header(head: bytes, codec: bytes = b"A_OPUS") -> bytes:
    """The beginning of a live stream with one track of audio, as Chromium writes it."""
    audio = element("e1", element("9f", b"\x01"))
    track = element("d7", b"\x01") + element("83", b"\x02") + element("86", codec) + element("63a2", head) + audio
    return (
        element("1a45dfa3", element("4282", b"webm"))
        + b"\x18\x53\x80\x67"
        + _UNKNOWN
        + element("1654ae6b", element("ae", track))
    )


def element(kind: str, body: bytes) -> bytes:
    """An element of EBML; ``kind`` is its id in hexadecimal digits."""
    return bytes.fromhex(kind) + (1 << 28 | len(body)).to_bytes(4, "big") + body

"""WebM with one Opus track, read as it arrives, in pieces of any size. Pure; no element is trusted.

A browser's MediaRecorder makes a live stream: segments and clusters of unknown size, no index, simple blocks. So
the file is read flat: masters that hold audio are entered and their ends do not matter; of all else only as much
is kept as is needed. Another EBML header begins a new stream: a MediaRecorder that was started again.
Sources: RFC 8794 (EBML), RFC 9559 (Matroska), RFC 7845 5.1 (OpusHead), RFC 6716 3.1 (a packet's first byte).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import attrs

from agent.core.errors import UnreadableAudioError

EBML: Final = 0x1A45DFA3
DOC_TYPE: Final = 0x4282
SEGMENT: Final = 0x18538067
TRACKS: Final = 0x1654AE6B
TRACK_ENTRY: Final = 0xAE
TRACK_NUMBER: Final = 0xD7
CODEC_ID: Final = 0x86
CODEC_PRIVATE: Final = 0x63A2
CONTENT_ENCODINGS: Final = 0x6D80
CLUSTER: Final = 0x1F43B675
SIMPLE_BLOCK: Final = 0xA3
BLOCK_GROUP: Final = 0xA0
BLOCK: Final = 0xA1
_ENTERED: Final = frozenset({SEGMENT, CLUSTER, BLOCK_GROUP})
_KEPT: Final = {EBML: 1024, TRACKS: 16 * 1024, SIMPLE_BLOCK: 16 * 1024, BLOCK: 16 * 1024}
"""Elements that are read as a whole, and how long they may be: 120 ms of Opus at its highest rate are 7.6 kB."""
MOST_SKIPPED: Final = 256 * 1024
"""Bytes between two blocks that are no audio."""
MOST_ELEMENTS: Final = 256
"""Elements between two blocks."""
LONGEST_PACKET_MS: Final = 120.0
_MAGIC: Final = EBML.to_bytes(4, "big")
_HEAD_BYTES: Final = 19
_FRAME_MS: Final = (10.0, 20.0, 40.0, 60.0) * 3 + (10.0, 20.0) * 2 + (2.5, 5.0, 10.0, 20.0) * 4
"""By the first five bits of a packet: three bandwidths of SILK, two of hybrid, four of CELT."""


@attrs.frozen
class OpusTrack:
    """A stream begins; ``head`` is its OpusHead, which says what to leave out at the beginning."""

    head: bytes


class Packet(NamedTuple):
    """One Opus packet, and how long its audio is."""

    data: bytes
    length_ms: float


@attrs.define(eq=False)
class WebmReader:
    """``feed`` it what came; it gives out what is complete. After an error it reads nothing more."""

    _buffer: bytearray = attrs.field(factory=bytearray)
    _skip: int = 0
    """Bytes still to come of an element that nobody needs."""
    _begun: bool = False
    _track: int = 0
    """The number of the audio's track; 0: not known yet."""
    _idle_bytes: int = 0
    _idle_elements: int = 0

    def feed(self, chunk: bytes) -> list[OpusTrack | Packet]:
        """What ``chunk`` completes, in order. Raises UnreadableAudioError."""
        buffer = self._buffer
        if chunk.startswith(_MAGIC):  # whatever the recorder before still owed
            buffer.clear()
            self._skip = 0
        buffer += chunk
        found: list[OpusTrack | Packet] = []
        at = 0
        while at < len(buffer):
            if self._skip:
                step = min(self._skip, len(buffer) - at)
                self._skip -= step
                at += step
                continue
            head = _read_head(buffer, at)
            if head is None:
                break
            kind, size, begin = head
            end = begin + self._length(kind, size)
            if kind in _KEPT and end > len(buffer):
                break
            self._count(end - at)
            if kind in _KEPT:
                self._read(kind, bytes(buffer[begin:end]), found)
                at = end
            else:
                self._skip, at = end - begin, begin
        del buffer[:at]
        return found

    def _length(self, kind: int, size: int | None) -> int:
        """How many bytes to keep or to skip."""
        if not self._begun and kind != EBML:
            raise UnreadableAudioError("it is not WebM: it does not begin with an EBML header")
        if kind in _ENTERED:
            return 0
        if size is None or size > _KEPT.get(kind, MOST_SKIPPED):
            raise UnreadableAudioError(f"an element {kind:#x} of {size or 'unknown'} bytes")
        return size

    def _count(self, length: int) -> None:
        self._idle_bytes += length
        self._idle_elements += 1
        if self._idle_bytes > MOST_SKIPPED or self._idle_elements > MOST_ELEMENTS:
            raise UnreadableAudioError("much of it is no audio")

    def _read(self, kind: int, body: bytes, found: list[OpusTrack | Packet]) -> None:
        if kind == EBML:
            self._begun, self._track = True, 0
            doc_type = dict(_children(body)).get(DOC_TYPE, b"")
            if doc_type not in (b"webm", b"matroska"):
                raise UnreadableAudioError(f"it is not WebM but {doc_type[:20]!r}")
        elif kind == TRACKS:
            self._track, track = _read_tracks(body)
            found.append(track)
        else:
            self._idle_bytes = self._idle_elements = 0
            found.append(self._packet(body))

    def _packet(self, block: bytes) -> Packet:
        number = _read_number(block, 0)
        if number is None or len(block) < number[1] + 4:
            raise UnreadableAudioError("a block is cut off")
        if not self._track or number[0] != self._track:
            raise UnreadableAudioError(f"a block of track {number[0]}, which was not announced")
        flags, data = block[number[1] + 2], block[number[1] + 3 :]
        if flags & 0x06:
            raise UnreadableAudioError("laced blocks, which no MediaRecorder makes")
        return Packet(data, packet_ms(data))


def packet_ms(packet: bytes) -> float:
    """How long the audio of an Opus packet is. Raises UnreadableAudioError."""
    frame_ms = _FRAME_MS[packet[0] >> 3]
    count = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[packet[0] & 3]
    if not 0 < frame_ms * count <= LONGEST_PACKET_MS:
        raise UnreadableAudioError(f"an Opus packet of {count} times {frame_ms:g} ms")
    return frame_ms * count


def _read_tracks(body: bytes) -> tuple[int, OpusTrack]:
    """The number of the only track, and what it says of itself."""
    entries = [entry for kind, entry in _children(body) if kind == TRACK_ENTRY]
    if len(entries) != 1:
        raise UnreadableAudioError(f"{len(entries)} tracks instead of one")
    fields = dict(_children(entries[0]))
    codec, head = fields.get(CODEC_ID, b"").rstrip(b"\0"), fields.get(CODEC_PRIVATE, b"")
    if codec != b"A_OPUS":
        raise UnreadableAudioError(f"its codec is {codec[:20].decode('ascii', 'replace')}, not A_OPUS")
    if CONTENT_ENCODINGS in fields:
        raise UnreadableAudioError("its track is compressed or encrypted")
    if len(head) < _HEAD_BYTES or head[:8] != b"OpusHead" or head[9] not in (1, 2) or head[18]:
        raise UnreadableAudioError("its OpusHead is missing, or not of one or two channels")
    return int.from_bytes(fields.get(TRACK_NUMBER, b""), "big"), OpusTrack(head)


def _children(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        kind, size, begin = _read_head(body, at) or (0, None, 0)
        if size is None or begin + size > len(body):
            raise UnreadableAudioError("an element is longer than what it is in")
        at = begin + size
        yield kind, body[begin:at]


def _read_head(data: bytes | bytearray, at: int) -> tuple[int, int | None, int] | None:
    """The id of an element, its size (None: unknown) and where its body begins; None: more must come."""
    width = 9 - data[at].bit_length()
    if width > 4:  # noqa: PLR2004 - EBMLMaxIDLength of WebM
        raise UnreadableAudioError(f"no element begins with {data[at]:#04x}")
    if len(data) <= at + width:
        return None
    number = _read_number(data, at + width)
    if number is None:
        return None
    return int.from_bytes(data[at : at + width], "big"), number[0], number[1]


def _read_number(data: bytes | bytearray, at: int) -> tuple[int | None, int] | None:
    """A number of variable width (None: all ones, unknown) and where it ends; None: more must come."""
    if at >= len(data):
        return None
    width = 9 - data[at].bit_length()
    end = at + width
    if width > 8:  # noqa: PLR2004 - eight bytes are the widest there is
        raise UnreadableAudioError("a size that is none")
    if end > len(data):
        return None
    value = int.from_bytes(data[at:end], "big") & (1 << 7 * width) - 1
    return (None if value == (1 << 7 * width) - 1 else value), end

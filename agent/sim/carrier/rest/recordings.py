"""Recordings as the simulated carrier keeps them: made from what was said and heard, or made up, with faults.

Two channels, 16 bits, 8 kHz: what the carrier received from the phone first, what it played to it second. Audio
is made when it is read, so a recording of two hours takes no memory::

    recording = twilio.recordings.made_up(call_sid, GeneratedSound(7200.0))
    recording.faults.break_after.append(1_000_000)      # the next download breaks after so many bytes
"""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Protocol

import attrs
import numpy as np
import numpy.typing as npt
import trio
from typing_extensions import override

from agent.audio.ulaw import ulaw_to_pcm16
from agent.core.units import SAMPLE_RATE_HZ, ULAW_SILENCE
from agent.pipeline.recording.wav_format import SAMPLE_BYTES, write_head
from agent.sim.carrier.tape import Tape

HEAD_BYTES: Final = 44
_PIECE_FRAMES: Final = 8192
_BEEP: Final = 0x2000
"""How far a beep's square wave goes from zero."""
Status = Literal["in-progress", "processing", "completed", "absent", "failed"]


class Sound(Protocol):
    """What a recording holds."""

    @property
    def channels(self) -> int:
        """1 or 2."""

    @property
    def frames(self) -> int:
        """Samples of each channel."""

    def read(self, start: int, end: int) -> bytes:
        """Frames ``start`` to ``end`` as interleaved 16-bit samples, little-endian."""


@attrs.frozen
class UlawSound(Sound):
    """Sound kept as mu-law, a channel each; the shorter is filled up with silence."""

    ulaw: tuple[bytes, ...] = attrs.field(repr=False)

    @property
    @override
    def channels(self) -> int:
        return len(self.ulaw)

    @property
    @override
    def frames(self) -> int:
        return max(map(len, self.ulaw), default=0)

    @override
    def read(self, start: int, end: int) -> bytes:
        silence = bytes([ULAW_SILENCE])
        return _interleaved([ulaw_to_pcm16(side[start:end].ljust(end - start, silence)) for side in self.ulaw])


@attrs.frozen
class GeneratedSound(Sound):
    """A tone of 200 ms each second on each channel in turn, for as long as wanted."""

    seconds: float
    channels: int = 2

    @property
    @override
    def frames(self) -> int:
        return round(self.seconds * SAMPLE_RATE_HZ)

    @override
    def read(self, start: int, end: int) -> bytes:
        second, within = np.divmod(np.arange(start, end), SAMPLE_RATE_HZ)
        beep = np.where(within // 8 % 2, -_BEEP, _BEEP) * (within < SAMPLE_RATE_HZ // 5)
        return _interleaved([beep * (second % self.channels == channel) for channel in range(self.channels)])


@attrs.define(eq=False, kw_only=True)
class MediaFaults:
    """What goes wrong with a recording's file."""

    break_after: deque[int] = attrs.field(factory=deque)
    """The next downloads break after so many bytes each."""
    missing_bytes: int = 0
    """The file ends so many bytes before what its head promises."""
    junk: bytes | None = None
    """What comes instead of a WAV file."""
    redirect_to: str = ""
    """Where downloads are sent to."""
    ranges: bool = True
    """Whether a part of the file can be asked for."""
    new_etag_each_time: bool = False


@attrs.define(eq=False, kw_only=True)
class SimulatedRecording:
    """One recording of a call."""

    sid: str
    call_sid: str
    status: Status
    channels: int
    callback: str = ""
    callback_events: frozenset[str] = frozenset({"completed"})
    started_s: float = 0.0
    sound: Sound = UlawSound((b"", b""))
    faults: MediaFaults = attrs.field(factory=MediaFaults)

    @property
    def duration_s(self) -> int:
        """Whole seconds, as the carrier counts them."""
        return round(self.sound.frames / SAMPLE_RATE_HZ)

    @property
    def etag(self) -> str:
        """The version of its file."""
        return f'"{secrets.token_hex(4) if self.faults.new_etag_each_time else self.sid[-8:]}"'

    @property
    def size(self) -> int:
        """Bytes of its file."""
        if self.faults.junk is not None:
            return len(self.faults.junk)
        return max(0, HEAD_BYTES + self._data_bytes - self.faults.missing_bytes)

    @property
    def _frame_bytes(self) -> int:
        return self.sound.channels * SAMPLE_BYTES

    @property
    def _data_bytes(self) -> int:
        return self.sound.frames * self._frame_bytes

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The file's bytes ``start`` to ``end``, made on the way."""
        if self.faults.junk is not None:
            yield self.faults.junk[start:end]
            return
        if start < HEAD_BYTES:
            yield write_head(self._data_bytes, self.sound.channels, SAMPLE_RATE_HZ)[start:end]
        at, end = max(0, start - HEAD_BYTES), end - HEAD_BYTES
        while at < end:
            frame, offset = divmod(at, self._frame_bytes)
            last = min(frame + _PIECE_FRAMES, self.sound.frames)
            piece = self.sound.read(frame, last)[offset : offset + end - at]
            yield piece
            at += len(piece)

    def describe(self) -> dict[str, Any]:
        """The recording as a resource of the API."""
        done = self.status == "completed"
        return {
            "sid": self.sid,
            "call_sid": self.call_sid,
            "status": self.status,
            "channels": self.channels,
            "duration": str(self.duration_s) if done else "-1",
        }


@attrs.define(eq=False)
class Recordings:
    """The recordings of an account, the newest last."""

    by_sid: dict[str, SimulatedRecording] = attrs.field(factory=dict)
    never_ready: bool = False
    """Recordings stay in processing."""
    ends_as: Literal["completed", "absent", "failed"] = "completed"
    agent_first: bool = False
    """The channels the other way round than documented."""
    deleted: list[str] = attrs.field(factory=list)

    def start(
        self, call_sid: str, channels: int, *, callback: str = "", events: str = "", sid: str = ""
    ) -> SimulatedRecording:
        """A recording begins."""
        wanted = frozenset(events.replace(",", " ").split()) or frozenset({"completed"})
        recording = SimulatedRecording(
            sid=sid or f"RE{secrets.token_hex(16)}",
            call_sid=call_sid,
            status="in-progress",
            channels=channels,
            callback=callback,
            callback_events=wanted,
            started_s=trio.current_time(),
        )
        self.by_sid[recording.sid] = recording
        return recording

    def made_up(self, call_sid: str, sound: Sound) -> SimulatedRecording:
        """A recording that is ready, of a call that need not have been."""
        recording = self.start(call_sid, sound.channels)
        recording.sound, recording.status = sound, "completed"
        return recording

    def of_call(self, call_sid: str) -> list[SimulatedRecording]:
        """A call's recordings, the newest first."""
        return [item for item in reversed(self.by_sid.values()) if item.call_sid == call_sid]

    def process(self, recording: SimulatedRecording, said: Tape, heard: Tape, ended_s: float) -> None:
        """The call is over: make its sound of the tapes, unless it is never to be ready."""
        if self.never_ready:
            recording.status = "processing"
            return
        sides = tuple(tape.render(recording.started_s, ended_s) for tape in (said, heard))
        if self.agent_first:
            sides = sides[::-1]
        if recording.channels == 1:
            sides = (mix(*sides),)
        recording.sound = UlawSound(sides)
        recording.status = self.ends_as

    def delete(self, sid: str) -> bool:
        """Delete one; whether it was there."""
        if self.by_sid.pop(sid, None) is None:
            return False
        self.deleted.append(sid)
        return True


def mix(first: bytes, second: bytes) -> bytes:
    """Two mu-law channels as one: of each pair of samples the louder."""
    return bytes(map(_louder, first, second))


def _louder(one: int, other: int) -> int:
    """Of two mu-law codes the one with the larger magnitude, which is stored inverted in the lower seven bits."""
    return one if ~one & 0x7F >= ~other & 0x7F else other


def _interleaved(sides: Sequence[npt.NDArray[Any]]) -> bytes:
    """16-bit samples of each channel in turn, little-endian."""
    return np.stack(sides, axis=1).astype("<i2").tobytes()

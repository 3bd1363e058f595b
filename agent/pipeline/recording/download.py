"""Recordings fetched from the carrier: asked for, downloaded to disk, resumed, checked, deleted there.

A recording is streamed to ``<folder>/<call sid>/<recording sid>.wav`` by way of a ``.part`` file, which a later
attempt, or a later process, goes on with. Nothing holds more than BLOCK_BYTES of it in memory.
"""

import errno
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import attrs
import httpx
import trio

from agent.core.errors import CarrierError, MalformedMessageError, NotReadyError, StepDeadError
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording.part_file import PartFile, hash_file, make_tag
from agent.pipeline.recording.wav_format import HEAD_BYTES, WavHead, read_head

BLOCK_BYTES: Final = 256 * 1024
"""Written at once: a thread for each network read would cost more than the write."""
MOST_BYTES: Final = 3 * 1024**3
"""Twilio ends a call after 24 hours: 2.8 GB in two channels of 16 bits at 8 kHz."""
RESUMES: Final = 5
"""Broken connections that one attempt bears; the next attempt goes on where it stopped."""
RESUME_PAUSE_S: Final = 0.5
"""Before the first resume; twice as long before each further one."""
FILE_THREADS: Final = 4
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_NOT_YET: Final = ("in-progress", "paused", "stopped", "processing")
_NEVER: Final = {
    "absent": "the carrier made no recording: the call was too short or silent",
    "failed": "the carrier failed to make the recording",
    "deleted": "the recording was deleted at the carrier",
}
_threads: Final = trio.CapacityLimiter(FILE_THREADS)
_T = TypeVar("_T")


@attrs.frozen
class RecordingState:
    """A recording as the carrier describes it. ``status`` is Twilio's."""

    recording_sid: RecordingSid
    status: str


@attrs.frozen
class RecordingMedia:
    """A recording's file under way, from byte ``start`` on, of ``total`` in all (None: not said).

    ``chunks()`` are its bytes; it raises httpx.TransportError when the connection breaks.
    """

    start: int
    total: int | None
    etag: str
    chunks: Callable[[], AsyncGenerator[bytes, None]]


class RecordingSource(Protocol):
    """The carrier's recordings.

    Everything raises CarrierError when the carrier refuses and httpx.TransportError when it is not reached; a
    cancel leaves nothing open.
    """

    async def recording_of(self, call_sid: CallSid) -> RecordingState | None:
        """The newest recording of a call; None: it has none."""

    async def recording_state(self, recording_sid: RecordingSid) -> RecordingState | None:
        """A recording; None: there is no such recording (any more)."""

    def open_media(self, recording_sid: RecordingSid, start: int) -> AbstractAsyncContextManager[RecordingMedia]:
        """Its file, from byte ``start`` on or else from 0. Raises StepDeadError when it is gone."""

    async def delete_recording(self, recording_sid: RecordingSid) -> None:
        """Delete it; one that is gone is fine, so it may be repeated.

        Do so after its transcription is done or dead: until then the carrier's copy is the only one that a worker
        on another machine can read.
        """


@attrs.frozen
class Downloaded:
    """A recording on our disk."""

    path: Path
    sha256: str
    size_bytes: int
    channels: int
    duration_s: float

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return {**attrs.asdict(self), "path": str(self.path)}


def path_of(folder: Path, call_sid: CallSid, recording_sid: RecordingSid) -> Path:
    """Where a recording is kept; the sids come from outside, so only their letters and digits name it."""
    return folder / _safe(call_sid) / f"{_safe(recording_sid)}.wav"


async def fetch_recording(
    call_sid: CallSid, told: RecordingState | None, carrier: RecordingSource, folder: Path
) -> Downloaded | None:
    """Bring the recording of an ended call to our disk; None: the carrier has none of this call.

    ``told`` is what a callback, or the call's record, told of it; None: nothing. May be repeated at any time:
    what is there is not fetched again. Raises NotReadyError (the carrier still works on it, or our disk is
    full), StepDeadError (there will never be one, or it is empty), and CarrierError, httpx.TransportError or
    OSError when another attempt may do better; that goes on where this one stopped. A cancel leaves the part on
    disk and nothing open.
    """
    known = told or await carrier.recording_of(call_sid)
    if known is None:
        return None
    recording_sid, status = known.recording_sid, known.status
    target = path_of(folder, call_sid, recording_sid)
    if await _run(target.exists):
        return await _run(_describe, target)
    if told is not None and status != "completed" and status not in _NEVER:
        # No callback, or only the one of the beginning: callbacks get lost.
        state = await carrier.recording_state(recording_sid)
        status = state.status if state is not None else "deleted"
    if status in _NEVER:
        raise StepDeadError(f"{_NEVER[status]} ({recording_sid}: {status})")
    if status in _NOT_YET:
        raise NotReadyError(f"recording {recording_sid} is {status} at the carrier")
    if status != "completed":
        raise CarrierError(f"recording {recording_sid} is in an unknown state: {status[:40]}")
    part = await _run(PartFile.find, target)
    try:
        await _download(recording_sid, carrier, part)
        return await _run(_finish, part)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        # Waiting helps, and the room that is left is for records (DO-3).
        await _run(part.discard)  # noqa: ASYNC120 - a cancel may take its place
        raise NotReadyError(f"no room is left on our disk for recording {recording_sid}") from None
    finally:
        part.close()


async def _download(recording_sid: RecordingSid, carrier: RecordingSource, part: PartFile) -> None:
    """Fetch what is missing of ``part``, over as many connections as RESUMES allows."""
    for resumes in range(RESUMES + 1):
        try:
            if await _receive(recording_sid, carrier, part):
                return
        except httpx.TransportError:
            if resumes == RESUMES:
                raise
        await trio.sleep(RESUME_PAUSE_S * 2**resumes)
    raise CarrierError(f"recording {recording_sid}: the carrier sends another version each time")


async def _receive(recording_sid: RecordingSid, carrier: RecordingSource, part: PartFile) -> bool:
    """One connection's worth; False: what we have is of another version, so begin again."""
    async with carrier.open_media(recording_sid, part.size) as media:
        tag = make_tag(media.etag, media.total)
        if (media.total or 0) > MOST_BYTES:
            raise StepDeadError(f"recording {recording_sid} has {media.total} bytes, which no call can have")
        if media.start != part.size or tag != part.tag:
            await _run(part.restart, tag)
            if media.start:
                return False
        broken = await _write_all(media, part)
        if broken is not None:
            raise broken
        if media.total is not None and part.size != media.total:
            raise httpx.RemoteProtocolError(f"{part.size} of {media.total} bytes came")
        return True


async def _write_all(media: RecordingMedia, part: PartFile) -> httpx.TransportError | None:
    """Write what comes, block by block; what broke the connection, after what came before is written."""
    pending, broken = bytearray(), None
    try:
        async with aclosing(media.chunks()) as chunks:
            async for chunk in chunks:
                pending += chunk
                if part.size + len(pending) > MOST_BYTES:
                    raise StepDeadError(f"the recording does not end after {MOST_BYTES} bytes")
                if len(pending) >= BLOCK_BYTES:
                    data, pending = bytes(pending), bytearray()
                    await _run(part.write, data)
    except httpx.TransportError as error:
        broken = error
    await _run(part.write, bytes(pending))
    return broken


def _finish(part: PartFile) -> Downloaded:
    """Check what came and keep it. Raises StepDeadError (empty), CarrierError (another attempt may do better)."""
    try:
        head = read_head(part.head(HEAD_BYTES)) if part.size else None
    except MalformedMessageError as error:
        part.discard()
        raise CarrierError(f"what the carrier sent is not a whole WAV file: {error.detail}") from None
    if head is None or head.duration_s(part.size) == 0:
        part.discard()
        raise StepDeadError("the recording is empty: the carrier sent no sound")
    missing = head.missing_bytes(part.size)
    if missing:
        part.discard()
        raise CarrierError(f"the recording is truncated: {missing} bytes of sound are missing")
    part.finish()
    return _downloaded(part.target, part.sha256, part.size, head)


def _describe(path: Path) -> Downloaded:
    """A recording fetched earlier: it was checked before it got its name."""
    digest, size = hash_file(path)
    with path.open("rb") as file:
        return _downloaded(path, digest.hexdigest(), size, read_head(file.read(HEAD_BYTES)))


def _downloaded(path: Path, sha256: str, size: int, head: WavHead) -> Downloaded:
    return Downloaded(path, sha256, size, head.channels, round(head.duration_s(size), 3))


def _safe(sid: str) -> str:
    return "".join(letter for letter in sid if letter.isascii() and letter.isalnum()) or "unnamed"


async def _run(call: Callable[..., _T], *arguments: Any) -> _T:
    """Work on files off the event loop (ST-3); a cancel waits for it, a block is short."""
    return await trio.to_thread.run_sync(partial(call, *arguments), limiter=_threads)

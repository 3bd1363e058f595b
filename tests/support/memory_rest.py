"""The carrier's REST API in memory: for calls in virtual time, where neither threads nor sockets may run.

::

    rest = MemoryRest(delay_s=0.2)
    rest.streams[stream.call_sid] = stream      # so that a hang-up by REST ends the simulated call
    ...
    assert [request.what for request in rest.requests] == ["start_recording", "hang_up"]

It keeps the calls' recordings, too (a ``RecordingSource`` of the pipeline): real ones of the streams it
knows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import httpx
import trio
from typing_extensions import override

from agent.carrier.rest import CarrierRest
from agent.core.errors import CarrierError, StepDeadError
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording.download import RecordingMedia, RecordingSource, RecordingState
from agent.sim.carrier.rest.recordings import Recordings, SimulatedRecording
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.carrier.tape import Tape

What = Literal[
    "hang_up",
    "transfer",
    "instruct",
    "start_recording",
    "create_call",
    "recording_of",
    "recording_state",
    "open_media",
    "delete_recording",
]
"""What is asked."""


@attrs.frozen
class MemoryRequest:
    """One request; ``subject`` is a call's or a recording's sid, or the number called."""

    t_s: float
    what: What
    subject: str


@attrs.define(eq=False, kw_only=True)
class MemoryRest(CarrierRest, RecordingSource):
    """``CarrierRest`` that takes ``delay_s`` for each request, remembers it, and fails on demand.

    A cancel does not take a request back: it was made, as it is with the real one.
    """

    delay_s: float = 0.1
    requests: list[MemoryRequest] = attrs.field(factory=list)
    streams: dict[str, SimulatedStream] = attrs.field(factory=dict)
    """Streams by call sid: a hang-up ends them. Calls without a stream are fine, too."""
    failures: deque[str] = attrs.field(factory=deque)
    """Messages of the CarrierError that each of the next requests ends in."""
    hung_up: list[CallSid] = attrs.field(factory=list)
    recordings: dict[CallSid, RecordingSid] = attrs.field(factory=dict)
    created: list[CallSid] = attrs.field(factory=list)
    transferred: dict[CallSid, str] = attrs.field(factory=dict)
    """Where calls were taken."""
    instructed: dict[CallSid, str] = attrs.field(factory=dict)
    """The TwiML that calls were given instead of their streams."""
    kept: Recordings = attrs.field(factory=Recordings)

    @override
    async def hang_up(self, call_sid: CallSid) -> None:
        """End the call, and its stream if it is known here. Raises CarrierError on demand."""
        await self._request("hang_up", call_sid)
        self.hung_up.append(call_sid)
        stream = self.streams.get(call_sid)
        if stream is not None:
            await stream.hang_up()

    @override
    async def transfer(self, call_sid: CallSid, number: str) -> None:
        """Take the call from us, which ends its stream. Raises CarrierError on demand.

        Its answer comes even if the end of the stream was told before, as from the real one's thread.
        """
        await self._take_over("transfer", call_sid, self.transferred, number)

    @override
    async def instruct(self, call_sid: CallSid, instructions: str) -> None:
        """Take the call from us, as ``transfer`` does. Raises CarrierError on demand."""
        await self._take_over("instruct", call_sid, self.instructed, instructions)

    async def _take_over(self, what: What, call_sid: CallSid, kept: dict[CallSid, str], value: str) -> None:
        with trio.CancelScope(shield=True):
            await self._request(what, call_sid)
            kept[call_sid] = value
            stream = self.streams.get(call_sid)
            if stream is not None:
                await stream.hang_up()

    @override
    async def start_recording(self, call_sid: CallSid) -> RecordingSid:
        """Start a recording. Raises CarrierError on demand."""
        await self._request("start_recording", call_sid)
        if call_sid not in self.recordings:
            self.recordings[call_sid] = RecordingSid(f"RE{len(self.recordings):032x}")
            self.kept.start(call_sid, 2, sid=self.recordings[call_sid])
        return self.recordings[call_sid]

    async def create_call(
        self, to: str, *, url: str, status_callback: str, machine_detection: bool = False
    ) -> CallSid:
        """Call ``to``: only noted. Raises CarrierError on demand."""
        del url, status_callback, machine_detection
        await self._request("create_call", to)
        self.created.append(CallSid(f"CA{len(self.created):032x}"))
        return self.created[-1]

    # RecordingSource

    @override
    async def recording_of(self, call_sid: CallSid) -> RecordingState | None:
        await self._request("recording_of", call_sid)
        found = self.kept.of_call(call_sid)
        return self._state(found[0]) if found else None

    @override
    async def recording_state(self, recording_sid: RecordingSid) -> RecordingState | None:
        await self._request("recording_state", recording_sid)
        found = self.kept.by_sid.get(recording_sid)
        return self._state(found) if found else None

    @asynccontextmanager
    @override
    async def open_media(self, recording_sid: RecordingSid, start: int) -> AsyncIterator[RecordingMedia]:
        """Of the faults those of the file itself are obeyed, not those of HTTP."""
        await self._request("open_media", recording_sid)
        recording = self.kept.by_sid.get(recording_sid)
        if recording is None or self._state(recording).status != "completed":
            raise StepDeadError(f"recording {recording_sid} is gone at the carrier")
        faults = recording.faults
        begin = start if faults.ranges and start <= recording.size else 0
        break_after = faults.break_after.popleft() if faults.break_after else None

        async def chunks() -> AsyncGenerator[bytes, None]:
            end = recording.size if break_after is None else min(recording.size, begin + break_after)
            for piece in recording.read(begin, end):
                await trio.lowlevel.checkpoint()
                yield piece
            if break_after is not None:
                raise httpx.ReadError("broken off")

        yield RecordingMedia(begin, recording.size, recording.etag, chunks)

    @override
    async def delete_recording(self, recording_sid: RecordingSid) -> None:
        await self._request("delete_recording", recording_sid)
        self.kept.delete(recording_sid)

    def _state(self, recording: SimulatedRecording) -> RecordingState:
        """How it is; a call that is over has its recording ready at once."""
        stream = self.streams.get(recording.call_sid)
        if recording.status == "in-progress" and (stream is None or stream.is_closed):
            said, heard = (stream.said, stream.playback.tape) if stream else (Tape(), Tape())
            ends = [span.end_s for tape in (said, heard) for span in tape.spans]
            self.kept.process(recording, said, heard, max(ends, default=recording.started_s))
        return RecordingState(RecordingSid(recording.sid), recording.status)

    async def _request(self, what: What, subject: str) -> None:
        self.requests.append(MemoryRequest(trio.current_time(), what, subject))
        failure = self.failures.popleft() if self.failures else ""
        await trio.sleep(self.delay_s)
        if failure:
            raise CarrierError(failure)

"""The neighbours of post-call work in memory, with faults: carrier, transcriber, analyst, receiver."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec
import trio

from agent.core.event_log import EventLog
from agent.core.records import Turn
from agent.core.telemetry import Telemetry
from agent.core.tenant import Tenant
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.analysis.extraction import Extraction, TranscriptLine, extract_by_rules, summarise_by_rules
from agent.pipeline.backends import Backends
from agent.pipeline.recording.download import RecordingMedia, RecordingState
from agent.pipeline.recording.wav_format import write_head
from agent.pipeline.transcription.transcription import ChannelWords, Transcription, make_transcription
from agent.pipeline.webhook.delivery import Delivery
from agent.pipeline.worker import Worker
from agent.store import Database
from agent.store.pg import open_pool

SAMPLES = bytes(8000 * 2 * 2)
"""A second of two channels."""
HEARD = (
    [ChannelWords(1500, 6000, "My name is Dana Levi, I am from Haifa and I want to book a cleaning.")],
    [ChannelWords(0, 1400, "Hello, how can I help?"), ChannelWords(7000, 9000, "I booked it for you.")],
)
HANGS = "hangs"


@attrs.define(eq=False)
class Faults:
    """What goes wrong, one entry for each use; HANGS never comes back."""

    next: deque[Exception | str] = attrs.field(factory=deque)
    always: Exception | str | None = None
    delay_s: float = 0.0
    uses: int = 0

    async def strike(self) -> None:
        """Be used: after ``delay_s`` come back, fail, or do not."""
        self.uses += 1
        await trio.sleep(self.delay_s)
        fault = self.next.popleft() if self.next else self.always
        if fault == HANGS:
            await trio.sleep_forever()
        if isinstance(fault, Exception):
            raise fault


@attrs.define(eq=False)
class MemoryCarrier:
    """``RecordingSource`` in memory: each call has a recording."""

    state: str = "completed"
    faults: Faults = attrs.field(factory=Faults)
    deleted: list[str] = attrs.field(factory=list)

    async def recording_of(self, call_sid: CallSid) -> RecordingState | None:
        """See RecordingSource."""
        await self.faults.strike()
        return RecordingState(RecordingSid("RE" + call_sid[2:]), self.state)

    async def recording_state(self, recording_sid: RecordingSid) -> RecordingState | None:
        """See RecordingSource."""
        await self.faults.strike()
        return RecordingState(recording_sid, self.state)

    def open_media(self, recording_sid: RecordingSid, start: int) -> AbstractAsyncContextManager[RecordingMedia]:
        """See RecordingSource."""
        return self._open_media(start)

    @asynccontextmanager
    async def _open_media(self, start: int) -> AsyncIterator[RecordingMedia]:
        await trio.lowlevel.checkpoint()
        whole = write_head(len(SAMPLES), 2, 8000) + SAMPLES

        async def chunks() -> AsyncGenerator[bytes, None]:
            await trio.lowlevel.checkpoint()
            yield whole[start:]

        yield RecordingMedia(start, len(whole), "etag", chunks)

    async def delete_recording(self, recording_sid: RecordingSid) -> None:
        """See RecordingSource."""
        await trio.lowlevel.checkpoint()
        self.deleted.append(recording_sid)


@attrs.define(eq=False)
class MemoryTranscriber:
    """``Transcriber`` that always hears the same."""

    faults: Faults = attrs.field(factory=Faults)
    heard: tuple[list[ChannelWords], ...] = HEARD

    async def transcribe(self, path: Path, *, language: str = "", turns: Sequence[Turn] = ()) -> Transcription:
        """See Transcriber."""
        await self.faults.strike()
        return make_transcription(self.heard, "memory", turns)


@attrs.define(eq=False)
class MemoryAnalyst:
    """``Analyst`` by rules, with faults."""

    summary: Faults = attrs.field(factory=Faults)
    extraction: Faults = attrs.field(factory=Faults)

    async def summarise(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> str:
        """See Analyst."""
        await self.summary.strike()
        return summarise_by_rules(conversation, tenant)

    async def extract(self, conversation: Sequence[TranscriptLine], tenant: Tenant) -> Extraction:
        """See Analyst."""
        await self.extraction.strike()
        return extract_by_rules(conversation, tenant)


@attrs.define(eq=False)
class MemoryReceiver:
    """What ``deliver`` leads to: keeps bodies by idempotency key."""

    faults: Faults = attrs.field(factory=Faults)
    statuses: deque[int] = attrs.field(factory=deque)
    """Of the next deliveries; then 200."""
    taken: Counter[str] = attrs.field(factory=Counter)
    bodies: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    order: list[str] = attrs.field(factory=list)

    async def deliver(self, payload: bytes, url: str, secret: str, key: str, *, allow_inward: bool) -> Delivery:
        """See webhook_delivery."""
        await self.faults.strike()
        status = self.statuses.popleft() if self.statuses else 200
        if status != 200:
            return Delivery(status, f"HTTP {status}", 5, is_dead=status == 410)
        self.taken[key] += 1
        self.bodies[key] = msgspec.json.decode(payload)
        self.order.append(key)
        return Delivery(200, None, 5)


@attrs.define(eq=False)
class Neighbours:
    """All four."""

    carrier: MemoryCarrier = attrs.field(factory=MemoryCarrier)
    transcriber: MemoryTranscriber = attrs.field(factory=MemoryTranscriber)
    analyst: MemoryAnalyst = attrs.field(factory=MemoryAnalyst)
    receiver: MemoryReceiver = attrs.field(factory=MemoryReceiver)

    def backends(self, folder: Path) -> Backends:
        """As the worker wants them."""
        return Backends(
            carrier=self.carrier,
            transcriber=self.transcriber,
            analyst=self.analyst,
            recordings=folder,
            deliver=self.receiver.deliver,
        )


@asynccontextmanager
async def open_ready_database(conninfo: str, max_size: int = 10) -> AsyncIterator[Database]:
    """A database that is migrated, as tests' are."""
    async with open_pool(conninfo, max_size=max_size) as pool:
        database = Database(conninfo, pool)
        database.ready.set()
        yield database


@asynccontextmanager
async def open_working(
    conninfo: str, folder: Path, neighbours: Neighbours, *, max_calls: int = 8
) -> AsyncIterator[tuple[Worker, Database]]:
    """A worker at work; cancelled when left."""
    async with open_ready_database(conninfo, max_calls + 2) as database:
        worker = Worker(database, neighbours.backends(folder), EventLog(Telemetry()), max_calls)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            yield worker, database
            nursery.cancel_scope.cancel(reason="the test is over")


async def until(is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until the world outside is so: it has no events of its own."""
    with trio.fail_after(within_s):
        while not is_so():  # noqa: ASYNC110 - see above
            await trio.sleep(0.02)

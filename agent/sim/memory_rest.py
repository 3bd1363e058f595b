"""The carrier's REST API in memory: for calls in virtual time, where neither threads nor sockets may run.

::

    rest = MemoryRest(delay_s=0.2)
    rest.streams[stream.call_sid] = stream      # so that a hang-up by REST ends the simulated call
    ...
    assert [request.what for request in rest.requests] == ["start_recording", "hang_up"]
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import attrs
import trio

from agent.errors import CarrierError
from agent.sim.carrier import SimulatedStream
from agent.units import CallSid, RecordingSid


@attrs.frozen
class MemoryRequest:
    """One request; ``subject`` is a call's sid, or the number called."""

    t_s: float
    what: Literal["hang_up", "start_recording", "create_call"]
    subject: str


@attrs.define(eq=False, kw_only=True)
class MemoryRest:
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

    async def hang_up(self, call_sid: CallSid) -> None:
        """End the call, and its stream if it is known here. Raises CarrierError on demand."""
        await self._request("hang_up", call_sid)
        self.hung_up.append(call_sid)
        stream = self.streams.get(call_sid)
        if stream is not None:
            await stream.hang_up()

    async def start_recording(self, call_sid: CallSid) -> RecordingSid:
        """Start a recording. Raises CarrierError on demand."""
        await self._request("start_recording", call_sid)
        return self.recordings.setdefault(call_sid, RecordingSid(f"RE{len(self.recordings):032x}"))

    async def create_call(
        self, to: str, *, url: str, status_callback: str, machine_detection: bool = False
    ) -> CallSid:
        """Call ``to``: only noted. Raises CarrierError on demand."""
        del url, status_callback, machine_detection
        await self._request("create_call", to)
        self.created.append(CallSid(f"CA{len(self.created):032x}"))
        return self.created[-1]

    async def _request(self, what: Literal["hang_up", "start_recording", "create_call"], subject: str) -> None:
        self.requests.append(MemoryRequest(trio.current_time(), what, subject))
        failure = self.failures.popleft() if self.failures else ""
        await trio.sleep(self.delay_s)
        if failure:
            raise CarrierError(failure)

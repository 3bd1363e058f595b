"""What is asked of the carrier by REST: hang up, record, dial; by the ``twilio`` package, off the event loop."""

from __future__ import annotations

from typing import Protocol

from agent.units import CallSid, RecordingSid


class CarrierRest(Protocol):
    """What a call asks of its carrier. Both are writes: a cancel waits for their answer (bounded)."""

    async def hang_up(self, call_sid: CallSid) -> None:
        """End the call; a call that is unknown or has ended already is fine. Raises CarrierError."""

    async def start_recording(self, call_sid: CallSid) -> RecordingSid:
        """Start a recording with caller and agent on separate channels. Raises CarrierError."""

"""What the scripted model writes: event envelopes, ids, counts. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import Any

import attrs
import msgspec

from agent.sim.model.script import ProviderError


@attrs.define(eq=False)
class Outbox:
    """Events in the order they are to be sent; ``ready`` is emptied by whoever sends them."""

    ready: list[str] = attrs.field(factory=list)
    sent_counts: Counter[str] = attrs.field(factory=Counter)
    errors_sent: list[dict[str, Any]] = attrs.field(factory=list)
    _ids: count[int] = attrs.field(factory=lambda: count(1))

    def new_id(self, kind: str) -> str:
        """An id no other object of this session has."""
        return f"{kind}_{next(self._ids)}"

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event of type ``kind``."""
        self.sent_counts[kind] += 1
        event = {"type": kind, "event_id": self.new_id("event"), **fields}
        self.ready.append(msgspec.json.encode(event).decode())

    def audio_delta(self, response_id: str, item_id: str, payload: str) -> None:
        """Send audio, already base64: most of the traffic, so it is put together by hand."""
        self.sent_counts["response.output_audio.delta"] += 1
        self.ready.append(
            f'{{"type":"response.output_audio.delta","event_id":"{self.new_id("event")}",'
            f'"response_id":"{response_id}","item_id":"{item_id}","output_index":0,'
            f'"content_index":0,"delta":"{payload}"}}'
        )

    def error(
        self, error: ProviderError, cause: Mapping[str, Any] | None = None, param: str | None = None
    ) -> None:
        """Send an error event; ``cause`` is the client's event, if it was one's fault."""
        body = {
            "type": error.type,
            "code": error.code,
            "message": error.message,
            "param": param,
            "event_id": cause.get("event_id") if cause else None,
        }
        self.errors_sent.append(body)
        self.send("error", error=body)

    def refuse(
        self, cause: Mapping[str, Any] | None, code: str, message: str, *, param: str | None = None
    ) -> None:
        """Send the error that answers a wrong request."""
        self.error(ProviderError("invalid_request_error", code, message), cause, param)

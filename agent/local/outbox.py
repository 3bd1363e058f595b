"""The way out of a session: events are numbered, encoded and left for the writer, without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import msgspec
import trio

from agent.local.config import RefusedError


@attrs.define(eq=False)
class Outbox:
    """Every method that sends raises trio.WouldBlock when the client has stopped reading."""

    _letters: trio.MemorySendChannel[str]
    _ids: int = 0

    def new_id(self, prefix: str) -> str:
        """An id no other thing of this session has."""
        self._ids += 1
        return f"{prefix}_{self._ids:06d}"

    def send(self, *events: Mapping[str, Any]) -> None:
        """Leave events for the writer, in order."""
        for event in events:
            letter = msgspec.json.encode({**event, "event_id": self.new_id("event")})
            self._letters.send_nowait(letter.decode())

    def refuse(self, refused: RefusedError, event_id: str | None) -> None:
        """Tell the client that its event ``event_id`` was not obeyed."""
        error = {
            "type": "invalid_request_error",
            "code": refused.code,
            "message": refused.message,
            "param": refused.param,
            "event_id": event_id,
        }
        self.send({"type": "error", "error": error})

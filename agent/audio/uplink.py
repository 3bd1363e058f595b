"""How caller audio goes to the model: frame by frame while the caller may be speaking, else in larger pieces.

Most of a call the caller listens, and a send for each 20 ms of a quiet line costs as much as the agent's own
speech. What is quiet is judged by our own ear, which hears more than a model's detector does; nothing is left
out, and from the first frame that is not quiet until the caller's turn is over, audio waits for nothing (BI-1).
Pure.
"""

from __future__ import annotations

from base64 import b64encode
from math import inf
from typing import Final

import attrs

ATTENTIVE_S: Final = 0.5
"""How long after the last frame that was not quiet audio still goes out frame by frame: a detector needs less to
say that a turn began."""


@attrs.define(eq=False)
class Uplink:
    """The caller audio of one call on its way to the model."""

    piece_bytes: int
    """Of a quiet line; that of one frame: each goes out at once."""
    _held: list[bytes] = attrs.field(factory=list)
    _held_bytes: int = 0
    _attentive_until: float = -inf

    def take(self, audio: bytes, payload: str, now: float, *, quiet: bool) -> str | None:
        """The base64 to append now, or None: ``audio`` waits. ``payload`` is its base64.

        ``quiet``: the caller is in no turn, and was not heard in it.
        """
        if not quiet:
            self._attentive_until = now + ATTENTIVE_S
        waits = now >= self._attentive_until and self._held_bytes + len(audio) < self.piece_bytes
        if not waits and not self._held:
            return payload
        self._held.append(audio)
        self._held_bytes += len(audio)
        if waits:
            return None
        piece = b64encode(b"".join(self._held)).decode()
        self._held.clear()
        self._held_bytes = 0
        return piece

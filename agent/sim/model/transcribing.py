"""When the caller's words come as text: soon in ``kind``; late, too late or never in ``real``. No clock."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

import attrs

from agent.model.server_shapes import Outbox

Later = Callable[[float, Callable[[float], None]], None]
"""Schedules a function for a time; the function is given that time."""

LATEST_S: Final = 2.5
"""In ``real``: by how much a transcript may come later than in ``kind``."""
MISSING, FAILED, OF_THE_TURN_BEFORE = 0.05, 0.1, 0.2
"""In ``real``: a random number below these means that a transcript never comes, fails, or comes a turn late."""
_EVENT: Final = "conversation.item.input_audio_transcription."


@attrs.define(eq=False)
class Transcribing:
    """Sends the transcripts of turns; with ``chance`` as the real service does."""

    _outbox: Outbox
    _later: Later
    _delay_s: float
    _chance: Random | None
    _held: list[tuple[str, str]] = attrs.field(factory=list)

    def commit(self, item_id: str, transcript: str, at_s: float) -> None:
        """A turn ended at ``at_s``, in which ``transcript`` was said."""
        held, self._held = self._held, []
        after_s = at_s + self._delay_s
        for item, words in held:
            self._plan(item, words, after_s)
        fate = self._chance.random() if self._chance else 1.0
        if fate < MISSING:
            return
        if fate < FAILED:
            self._later(after_s, lambda _: self._fail(item_id))
        elif fate < OF_THE_TURN_BEFORE:
            self._held.append((item_id, transcript))
        else:
            self._plan(
                item_id, transcript, after_s + (self._chance.uniform(0, LATEST_S) if self._chance else 0.0)
            )

    def _plan(self, item_id: str, transcript: str, at_s: float) -> None:
        self._later(at_s, lambda _: self._complete(item_id, transcript))

    def _complete(self, item_id: str, transcript: str) -> None:
        words = transcript.split(" ") if self._chance else []
        for number, word in enumerate(words):
            self._send("delta", item_id, delta=f" {word}" if number else word)
        self._send("completed", item_id, transcript=transcript, usage={"type": "duration", "seconds": 1.0})

    def _fail(self, item_id: str) -> None:
        self._send("failed", item_id, error={"type": "transcription_error", "code": None, "message": None})

    def _send(self, what: str, item_id: str, **fields: Any) -> None:
        self._outbox.send(_EVENT + what, item_id=item_id, content_index=0, **fields)

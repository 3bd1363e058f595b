"""A turn of the caller that began before or in the protected greeting, which may settle it (BI-5). Pure.

A hello gets one answer, the greeting; a question into the greeting gets its own. Which of the two a turn is, its
words say; where none come, how long there was voice.
"""

from typing import Final

import attrs

from agent.audio.generation import Purpose
from agent.audio.level_meter import LevelMeter
from agent.call.answers.responses import Response, Step
from agent.call.turns.small_talk import has_substance
from agent.core.units import FRAME_MS, ItemId

SUBSTANCE_MS: Final = 700
"""Voice, by our own ear, of a turn that has something to say: a hello has less."""
WORDS_S: Final = 3.0
"""How long after its end the words of a turn are waited for; then its length decides."""


@attrs.define(eq=False)
class GreetedTurn:
    """The turn that waits to be settled."""

    item_id: ItemId
    voiced_from: int
    """Voiced frames of the call, by our own ear, when it began."""
    committed_s: float | None = None
    answer: Response | None = None
    """What the provider began to say to it before its words were known."""


@attrs.frozen(eq=False)
class Verdict:
    """What becomes of a turn: with substance it wants an answer, without it the greeting was its answer."""

    substance: bool
    answer: Response | None


@attrs.define(eq=False)
class GreetedTurns:
    """At most one turn of a call waits for its verdict, which is returned by the method that makes it known."""

    meter: LevelMeter
    language: str
    """Of the caller, a BCP 47 tag; empty: unknown."""
    transcribed: bool
    """Whether sessions write down the caller's words."""
    over: bool = False
    """The protected part of the greeting was heard, or there is none."""
    _turn: GreetedTurn | None = None
    _unwanted: bool = False
    """The provider's next answer of its own is to a turn that the greeting settled."""

    def begins(self, item_id: ItemId, *, in_greeting: bool) -> None:
        """The caller begins to speak: if that is before or in the greeting, the turn may be settled by it."""
        self._unwanted = False
        if in_greeting and not self.over:
            self._turn = GreetedTurn(item_id, self.meter.voiced_total - self.meter.voiced_frames)

    def drop(self) -> None:
        """The turn is like any other: its session is lost, or it interrupts."""
        self._turn = None

    def has(self, item_id: ItemId) -> bool:
        """Whether this turn waits for its verdict."""
        return self._turn is not None and self._turn.item_id == item_id

    def committed(self, item_id: ItemId, now: float) -> Verdict | None:
        """The turn is over; where words come they decide."""
        if not self.has(item_id) or self._turn is None:
            return None
        self._turn.committed_s = now
        return None if self.transcribed else self._by_length(self._turn)

    def wordless(self, item_id: ItemId) -> Verdict | None:
        """The provider could not write down the turn."""
        return self._by_length(self._turn) if self._turn is not None and self.has(item_id) else None

    def said(self, item_id: ItemId, words: str) -> Verdict | None:
        """The words of a turn."""
        if self._turn is None or not self.has(item_id):
            return None
        return self._settle(self._turn, substance=has_substance(words, self.language))

    @property
    def due_s(self) -> float | None:
        """When words that have not come decide nothing any more; None if none are waited for."""
        turn = self._turn
        return None if turn is None or turn.committed_s is None else turn.committed_s + WORDS_S

    def overdue(self, now: float) -> Verdict | None:
        """The verdict that is due without words."""
        due_s = self.due_s
        return self._by_length(self._turn) if self._turn and due_s is not None and now >= due_s else None

    def answered(self, response: Response) -> None:
        """The provider begins an answer of its own, perhaps to the turn, or to one that wants none."""
        if response.purpose is Purpose.ANSWER:
            if self._unwanted:
                response.take(Step.CUT)
            elif self._turn is not None:
                self._turn.answer = response
            self._unwanted = False

    def _by_length(self, turn: GreetedTurn) -> Verdict:
        voiced_ms = (self.meter.voiced_total - turn.voiced_from) * FRAME_MS
        return self._settle(turn, substance=voiced_ms >= SUBSTANCE_MS)

    def _settle(self, turn: GreetedTurn, *, substance: bool) -> Verdict:
        self._turn = None
        self._unwanted = not substance and turn.answer is None
        return Verdict(substance, turn.answer)

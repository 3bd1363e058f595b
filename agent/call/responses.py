"""Who answers what: creation and cancelling of responses in one order (DESIGN D7). Pure; returns what to send.

Three facts make this necessary. A cancel is only right between a response's ``created`` and its ``done`` (BI-3).
A barge-in can fall between our ``response.create`` and its ``created``. And with ``interrupt_response`` off the
provider does not answer a turn that was committed while an answer was active: we then ask for it (BI-6).
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

import attrs

from agent.audio.generation import Purpose
from agent.core.units import ResponseId

ANSWER_GRACE_S: Final = 2.0
"""How long the provider may take to begin the answer to a committed turn before we ask for it."""
FREED_GRACE_S: Final = 0.1
"""The same when the turn was committed while another answer was active: by then it has most likely refused."""

_WORDS_OF_ITS_OWN: Final = (Purpose.GREETING, Purpose.IDLE, Purpose.FILLER, Purpose.FAREWELL)
"""Answers that say what we asked for: who waits for an answer to his own words still does."""


@attrs.frozen
class NewResponse:
    """A response that was just created: what for, and whether it must be cancelled at once."""

    purpose: Purpose
    unwanted: bool


@attrs.define(eq=False)
class ResponseTracker:
    """Responses asked for, active, and owed, in one session with the model."""

    _asked: deque[Purpose] = attrs.field(factory=deque)
    _known: set[ResponseId] = attrs.field(factory=set)
    """Every response of this session: one that was done is not born again."""
    _active: set[ResponseId] = attrs.field(factory=set)
    _cancelled: set[ResponseId] = attrs.field(factory=set)
    _cancel_unborn: bool = False
    _owed_at: float | None = None

    def asked(self, purpose: Purpose) -> None:
        """A ``response.create`` was sent."""
        self._asked.append(purpose)

    def refused(self, purpose: Purpose) -> None:
        """The provider refused a ``response.create`` of ours."""
        if purpose in self._asked:
            self._asked.remove(purpose)
        if not self._asked:
            self._cancel_unborn = False
        if self._owed_at == inf and not self.busy:
            self._owed_at = -inf

    def owe(self) -> None:
        """An answer is wanted as soon as the one under way is over: the provider gives but one at a time."""
        self._owed_at = inf

    def committed(self, now: float) -> None:
        """The caller's turn is over and is owed an answer."""
        self._owed_at = now + ANSWER_GRACE_S

    def created(
        self, response_id: ResponseId, purpose: Purpose | None, *, caller_speaking: bool
    ) -> NewResponse | None:
        """A response began; ``purpose`` is what its metadata says, if any. None for one known, or done, already.

        It is unwanted if a barge-in came while it was underway, or if the caller speaks on: then it answers half
        a turn, and the whole one will be answered. A greeting is not: protection decides on it later.
        """
        if response_id in self._known:
            return None
        self._known.add(response_id)
        ours = purpose is not None or (bool(self._asked) and self._owed_at is None)
        if purpose is None:
            purpose = self._asked.popleft() if ours else Purpose.ANSWER
        elif purpose in self._asked:
            self._asked.remove(purpose)
        self._active.add(response_id)
        unwanted = caller_speaking and purpose is not Purpose.GREETING
        if ours and self._cancel_unborn:
            # The provider's own answer to the turn of that barge-in may overtake it: that one is wanted.
            unwanted, self._cancel_unborn = True, False
        if not (unwanted or purpose in _WORDS_OF_ITS_OWN or self._owed_at == inf):
            self._owed_at = None
        return NewResponse(purpose, unwanted)

    def done(self, response_id: ResponseId, now: float) -> None:
        """A response generates no more."""
        self._known.add(response_id)
        self._active.discard(response_id)
        if self._owed_at is not None and not self._active:
            self._owed_at = min(self._owed_at, now + FREED_GRACE_S)

    def barge_in(self) -> list[ResponseId]:
        """The responses to cancel now, each at most once; one that is asked for is cancelled at its birth."""
        if self._asked and not self._active:
            self._cancel_unborn = True
        wanted = [response for response in self._active if response not in self._cancelled]
        self._cancelled.update(wanted)
        return wanted

    def cancel(self, response_id: ResponseId) -> bool:
        """Whether ``response.cancel`` is to be sent for this response: active, and not cancelled before."""
        if response_id not in self._active or response_id in self._cancelled:
            return False
        self._cancelled.add(response_id)
        return True

    def answer_due(self, now: float, *, caller_speaking: bool) -> bool:
        """Whether a committed turn got no answer and one is to be requested now (BI-6)."""
        if self._owed_at is None or now < self._owed_at or caller_speaking or self.busy:
            return False
        self._owed_at = None
        return True

    @property
    def owed_at(self) -> float | None:
        """When to ask ``answer_due`` next; None if no turn is owed an answer or one is being given."""
        return None if self.busy else self._owed_at

    @property
    def owes_answer(self) -> bool:
        """Whether the caller's last turn has no answer yet."""
        return self._owed_at is not None

    @property
    def busy(self) -> bool:
        """Whether a response is active or asked for."""
        return bool(self._active or self._asked)

    def is_active(self, response_id: ResponseId) -> bool:
        """Whether the response is between its ``created`` and its ``done``."""
        return response_id in self._active

    def withdraw(self, response_id: ResponseId) -> None:
        """Nobody is owed this response any more, should its session be lost."""
        self._active.discard(response_id)

    def session_lost(self) -> None:
        """The session is gone with all its responses: whoever was being answered is owed an answer again."""
        interrupted = bool(self._active - self._cancelled)
        unborn = any(purpose in (Purpose.TURN, Purpose.TOOL, Purpose.KEYS) for purpose in self._asked)
        self._active.clear()
        self._known.clear()
        self._asked.clear()
        self._cancel_unborn = False
        if self._owed_at is not None or interrupted or unborn:
            self._owed_at = float("-inf")

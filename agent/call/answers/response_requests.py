"""What is asked of the model: answers, and what becomes of a request that it refuses or fails. Pure.

Requests and answers are kept apart by event ids: an error of the provider names the event of ours it is about.
"""

from typing import Final

import attrs

from agent.audio.generation import Purpose
from agent.call.answers.responses import Debt, ResponseTracker
from agent.call.commands import Commands, GiveUp, RateLimited, ToModel
from agent.call.turns.leaving import Departure, Move, Why
from agent.core.event_log import EventLog
from agent.core.records import Outcome
from agent.model import requests
from agent.model.errors import Severity, severity
from agent.model.events import ErrorEvent

ANSWER_ATTEMPTS: Final = 3
"""Answers in a row that may fail at the provider before the call is given up."""
_OPTIONAL: Final = (Purpose.IDLE, Purpose.FILLER, Purpose.FAREWELL)
"""Answers that nobody waits for: one that fails is not asked for again."""
_NEWS: Final = (Purpose.TOOL, Purpose.KEYS)
"""Answers to something that we told the model just before: another answer under way may not know of it."""
FAILED_PAUSE_S: Final = 0.5
"""Pause before an answer that failed is asked for again; twice as long after the second."""
RATE_LIMITED: Final = ("rate_limit_exceeded", "rate_limit_error", "tokens", "requests")
"""Reasons of a failed answer that time mends."""
RATE_WAITS_S: Final = (2.0, 4.0, 6.0, 8.0, 10.0, 10.0, 10.0, 10.0)
"""Pauses before an answer is asked for again while the rate is limited: a minute, then the call is given up."""


@attrs.define(eq=False)
class ResponseRequests:
    """The requests of one call."""

    commands: Commands
    turns: ResponseTracker
    events: EventLog
    departure: Departure
    instructions: str = ""
    """Those of the session. A request's own replace them for its answer, so it repeats them."""
    wait_s: float = 0.0
    """How long the caller waits before an answer is asked for again, for the provider limits the rate; else 0."""
    _event_count: int = 0
    _failed: int = 0
    _limits: int = 0

    def next_event_id(self) -> str:
        """An id for an event of ours, by which its errors name it."""
        self._event_count += 1
        return f"agent-{self._event_count}"

    def request(self, purpose: Purpose, instructions: str = "") -> str:
        """The event that requests an answer; whoever takes it sends it."""
        event_id = self.next_event_id()
        self.turns.session.requests[event_id] = self.turns.asked(purpose)
        whole = "\n\n".join(text for text in (self.instructions, instructions) if text) if instructions else None
        # Who fills the time that a tool takes has no need of tools.
        tools = purpose is not Purpose.FILLER
        return requests.encode_response_create(event_id, purpose.value, whole, tools=tools)

    def ask(self, purpose: Purpose, instructions: str = "") -> None:
        """Request an answer, unless the model was given up; from the next session if there is none."""
        if self.departure.final:
            return
        if self.turns.session.ready:
            self.commands.add(ToModel(self.request(purpose, instructions)))
        elif purpose not in _OPTIONAL:
            self.turns.owe(Debt.NOW)

    def ask_when_free(self, purpose: Purpose) -> None:
        """Request an answer, once the one under way is over: the provider would refuse it before."""
        if self.turns.busy:
            self.turns.owe(Debt.WHEN_FREE)
        else:
            self.ask(purpose)

    def tell(self, message: str) -> None:
        """Send an event of this session; if there is none, the next one is told by the replay."""
        if self.turns.session.ready:
            self.commands.add(ToModel(message))

    def give_up(self, reason: str) -> None:
        """The model is of no use any more: nothing is asked of it, and the call is given up, once."""
        if self.departure.move(Move.GIVE_UP, Why(Outcome.MODEL_LOST, reason)):
            self.commands.add(GiveUp(reason))

    def refused(self, event: ErrorEvent, grade: Severity, now: float) -> None:
        """The provider refused an event of ours; if it was a request, see what is to become of it."""
        response = self.turns.session.requests.pop(event.event_id, None)
        if response is None:
            return
        stood = self.turns.refused(response)  # if not, an answer of the provider's own was taken for it
        if grade is not Severity.IGNORABLE:
            if stood:
                self.failed(response.purpose, event.code or event.kind, event.message, now)
        elif response.purpose in _NEWS:
            self.turns.committed(now)
        # Else refused for an answer of the provider's own: the request is met by that answer.

    def failed(self, purpose: Purpose, reason: str, message: str, now: float) -> None:
        """An answer failed at the provider: it is still owed, unless nobody waits for it or too many failed."""
        self.events.emit("ANSWER_FAILED", "error", reason=reason, message=message)
        limited = reason in RATE_LIMITED
        if limited and self._limits < len(RATE_WAITS_S):
            self.wait_s = RATE_WAITS_S[self._limits]
            self._limits += 1
            self.commands.add(RateLimited(self.wait_s))
            self.events.emit("RATE_LIMITED", "warning", wait_s=self.wait_s, cure="raise the account's limits")
            if purpose not in _OPTIONAL:
                self.turns.owe(Debt.PROVIDER, now + self.wait_s)
            return
        self.wait_s = 0.0
        self._failed += 1
        if limited or self._failed >= ANSWER_ATTEMPTS or severity("", reason) is Severity.FATAL:
            self.give_up(f"the model failed to answer: {reason or 'no reason given'}")
        elif purpose not in _OPTIONAL:
            self.turns.owe(Debt.PROVIDER, now + FAILED_PAUSE_S * self._failed)

    def succeeded(self) -> None:
        """An answer came whole."""
        self._failed = self._limits = 0
        self.wait_s = 0.0

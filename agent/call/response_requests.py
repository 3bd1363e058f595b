"""What is asked of the model: answers, and what becomes of a request that it refuses or fails. Pure.

Requests and answers are kept apart by event ids: an error of the provider names the event of ours it is about.
"""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from agent.audio.generation import Purpose
from agent.call.responses import ResponseTracker
from agent.core.event_log import EventLog
from agent.model import requests
from agent.model.errors import Severity, severity
from agent.model.events import ErrorEvent

ANSWER_ATTEMPTS: Final = 3
"""Answers in a row that may fail at the provider before the call is given up."""
_OPTIONAL: Final = (Purpose.IDLE, Purpose.FILLER, Purpose.FAREWELL)
"""Answers that nobody waits for: one that fails is not asked for again."""
_NEWS: Final = (Purpose.TOOL, Purpose.KEYS)
"""Answers to something that we told the model just before: another answer under way may not know of it."""


class Addressee(Protocol):
    """Who is asked."""

    def to_model(self, message: str) -> None:
        """Send an event to the model, behind those before it."""

    def give_up(self, reason: str) -> None:
        """The model is of no use any more: apologise and hang up."""


@attrs.define(eq=False)
class ResponseRequests:
    """The requests of one call."""

    model: Addressee
    turns: ResponseTracker
    events: EventLog
    given_up: bool = False
    """Nothing is asked of the model any more."""
    _requests: dict[str, Purpose] = attrs.field(factory=dict)
    """Our requests for answers in this session, by the event id that a refusal names."""
    _event_count: int = 0
    _failed: int = 0

    def next_event_id(self) -> str:
        """An id for an event of ours, by which its errors name it."""
        self._event_count += 1
        return f"agent-{self._event_count}"

    def request(self, purpose: Purpose, instructions: str | None = None) -> str:
        """The event that requests an answer; whoever takes it sends it."""
        self.turns.asked(purpose)
        event_id = self.next_event_id()
        self._requests[event_id] = purpose
        # Who fills the time that a tool takes has no need of tools.
        tools = purpose is not Purpose.FILLER
        return requests.encode_response_create(event_id, purpose.value, instructions, tools=tools)

    def ask(self, purpose: Purpose, instructions: str | None = None) -> None:
        """Request an answer, unless the model was given up."""
        if not self.given_up:
            self.model.to_model(self.request(purpose, instructions))

    def ask_when_free(self, purpose: Purpose) -> None:
        """Request an answer, once the one under way is over: the provider would refuse it before."""
        if self.turns.busy:
            self.turns.owe()
        else:
            self.ask(purpose)

    def answer_tool(self, call_id: str, output: str, *, answer: bool) -> None:
        """Give a tool's output to the model, and ask it to go on unless nothing is to be said."""
        self.model.to_model(requests.encode_tool_output(call_id, output, self.next_event_id()))
        if answer:
            self.ask_when_free(Purpose.TOOL)

    def give_up(self, reason: str) -> None:
        """The model is of no use any more: nothing is asked of it, and the call is given up, once."""
        if not self.given_up:
            self.given_up = True
            self.model.give_up(reason)

    def refused(self, event: ErrorEvent, grade: Severity, now: float) -> None:
        """The provider refused an event of ours; if it was a request, see what is to become of it."""
        purpose = self._requests.pop(event.event_id, None)
        if purpose is None:
            return
        self.turns.refused(purpose)
        if grade is not Severity.IGNORABLE:
            self.failed(purpose, event.code or event.kind, event.message, now)
        elif purpose in _NEWS:
            self.turns.committed(now)
        # Else refused for an answer of the provider's own: the request is met by that answer.

    def failed(self, purpose: Purpose, reason: str, message: str, now: float) -> None:
        """An answer failed at the provider: it is still owed, unless nobody waits for it or too many failed."""
        self._failed += 1
        self.events.emit("ANSWER_FAILED", "error", reason=reason, message=message)
        if self._failed >= ANSWER_ATTEMPTS or severity("", reason) is Severity.FATAL:
            self.give_up(f"the model failed to answer: {reason or 'no reason given'}")
        elif purpose not in _OPTIONAL:
            self.turns.committed(now)

    def succeeded(self) -> None:
        """An answer came whole."""
        self._failed = 0

    def session_lost(self) -> None:
        """Requests went with the session."""
        self._requests.clear()

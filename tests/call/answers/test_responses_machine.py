"""BI-3 and BI-6 by machine: any order of asking, creating, ending, interrupting and committing.

The rules are a small model of the provider: one response at a time, an answer of its own to a committed turn only
while none is active or asked for, refusals, repeats.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.audio.generation import Purpose
from agent.call.answers.responses import Response, ResponseTracker, Session, Stage
from agent.core.units import ResponseId


class Provider(RuleBasedStateMachine):
    """The provider and the caller, against ``ResponseTracker``."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = ResponseTracker(Session(ready=True))
        self.now = 0.0
        self.speaking = False
        self.asked: list[Response] = []
        self.active: list[ResponseId] = []
        self.ended: list[ResponseId] = []
        self.cancelled: list[ResponseId] = []
        self.unanswered = False
        self.auto = False
        self.count = 0

    def _cancel(self, wanted: list[ResponseId]) -> None:
        for response_id in wanted:
            assert response_id in self.active, "BI-3: only between created and done"
            assert response_id not in self.cancelled, "BI-3: at most once"
            self.cancelled.append(response_id)

    @precondition(lambda self: not self.turns.busy)
    @rule()
    def ask(self) -> None:
        """The agent wants to say something."""
        self.asked.append(self.turns.asked(Purpose.IDLE))

    @precondition(lambda self: (self.asked or self.auto) and not self.active)
    @rule()
    def create(self) -> None:
        """The provider begins an answer: one asked for, or its own."""
        self.count += 1
        response_id = ResponseId(f"r{self.count}")
        purpose = self.asked.pop(0).purpose if self.asked else None
        if purpose is None:
            self.auto = False
        self.active.append(response_id)
        new_response = self.turns.created(response_id, purpose or Purpose.ANSWER, caller_speaking=self.speaking)
        assert new_response is not None
        if new_response.stage is Stage.CANCELLED:
            self._cancel([response_id])
        else:
            self.unanswered = False

    @precondition(lambda self: bool(self.active or self.ended))
    @rule()
    def repeat_created(self) -> None:
        """A duplicate or late ``response.created`` changes nothing."""
        response_id = (self.active or self.ended)[-1]
        assert self.turns.created(response_id, Purpose.ANSWER, caller_speaking=False) is None

    @precondition(lambda self: bool(self.active))
    @rule()
    def done(self) -> None:
        """The provider ends the answer."""
        response_id = self.active.pop()
        self.ended.append(response_id)
        self.turns.done(response_id, self.now)

    @precondition(lambda self: bool(self.asked))
    @rule()
    def refuse(self) -> None:
        """The provider refuses a request; who asked for the caller's turn sees to it again, as the call does."""
        request = self.asked.pop(0)
        assert self.turns.refused(request)
        if request.purpose is Purpose.TURN:
            self.turns.committed(self.now)

    @rule()
    def speak(self) -> None:
        """The caller begins, and whatever is being said is interrupted."""
        self.speaking = True
        self._cancel(self.turns.barge_in())

    @precondition(lambda self: self.speaking)
    @rule()
    def commit(self) -> None:
        """The caller ends; the provider answers by itself only if it is free."""
        self.speaking = False
        self.unanswered = True
        self.auto = not self.active and not self.asked
        self.turns.committed(self.now)

    @rule()
    def wait(self) -> None:
        """Time passes and the monitor looks."""
        self.now += 1.0
        if self.turns.answer_due(self.now, caller_speaking=self.speaking):
            self.asked.append(self.turns.asked(Purpose.TURN))
            self.auto = False

    @invariant()
    def the_books_agree(self) -> None:
        """What is active there is active here."""
        active = {response_id for response_id, found in self.turns.session.responses.items() if found.active}
        assert set(self.active) <= active
        assert not active & set(self.ended)

    def teardown(self) -> None:
        """BI-6: once everything is quiet, the last committed turn gets its answer."""
        if self.speaking:
            self.commit()
        for _ in range(12):
            if self.active:
                self.done()
            elif self.asked or self.auto:
                self.create()
            self.wait()
        assert not self.unanswered, "BI-6: a committed turn was never answered"


TestTurnTaking = Provider.TestCase
TestTurnTaking.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)

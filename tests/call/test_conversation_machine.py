"""BI-3 and BI-6 in any order: a provider with its own clock, a caller with no manners, slow wires between.

Both wires are queues: our events and the caller's voice wait to be taken by the provider, its events wait to be
delivered to us. So every race of the two sides can happen that can happen on a network.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec
from conversation_driver import Done, Talk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from agent.audio.generation import Purpose
from agent.call.commands import Command, Speak, ToModel
from agent.core.units import ItemId, ResponseId
from agent.model import events as model

ASKED_FOR: Final = (Purpose.GREETING, Purpose.TURN, Purpose.TOOL, Purpose.IDLE)


SAYS_ITS_OWN: Final = (Purpose.GREETING, Purpose.IDLE)
"""Answers with words of their own: whoever waits for an answer still does."""


class Watched(Done):
    """Hands our events to the provider's wire and notices when a committed turn is being answered."""

    def __init__(self, machine: ProviderAndCaller) -> None:
        super().__init__()
        self.machine = machine

    @override
    def do(self, command: Command) -> None:
        super().do(command)
        match command:
            case ToModel(message):
                self.machine.sent(msgspec.json.decode(message))
            case Speak(generation) if generation.purpose not in SAYS_ITS_OWN:
                self.machine.answered(generation.response_id)


class ProviderAndCaller(RuleBasedStateMachine):
    """The provider's responses, the caller's speech, and what must always hold of what we do about them."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk(did=Watched(self))
        self.to_provider: deque[dict[str, Any]] = deque()
        self.to_us: deque[model.ModelEvent] = deque()
        self.active: str | None = None
        """The provider generates but one response at a time."""
        self.speaking = False
        self.heard = 0
        """The turn that the provider hears."""
        self.count = 0
        self.failures = 0
        self.born: set[str] = set()
        self.own: set[str] = set()
        """Born by themselves, of a committed turn."""
        self.over: set[str] = set()
        self.cancelled: set[str] = set()
        self.known: set[int] = set()
        """All turns of the caller that the provider knows of."""
        self.keys: set[int] = set()
        """Those of them that were keys, not words."""
        self.answers: dict[str, set[int]] = {}
        """Which turns each response takes into account: those known when it began."""
        self.waiting: set[int] = set()
        """Turns that we know of, and to which no answer began, or one that failed."""
        self.given: dict[str, set[int]] = {}
        """Whom each response ended the waiting of."""

    def answered(self, response: str) -> None:
        """An answer begins: the turns it takes into account wait no more."""
        self.given[response] = self.waiting & self.answers[response]
        self.waiting -= self.given[response]

    # What must always hold

    def sent(self, event: dict[str, Any]) -> None:
        """We send an event: BI-3 is looked at here, as we know the world at this moment."""
        self.to_provider.append(event)
        if event["type"] == "response.cancel":
            response = event["response_id"]
            assert response in self.born, "cancelled before it was created"
            assert response not in self.over, "cancelled after it was done"
            assert response not in self.cancelled, "cancelled twice"
            self.cancelled.add(response)
            speaking = self.talk.conversation.policy.caller_speaking
            assert speaking or response not in self.own, "the answer to a whole turn was cancelled"

    @invariant()
    def bi_2_what_was_cut_is_silent(self) -> None:
        """Whatever was cut off is live no more, and everything live still has someone to speak it."""
        for generations in self.talk.did.interrupted:
            assert not any(generation.live for generation in generations)
        assert all(generation.live for generation in self.talk.conversation.live)

    # The caller

    @precondition(lambda self: not self.speaking)
    @rule()
    def the_caller_begins(self) -> None:
        """Into audio that travels behind our other events."""
        self.speaking = True
        self.count += 1
        self.to_provider.append({"type": "speech begins", "turn": self.count})

    @precondition(lambda self: self.speaking)
    @rule()
    def the_caller_ends(self) -> None:
        """With silence behind it."""
        self.speaking = False
        self.to_provider.append({"type": "speech ends"})

    @precondition(lambda self: self.talk.conversation.idle or not self._words_are_underway())
    @rule()
    def the_caller_presses_keys(self) -> None:
        """Told to the model by us, and owed an answer like words.

        Keys that are pressed into an answer and overtaken by the answer to words said just before are in the
        conversation, but get no answer of their own: that nobody does who speaks and types at once.
        """
        self.count += 1
        self.waiting.add(self.count)
        self.keys.add(self.count)
        self.talk.conversation.tell(str(self.count), self.talk.now)

    def _words_are_underway(self) -> bool:
        return any(event["type"] == "speech ends" for event in self.to_provider)

    # The provider

    def _begin(self, purpose: str) -> None:
        self.count += 1
        self.active = f"response {self.count}"
        self.answers[self.active] = set(self.known)
        self.to_us.append(model.ResponseCreated(ResponseId(self.active), purpose))

    @precondition(lambda self: self.active)
    @rule(ms=st.integers(1, 300))
    def the_provider_speaks(self, ms: int) -> None:
        """Faster than it is spoken."""
        assert self.active is not None
        audio = b"\x11" * (8 * ms)
        self.to_us.append(model.AudioDelta(ResponseId(self.active), ItemId(f"item of {self.active}"), 0, audio))

    @precondition(lambda self: self.active)
    @rule(fails=st.booleans())
    def the_provider_ends(self, *, fails: bool) -> None:
        """Completed, or failed; a model that fails ever again is given up, which is another test's."""
        fails = fails and self.failures < 2
        self.failures = self.failures + 1 if fails else 0
        self._end("failed" if fails else "completed")

    def _end(self, status: str) -> None:
        assert self.active is not None
        self.to_us.append(model.ResponseDone(ResponseId(self.active), status, "", ""))
        self.active = None

    @precondition(lambda self: self.to_provider)
    @rule()
    def the_provider_takes_an_event(self) -> None:
        """Our oldest, the caller's voice among them."""
        event = self.to_provider.popleft()
        if event["type"] == "speech begins":
            self.heard = event["turn"]
            self.to_us.append(model.SpeechStarted(ItemId(f"turn {self.heard}")))
        elif event["type"] == "speech ends":
            self._commit(self.heard)
        elif event["type"] == "response.create":
            if self.active is None:
                self._begin(event["response"]["metadata"]["purpose"])
            else:
                self._refuse(event, "conversation_already_has_active_response")
        elif event["type"] == "conversation.item.create":
            text = event["item"]["content"][0]["text"]
            self.known |= {int(text)} & self.keys if text.isdigit() else set()
        elif event["type"] == "response.cancel":
            if event["response_id"] == self.active:
                self._end("cancelled")
            else:
                self._refuse(event, "response_cancel_not_active")

    def _commit(self, turn: int) -> None:
        """VAD ends a turn and commits it; an answer begins by itself unless one is active."""
        item = ItemId(f"turn {turn}")
        self.known.add(turn)
        self.to_us.extend([model.SpeechStopped(item, 0), model.InputCommitted(item)])
        # Words that no greeting settles; what is settled by one is another test's.
        self.to_us.append(model.InputTranscribed(item, "How much is it?"))
        if self.active is None:
            self._begin("")

    def _refuse(self, event: dict[str, Any], code: str) -> None:
        self.to_us.append(model.ErrorEvent("invalid_request_error", code, "", event["event_id"], ""))

    # We

    @precondition(lambda self: self.to_us)
    @rule()
    def we_take_an_event(self) -> None:
        """The provider's oldest."""
        event = self.to_us.popleft()
        if isinstance(event, model.ResponseCreated):
            self.born.add(event.response_id)
            if not event.purpose:
                self.own.add(event.response_id)
        elif isinstance(event, model.ResponseDone):
            self.over.add(event.response_id)
            if event.status == "failed":
                self.waiting |= self.given.get(event.response_id, set())
        elif isinstance(event, model.InputCommitted):
            self.waiting.add(int(event.item_id.removeprefix("turn ")))
        self.talk.event(event)
        self.talk.pause(0.0)

    @precondition(lambda self: self.talk.conversation.idle)
    @rule(purpose=st.sampled_from(ASKED_FOR))
    def we_ask(self, purpose: Purpose) -> None:
        """For a greeting, an idle prompt, ..."""
        self.talk.conversation.response_requests.ask(purpose)

    @rule()
    def the_pacer_clears(self) -> None:
        """It was asked to, or has nothing to clear."""
        self.talk.clears()

    @rule(ms=st.sampled_from([20, 200, 1000, 4000]))
    def time_passes(self, ms: int) -> None:
        """The pacer sends, the caller hears, what is due is done."""
        self.talk.play(ms)
        self.talk.pause(0.0)

    @rule()
    def the_session_is_lost(self) -> None:
        """With all that was underway in it, uncommitted words included; the next one begins at once."""
        self.to_us.clear()
        self.to_provider.clear()
        self.active, self.speaking = None, False
        self.talk.conversation.session_lost()
        self.talk.conversation.session_ready()
        self.known -= self.keys
        for message in self.talk.conversation.replay():
            self.sent(msgspec.json.decode(message))
        self.talk.pause(0.0)

    # When everything quiets down

    def teardown(self) -> None:
        """BI-6: the caller falls silent, all wires run empty, and whoever waits for an answer gets one."""
        if self.speaking:
            self.the_caller_ends()
        for _ in range(20):
            while self.to_us or self.to_provider:
                if self.to_provider:
                    self.the_provider_takes_an_event()
                if self.to_us:
                    self.we_take_an_event()
            if self.active:
                self._end("completed")
            self.talk.clears()
            self.talk.play(1000)
            self.talk.pause(5.0)
        assert not self.waiting, "a committed turn was never answered"
        assert self.talk.conversation.idle
        assert self.talk.did.gave_up == []


ProviderAndCaller.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
test_bi_3_and_bi_6_in_any_order = ProviderAndCaller.TestCase

"""Commands: values that one step hands over when it ends, whoever waits for a change included."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from conversation_driver import Talk

from agent.call.commands import Command, Commands, RenewSession, ToModel, decision
from agent.core.records import Outcome
from agent.core.units import ItemId, ResponseId
from agent.model import events as model


@attrs.define(eq=False)
class Steps:
    """Keeps each step apart."""

    steps: list[list[Command]] = attrs.field(factory=list)
    commands: Commands = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.commands = Commands(self.take)

    def take(self, commands: Sequence[Command]) -> None:
        """One step ended."""
        self.steps.append(list(commands))

    @decision
    def inner(self) -> str:
        """A decision within another."""
        self.commands.add(ToModel("inner"))
        return "decided"

    @decision
    def outer(self) -> str:
        """A decision made of two."""
        self.commands.add(ToModel("first"))
        decided = self.inner()
        self.commands.add(ToModel("last"))
        return decided


def test_a_decision_within_another_is_a_part_of_its_step() -> None:
    desk = Steps()
    assert desk.outer() == "decided"
    assert desk.steps == [[ToModel("first"), ToModel("inner"), ToModel("last")]]


def test_a_command_outside_of_a_step_is_carried_out_at_once() -> None:
    desk = Steps()
    desk.commands.add(RenewSession("why"))
    assert desk.steps == [[RenewSession("why")]]


def test_a_step_without_commands_is_told_too() -> None:
    """Its state may have changed, and somebody may wait for that."""
    desk = Steps()
    with desk.commands.step():
        pass
    assert desk.steps == [[]]


def test_what_was_decided_before_an_error_is_carried_out() -> None:
    desk = Steps()

    def decide() -> None:
        with desk.commands.step():
            desk.commands.add(ToModel("before"))
            raise KeyError

    with pytest.raises(KeyError):
        decide()
    assert desk.steps == [[ToModel("before")]]


def test_carrying_out_may_begin_steps_of_its_own() -> None:
    desk = Steps()

    def carry_out(commands: Sequence[Command]) -> None:
        desk.take(commands)
        if ToModel("ask") in commands:
            desk.commands.add(ToModel("answer"))

    desk.commands.carry_out = carry_out
    desk.commands.add(ToModel("ask"))
    assert desk.steps == [[ToModel("ask")], [ToModel("answer")]]


EVENTS: dict[str, model.ModelEvent] = {
    "speech started": model.SpeechStarted(ItemId("i")),
    "speech stopped": model.SpeechStopped(ItemId("i"), 0),
    "committed": model.InputCommitted(ItemId("i")),
    "transcribed": model.InputTranscribed(ItemId("i"), "hello"),
    "not transcribed": model.InputTranscriptionFailed(ItemId("i")),
    "created": model.ResponseCreated(ResponseId("r"), ""),
    "done": model.ResponseDone(ResponseId("r"), "completed", "", ""),
    "error": model.ErrorEvent("", "", "", "", ""),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_whoever_waits_is_told_of_each_event_of_the_model(event: model.ModelEvent) -> None:
    talk = Talk()
    before = talk.did.steps
    talk.event(event)
    assert talk.did.steps > before


def test_whoever_waits_is_told_of_all_else_that_changes_what_is_due() -> None:
    talk = Talk()
    conversation = talk.conversation
    for change in (
        lambda: conversation.mark_returned("1:20", 0.0),
        lambda: conversation.key_pressed("1", 0.0),
        lambda: conversation.leave(Outcome.IDLE, "nobody there"),
        conversation.stay,
        lambda: conversation.silence_inserted(20),
        lambda: conversation.audio_late(20),
        conversation.session_lost,
        conversation.session_ready,
    ):
        before = talk.did.steps
        change()
        assert talk.did.steps == before + 1

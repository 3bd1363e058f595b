"""What the caller heard of a simulated call, and what must never be heard."""

from __future__ import annotations

from agent.core.records import CallRecord
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.model.response import SimulatedMessage
from agent.sim.model.server import ScriptedRealtime
from agent.sim.profile import Profile
from agent.sim.sounds import numbers_in


def heard_numbers(stream: SimulatedStream) -> list[int]:
    """How many bytes of each answer the caller really heard, by the numbers the audio carries."""
    counted = numbers_in(stream.playback.tape.audio())
    return [counted[number] for number in range(max(counted, default=-1) + 1)]


def believed_ms(model: ScriptedRealtime) -> list[int]:
    """How much of each of its answers the model takes to be heard: all that nobody told it otherwise about."""
    items = model.session.conversation.items

    def heard(message: SimulatedMessage) -> int:
        item = items.get(message.output.item_id)
        if item is None:
            return 0  # deleted, or never announced
        return message.sent_ms if item.truncated_ms is None else item.truncated_ms

    return [sum(map(heard, response.messages)) for response in model.session.responses]


def refusals(model: ScriptedRealtime) -> list[str]:
    """What the model refused."""
    return [str(error["code"]) for error in model.errors_sent]


def ear_ms(world: Profile, *, stalls: bool = False) -> int:
    """How far what we say was heard may be from the ear.

    A network that jitters hides a little; one that stalls hides what its overdue marks do not show yet.
    """
    if not world.is_real:
        return 10
    return 300 if stalls else 40


def assert_no_stale_frame(stream: SimulatedStream) -> None:
    """The wire log: after each clear, no frame of an answer that was speaking before it."""
    before: set[int] = set()
    spoken: set[int] = set()
    for entry in stream.wire:
        if entry.direction != "tx":
            continue
        if entry.kind == "clear":
            before |= spoken
        elif entry.kind == "media":
            numbers = set(numbers_in(entry.audio))
            assert not numbers & before, f"a frame of answer {numbers & before} after its clear"
            spoken |= numbers


def agent_words(record: CallRecord) -> list[str]:
    """What was heard of each answer."""
    return [turn.heard_text for turn in record.turns if turn.role == "agent"]

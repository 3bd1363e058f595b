"""What the caller heard of a simulated call, and what must never be heard."""

from __future__ import annotations

from agent.core.records import CallRecord
from agent.sim.carrier.stream import SimulatedStream
from agent.sim.sounds import numbers_in


def heard_numbers(stream: SimulatedStream) -> list[int]:
    """How many bytes of each answer the caller really heard, by the numbers the audio carries."""
    counted = numbers_in(stream.playback.tape.audio())
    return [counted[number] for number in range(max(counted, default=-1) + 1)]


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

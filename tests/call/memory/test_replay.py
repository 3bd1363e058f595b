"""What a new session is told, kept in order and ready while the call goes on."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from agent.audio.generation import Generation, Purpose
from agent.call.memory.ordered import Key, Ordered
from agent.call.memory.replay import WORDS_LOST, Replay
from agent.call.memory.transcript import UNSETTLED, Transcript
from agent.core.units import BYTES_PER_MS, GenerationId, ItemId, ResponseId

KEYS = st.tuples(st.sampled_from([0.0, 1.0, 2.5, 4.0]), st.integers(0, 2), st.integers(0, 3))


@given(st.lists(st.tuples(KEYS, st.integers())))
def test_values_are_in_the_order_of_their_keys_and_the_last_one_counts(puts: list[tuple[Key, int]]) -> None:
    ordered: Ordered[int] = Ordered()
    for key, value in puts:
        ordered.put(key, value)
    expected = sorted(dict(puts).items())
    assert list(zip(ordered.keys, ordered.values, strict=True)) == expected


def make_replay() -> Replay:
    numbers = itertools.count(1)
    return Replay(transcribed=True, next_event_id=lambda: f"e{next(numbers)}")


def said(messages: list[str]) -> list[tuple[str, str]]:
    items = [json.loads(message)["item"] for message in messages]
    return [(item["role"], item["content"][0]["text"]) for item in items]


def answer(text: str, began_s: float) -> Generation:
    """An answer of a second, heard and complete."""
    generation = Generation(GenerationId(1), ResponseId("r"), Purpose.ANSWER, began_s)
    generation.accept(ItemId("answer"), 0, bytes(1000 * BYTES_PER_MS))
    generation.part_of(ItemId("answer")).text = text
    generation.response_done = True
    return generation


def test_what_is_told_follows_the_transcript_as_it_changes() -> None:
    """A turn is told with the words it has now; keys and live answers stand where they were pressed and began."""
    replay, transcript = make_replay(), Transcript(100.0)
    transcript.on_turn = replay.turn
    transcript.caller_started(ItemId("one"), 101.0)
    transcript.caller_committed(ItemId("one"), 102.0)
    assert said(replay.messages([])) == [("user", WORDS_LOST)]
    transcript.agent_spoke(answer("Hello.", 103.0), 1000, complete=True)
    replay.told("(The caller pressed 1.)", 102.5)
    transcript.caller_said(ItemId("one"), "Good morning.", 104.0)
    told = [("user", "Good morning."), ("user", "(The caller pressed 1.)"), ("assistant", "Hello.")]
    assert said(replay.messages([])) == told
    assert said(replay.messages([(102.7, "A live one.", ItemId("still-heard-1"))])) == [
        *told[:2],
        ("assistant", "A live one."),
        told[2],
    ]
    assert said(replay.messages([])) == told, "what is live is told for this session alone"


def test_a_turn_that_is_still_changed_by_the_model_is_told_as_it_is() -> None:
    """Words and the end of an answer come after it was cut off: the record has them."""
    transcript = Transcript(0.0)
    answers = [answer(f"Answer {number}.", float(number)) for number in range(3 * UNSETTLED)]
    for generation in answers:
        generation.response_done = False
        transcript.agent_spoke(generation, 500, complete=False)
        assert not transcript.turns()[-1].complete
        generation.response_done = True
        generation.part_of(ItemId("answer")).text += " And more."
        assert transcript.turns()[-1].complete
        assert transcript.turns()[-1].text.endswith("And more.")
    assert all(turn.complete for turn in transcript.turns())

"""The transcript in memory: who said what, what of it was heard, in the order it began (PL-8, NB-5)."""

from __future__ import annotations

from agent.audio.generation import Generation, Purpose
from agent.call.memory.transcript import Transcript
from agent.core.units import BYTES_PER_MS, GenerationId, ItemId, ResponseId

ONE, TWO = ItemId("caller 1"), ItemId("caller 2")


def spoken(text: str, ms: int, *, began_s: float, item: str = "answer") -> Generation:
    """An answer of one item, complete."""
    answer = Generation(GenerationId(1), ResponseId("r1"), Purpose.ANSWER, began_s)
    answer.accept(ItemId(item), 0, bytes(ms * BYTES_PER_MS))
    answer.parts[0].text = text
    answer.response_done = True
    answer.first_frame_s = began_s
    return answer


def test_turns_come_in_the_order_they_began() -> None:
    """The caller's words are transcribed long after the answer to them began."""
    transcript = Transcript(100.0)
    transcript.caller_started(ONE, 101.0)
    transcript.caller_stopped(ONE, 102.5)
    transcript.agent_spoke(spoken("Hello.", 1000, began_s=103.0), 1000, complete=True)
    transcript.caller_started(TWO, 110.0)
    transcript.caller_said(ONE, " Hi there. ", 111.0)
    turns = transcript.turns()
    assert [(turn.role, turn.text, turn.started_ms) for turn in turns] == [
        ("caller", "Hi there.", 1000),
        ("agent", "Hello.", 3000),
        ("caller", "", 10_000),
    ]
    assert [turn.complete for turn in turns] == [True, True, False]
    assert (turns[0].audio_ms, turns[0].heard_ms) == (1500, 1500)


def test_pl_8_an_interrupted_turn_keeps_what_was_heard() -> None:
    transcript = Transcript(0.0)
    answer = spoken("one two three four", 2000, began_s=1.0)
    answer.interrupted = True
    transcript.agent_spoke(answer, 1000, complete=True)
    [turn] = transcript.turns()
    assert (turn.text, turn.heard_text) == ("one two three four", "one two")
    assert (turn.audio_ms, turn.heard_ms, turn.interrupted) == (2000, 1000, True)


def test_an_answer_without_a_word_is_no_turn() -> None:
    transcript = Transcript(0.0)
    transcript.agent_spoke(Generation(GenerationId(1), ResponseId("r1"), Purpose.TURN, 0.0), 0, complete=True)
    assert transcript.turns() == ()


def test_heard_is_never_more_than_there_was() -> None:
    transcript = Transcript(0.0)
    transcript.agent_spoke(spoken("Hello.", 990, began_s=0.0), 1000, complete=True)
    assert transcript.turns()[0].heard_ms == 990


def test_a_turn_whose_start_was_missed_is_a_turn() -> None:
    transcript = Transcript(0.0)
    transcript.caller_stopped(ONE, 2.0)
    transcript.caller_said(TWO, "never started, never stopped", 3.0)
    assert [(turn.item_id, turn.started_ms, turn.audio_ms) for turn in transcript.turns()] == [
        (ONE, 2000, 0),
        (TWO, 3000, 0),
    ]


def test_a_repeated_start_changes_nothing() -> None:
    transcript = Transcript(0.0)
    transcript.caller_started(ONE, 1.0)
    transcript.caller_started(ONE, 5.0)
    assert transcript.turns()[0].started_ms == 1000


def test_a_turn_shorter_than_the_silence_that_ended_it_has_no_length() -> None:
    transcript = Transcript(0.0)
    transcript.caller_started(ItemId("noise"), 5.0)
    transcript.caller_stopped(ItemId("noise"), 4.8)
    [turn] = transcript.turns()
    assert (turn.audio_ms, turn.heard_ms) == (0, 0)

"""What was heard: what the model, the record and a new session are told of answers that were cut off (PL-8)."""

from __future__ import annotations

import msgspec
from conversation_driver import Talk
from hypothesis import given
from hypothesis import strategies as st

from agent.call.memory.replay import WORDS_LOST
from agent.model import events as model

# PL-8: what the model is told


def test_pl_8_two_items_in_one_answer_are_truncated_each_by_itself() -> None:
    """1200 ms heard of 1000 + 1000: the first was heard whole as far as it goes, 200 ms of the second."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1000, "first")
    talk.audio("r1", 1000, "second")
    talk.play(1200)
    talk.starts()
    talk.clears()
    assert talk.truncated == {"first": 1000, "second": 200}


def test_pl_8_of_a_complete_answer_only_what_was_not_heard_whole_is_truncated() -> None:
    """Its lengths are final: an item that was heard to its end needs no truncation."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1000, "first")
    talk.audio("r1", 1000, "second")
    talk.done("r1")
    talk.play(1200)
    talk.starts()
    talk.clears()
    assert talk.truncated == {"second": 200}


def test_pl_8_an_item_of_which_nothing_was_heard_is_deleted_and_never_truncated_at_0() -> None:
    """The provider refuses a truncate at 0 (D6)."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1000)
    talk.starts()
    talk.clears()
    assert talk.told("conversation.item.truncate") == []
    assert [event["item_id"] for event in talk.told("conversation.item.delete")] == ["item of r1"]


def test_pl_8_a_truncation_to_something_that_is_refused_deletes_nothing() -> None:
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1000)
    talk.play(400)
    talk.starts()
    talk.clears()
    [truncate] = talk.told("conversation.item.truncate")
    talk.event(
        model.ErrorEvent("invalid_request_error", "invalid_value", "no such item", truncate["event_id"], "")
    )
    assert talk.told("conversation.item.delete") == []
    assert talk.count("MODEL_ERROR") == 1


def test_pl_8_the_padding_of_the_last_frame_is_not_the_models() -> None:
    """1990 ms were received and 2000 ms sent: the model is never told of more than its item has."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 1990)
    talk.did.started[0].slicer.finish()
    talk.play(1980)
    talk.conversation.playout.frame_sent(talk.did.started[0].id, talk.now)
    talk.now += 0.2
    talk.starts()
    talk.clears()
    assert talk.truncated == {"item of r1": 1990}


@given(
    items=st.lists(st.integers(1, 900), min_size=1, max_size=4),
    play_ms=st.integers(0, 4000),
    done=st.booleans(),
)
def test_pl_8_no_item_is_truncated_beyond_its_length(items: list[int], play_ms: int, *, done: bool) -> None:
    """Whatever was received and heard: each item's end is within it, and together they are what was heard."""
    talk = Talk()
    talk.created("r1")
    for index, ms in enumerate(items):
        talk.audio("r1", ms, f"item {index}")
    if done:
        talk.done("r1")
    talk.play(play_ms)
    heard_ms = min(talk.conversation.playout.heard_ms(talk.did.started[0].id, talk.now), sum(items))
    talk.starts()
    talk.clears()
    ends = talk.truncated
    for index, ms in enumerate(items):
        assert 0 <= ends.get(f"item {index}", ms) <= ms
    if talk.did.interrupted:
        told_ms = sum(ends.get(f"item {index}", ms) for index, ms in enumerate(items))
        assert told_ms == heard_ms


# TX-7


def test_tx_7_an_answer_over_its_limit_is_ended_and_the_call_goes_on() -> None:
    """What came within the limit is spoken; the rest is counted; the model is told where it ended."""
    talk = Talk(max_answer_ms=1000)
    talk.created("r1")
    for _ in range(15):
        talk.audio("r1", 100)
    assert talk.cancelled == ["r1"]
    assert talk.count("GENERATION_TOO_LONG") == 1
    assert talk.count("DELTA_OVER_LIMIT") == 4
    [generation] = talk.did.started
    assert generation.received_ms == 1100
    assert generation.live
    talk.done("r1", "cancelled")
    talk.play(1200)
    assert talk.conversation.live == ()
    assert talk.truncated == {"item of r1": 1100}
    assert talk.did.gave_up == []


def test_tx_7_audio_of_a_live_answer_is_never_dropped() -> None:
    talk = Talk()
    talk.created("r1")
    for _ in range(2999):
        talk.audio("r1", 100)
    assert talk.did.started[0].owed_frames == 2999 * 5
    assert talk.cancelled == []


# A lost session


def test_a_new_session_is_told_what_was_heard_and_nothing_else() -> None:
    """Words cut off by a barge-in were generated but never heard; the conversation goes on without them."""
    talk = Talk()
    talk.answer("r1", 2000, "one two three four five six seven eight")
    talk.play(1000)
    talk.starts()
    talk.clears()
    talk.commits(text="stop")
    talk.answer("r2", 1000, "as you wish")
    talk.play(1200)
    talk.conversation.session_lost()
    assert [spoken(message) for message in talk.conversation.replay()] == [
        ("assistant", "one two three four"),
        ("user", "stop"),
        ("assistant", "as you wish"),
    ]


def spoken(message: str) -> tuple[str, str]:
    """Role and text of a replayed item."""
    item = msgspec.json.decode(message)["item"]
    return item["role"], item["content"][0]["text"]


def test_an_answer_that_is_still_playing_is_replayed_as_far_as_it_was_received() -> None:
    talk = Talk()
    talk.created("r1")
    talk.text("r1", "one two three four five six seven eight nine ten eleven twelve")
    talk.audio("r1", 2000)
    talk.play(500)
    talk.conversation.session_lost()
    [(role, text)] = [spoken(message) for message in talk.conversation.replay()]
    assert role == "assistant"
    assert text
    assert "one two three four five six seven eight nine ten eleven twelve".startswith(text)
    assert not text.endswith("twelve"), "text runs ahead of its audio"


def test_a_lost_session_ends_its_answers_where_they_are() -> None:
    """What was received is still spoken; nothing of it is truncated in a session that never had it."""
    talk = Talk()
    talk.created("r1")
    talk.audio("r1", 2000)
    talk.play(500)
    talk.conversation.session_lost()
    assert len(talk.conversation.live) == 1
    assert talk.did.started[0].closed
    talk.starts()
    talk.clears()
    assert talk.truncated == {}
    assert talk.cancelled == []


def test_a_turn_that_was_owed_an_answer_is_asked_for_in_the_new_session() -> None:
    talk = Talk()
    talk.starts()
    talk.commits(text="hello?")
    talk.created("r1")
    talk.conversation.session_lost()
    talk.pause(0.0)
    assert talk.asked == [], "there is nobody to ask"
    talk.conversation.session_ready()
    talk.pause(0.0)
    assert talk.asked == ["turn"]


def test_a_turn_whose_words_were_lost_is_told_as_lost() -> None:
    talk = Talk()
    talk.starts()
    talk.commits()
    talk.conversation.session_lost()
    assert [spoken(message) for message in talk.conversation.replay()] == [("user", WORDS_LOST)]


# Other languages, and the end


def test_bi_8_hebrew_cut_in_the_middle_stays_whole_words() -> None:
    talk = Talk()
    words = "שלום וברכה הגעתם למרפאה איך אפשר לעזור לכם היום"
    talk.answer("r1", 4000, words)
    talk.play(2000)
    talk.starts()
    talk.clears()
    [agent, _caller] = talk.conversation.transcript.turns()
    assert agent.text == words
    assert agent.interrupted
    assert words.startswith(agent.heard_text)
    assert 0 < len(agent.heard_text.split()) < len(words.split())
    assert agent.heard_text.split() == words.split()[: len(agent.heard_text.split())]


def test_an_answer_heard_to_its_end_is_kept_whole() -> None:
    talk = Talk()
    talk.answer("r1", 1000, "hello there")
    talk.play(1200)
    [turn] = talk.conversation.transcript.turns()
    assert (turn.text, turn.heard_text, turn.heard_ms, turn.interrupted) == (
        "hello there",
        "hello there",
        1000,
        False,
    )
    assert talk.count("ANSWER_HEARD") == 1


def test_spoken_into_after_its_last_word_nothing_was_cut_off() -> None:
    """The grace is not over, so it is a speech start while audible; but the answer was heard as a whole."""
    talk = Talk()
    talk.answer("r1", 1000, "hello there")
    generation = talk.did.started[0]
    while generation.slicer.pop() is not None:
        talk.conversation.playout.frame_sent(generation.id, talk.now)
    talk.now += 1.1
    talk.starts()
    talk.clears()
    [agent, _caller] = talk.conversation.transcript.turns()
    assert not agent.interrupted
    assert agent.heard_text == "hello there"
    assert talk.truncated == {}


def test_what_is_live_at_the_end_of_the_call_ends_as_heard() -> None:
    talk = Talk()
    talk.answer("r1", 2000, "one two three four")
    talk.play(1000)
    talk.conversation.end(talk.now)
    [turn] = talk.conversation.transcript.turns()
    assert turn.heard_ms == 1000
    assert turn.interrupted
    assert turn.heard_text == "one two"
    assert talk.conversation.idle


def test_a_bundled_prompt_needs_no_model() -> None:
    talk = Talk()
    generation = talk.conversation.answers.say(b"\x11" * 8000, "Goodbye.", talk.now)
    assert generation.received_ms == 1000
    assert talk.did.completed == [generation]
    talk.play(400)
    talk.starts()
    talk.clears()
    assert talk.did.told == [], "there is no item of the model's to truncate"

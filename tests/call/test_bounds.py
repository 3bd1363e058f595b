"""DO-4: a call has so many responses and so much text, and then its time is up."""

from conversation_driver import Talk

from agent.call.call_clock import PAST_LIMIT_S, CallClock, Due
from agent.core.bounds import ModelBounds


def test_do_4_responses_are_counted() -> None:
    talk = Talk()
    talk.conversation.bounds.bounds = ModelBounds(responses=2)
    talk.answer("r1", 100)
    assert talk.conversation.bounds.reached == ""
    talk.created("r1")
    talk.answer("r2", 100)
    assert talk.conversation.bounds.reached == "responses"


def test_do_4_text_of_both_sides_is_kept_up_to_the_bound() -> None:
    talk = Talk()
    talk.conversation.bounds.bounds = ModelBounds(text=10)
    talk.starts()
    talk.commits(text="Hello.")
    assert talk.conversation.bounds.reached == ""
    talk.answer("r1", 100, text="Good morning.")
    talk.play(200)
    assert talk.conversation.bounds.reached == "text"
    talk.starts("caller 2")
    talk.commits("caller 2", text="More.")
    assert [turn.text for turn in talk.conversation.transcript.turns()] == ["Hello.", "Good", ""]


def test_do_4_a_call_that_has_had_enough_has_reached_its_time_limit() -> None:
    clock = CallClock(answered_s=100.0, idle_prompt_s=0.0, idle_prompts=2, max_call_s=3600.0)
    assert clock.look(160.0, idle=False, audible_until=0.0) is Due.NOTHING
    assert clock.cut_short(160.0)
    assert not clock.cut_short(170.0)
    assert clock.look(160.0, idle=False, audible_until=0.0) is Due.TIME_LIMIT
    assert clock.look(160.0 + PAST_LIMIT_S, idle=False, audible_until=0.0) is Due.OVERDUE

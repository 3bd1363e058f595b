"""Who said what: channels named, segments in order, and a recording whose channels are the wrong way round."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from agent.core.records import Turn
from agent.pipeline.transcription.transcription import ChannelWords, Segment, fill_turns, make_transcription

CALLER = [ChannelWords(2000, 4000, "My name is Dana and I live in Haifa, the boiler is leaking badly.")]
AGENT = [
    ChannelWords(0, 1500, "Hello, this is Harbour Plumbing, how can I help you today?"),
    ChannelWords(4500, 6000, "I am sorry to hear that, a plumber will come tomorrow morning."),
]


def turn(role: Literal["caller", "agent"], text: str, heard_text: str | None = None) -> Turn:
    heard = text if heard_text is None else heard_text
    return Turn(role, "item", text, heard, 0, 1000, 1000, interrupted=heard != text)


TURNS = [
    turn("agent", AGENT[0].text),
    turn("caller", "my name is Dana, I live in Haifa; my boiler is leaking"),
    turn("agent", AGENT[1].text),
]


def roles(heard: Sequence[Sequence[ChannelWords]], turns: Sequence[Turn] = ()) -> list[str]:
    return [segment.channel for segment in make_transcription(heard, "test", turns).segments]


@pytest.mark.parametrize("turns", [[], TURNS])
def test_the_first_channel_is_the_phones_whichever_way_the_call_went(turns: list[Turn]) -> None:
    """Twilio's first leg first: who called us, or whom we called; both are the caller of the transcript."""
    assert roles([CALLER, AGENT], turns) == ["agent", "caller", "agent"]


def test_a_recording_that_contradicts_what_was_said_is_read_the_other_way_round() -> None:
    changed = make_transcription([AGENT, CALLER], "test", TURNS)
    assert [segment.channel for segment in changed.segments] == ["agent", "caller", "agent"]
    assert changed.reversed_channels


@pytest.mark.parametrize(
    ("heard", "turns"),
    [
        ([[ChannelWords(0, 1, "Hello there")], []], TURNS),
        ([CALLER, AGENT], [turn("agent", "Something else entirely was said by us.")]),
        ([[ChannelWords(0, 1, "please help with the plumbing today or tomorrow")], AGENT], TURNS),
    ],
)
def test_little_or_shared_words_prove_nothing(heard: Any, turns: list[Turn]) -> None:
    assert not make_transcription(heard, "test", turns).reversed_channels


def test_what_the_caller_never_heard_is_on_no_recording() -> None:
    """An interrupted answer: only its heard part can tell the agent's channel."""
    long = "Our prices begin at ninety shekels for every visit within the city limits"
    turns = [turn("agent", long, heard_text=""), turn("caller", CALLER[0].text)]
    heard = [[ChannelWords(0, 9, long)], CALLER]
    assert make_transcription(heard, "test", turns).reversed_channels


def test_a_single_channel_has_no_name() -> None:
    assert roles([CALLER], TURNS) == ["unknown"]
    assert roles([[]]) == []


def test_hebrew_counts_as_words() -> None:
    ours, theirs = "שלום, מדברים מהמרפאה של הנמל, איך אפשר לעזור", "קוראים לי דנה ואני רוצה לקבוע תור לרופא"
    turns = [turn("agent", ours), turn("caller", theirs)]
    heard = [[ChannelWords(0, 1, ours)], [ChannelWords(2, 3, theirs)]]
    assert make_transcription(heard, "test", turns).reversed_channels


def test_empty_words_are_dropped_and_all_is_ready_for_json() -> None:
    made = make_transcription([[ChannelWords(5, 3, " hi "), ChannelWords(0, 1, "  ")], []], "whisper-1")
    assert made.segments == (Segment("caller", 5, 5, "hi"),)
    assert json.loads(json.dumps(made.as_json())) == {
        "segments": [{"channel": "caller", "start_ms": 5, "end_ms": 5, "text": "hi"}],
        "channels": 2,
        "model": "whisper-1",
        "reversed_channels": False,
    }


def caller_turn(started_ms: int, audio_ms: int, text: str = "") -> Turn:
    return Turn("caller", f"item_{started_ms}", text, text, started_ms, audio_ms, audio_ms, False, bool(text))


def test_turns_without_words_get_those_of_the_recording() -> None:
    """Each segment goes to the turn it overlaps most, or else to the nearest; what was written down stays."""
    turns = (
        Turn("agent", "item_a", "Hello.", "Hello.", 0, 900, 900, interrupted=False),
        caller_turn(2000, 1000),
        caller_turn(5000, 2000, "As it was heard."),
        caller_turn(9000, 3000),
        caller_turn(20_000, 200),
    )
    heard = (
        Segment("agent", 0, 800, "Hello."),
        Segment("caller", 1300, 1900, "I am Dana."),
        Segment("caller", 4600, 6000, "As it was transcribed."),
        Segment("caller", 6700, 9000, "Book me"),
        Segment("caller", 11_500, 12_000, "a cleaning."),
        Segment("unknown", 18_900, 19_500, "Nobody's."),
    )
    filled = fill_turns(turns, heard, 700)
    assert [(turn.started_ms, turn.text) for turn in filled] == [
        (2000, "I am Dana."),
        (9000, "Book me a cleaning."),
        (20_000, ""),
    ]
    assert all(turn.heard_text == turn.text and not turn.complete for turn in filled)
    assert fill_turns(filled, (), 700)[0].text == "", "another transcription replaces them"
    assert fill_turns((), heard, 700) == ()

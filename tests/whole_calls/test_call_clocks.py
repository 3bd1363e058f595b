"""The small clocks and meters of a call: keys, idle prompts, loudness. Pure, exact."""

from __future__ import annotations

import pytest

from agent.audio.level_meter import LevelMeter
from agent.call.call_clock import CallClock, Due
from agent.call.turns.dtmf import MOST_KEYS, DtmfCollector
from agent.core.units import SILENCE_FRAME
from agent.sim.sounds import tone


def frames_of(audio: bytes) -> list[bytes]:
    return [audio[at : at + 160] for at in range(0, len(audio), 160)]


# DTMF


def test_keys_pressed_together_are_told_together() -> None:
    keys = DtmfCollector()
    for at, key in enumerate("123"):
        assert keys.pressed(key, at * 1.0)
        assert keys.take(at * 1.0) == ""
    assert keys.due_s == 3.5
    assert keys.take(3.5) == "123"
    assert keys.take(9.0) == ""
    assert keys.all_keys == "123"


def test_the_hash_key_ends_an_entry_at_once() -> None:
    keys = DtmfCollector()
    keys.pressed("7", 0.0)
    keys.pressed("#", 0.1)
    assert keys.take(0.1) == "7#"


@pytest.mark.parametrize("key", ["", "12", "x", "٣"])
def test_what_is_no_key_is_refused(key: str) -> None:
    assert not DtmfCollector().pressed(key, 0.0)


def test_a_stuck_key_is_bounded() -> None:
    keys = DtmfCollector()
    taken = sum(keys.pressed("1", 0.0) for _ in range(1000))
    assert taken == MOST_KEYS


# Idle prompts and the time limit


def test_idle_prompts_then_the_end_which_stays_due() -> None:
    """Two questions into silence, each after 5 s of it, then the end, until it comes or somebody speaks."""
    clock = CallClock(0.0, idle_prompt_s=5.0, idle_prompts=2, max_call_s=3600.0)
    due = [(second, clock.look(second, idle=True, audible_until=0.0)) for second in range(18)]
    assert [(second, what) for second, what in due if what is not Due.NOTHING] == [
        (5, Due.PROMPT),
        (10, Due.PROMPT),
        (15, Due.IDLE),
        (16, Due.IDLE),
        (17, Due.IDLE),
    ]
    clock.caller_spoke()
    assert clock.look(18, idle=False, audible_until=0.0) is Due.NOTHING
    assert clock.look(23, idle=True, audible_until=0.0) is Due.PROMPT


def test_silence_counts_from_the_audible_end_of_speech() -> None:
    """The model was done at 0; the caller heard it until 8."""
    clock = CallClock(0.0, idle_prompt_s=5.0, idle_prompts=2, max_call_s=3600.0)
    assert clock.look(12.9, idle=True, audible_until=8.0) is Due.NOTHING
    assert clock.look(13.0, idle=True, audible_until=8.0) is Due.PROMPT


def test_a_caller_who_speaks_is_asked_anew() -> None:
    clock = CallClock(0.0, idle_prompt_s=5.0, idle_prompts=1, max_call_s=3600.0)
    assert clock.look(5, idle=True, audible_until=0) is Due.PROMPT
    clock.caller_spoke()
    assert clock.look(6, idle=False, audible_until=0) is Due.NOTHING
    assert clock.look(11, idle=True, audible_until=0) is Due.PROMPT


def test_mo_7_the_time_limit_comes_first_and_is_overdue_after_half_a_minute() -> None:
    clock = CallClock(100.0, idle_prompt_s=0.0, idle_prompts=1, max_call_s=60.0)
    assert clock.look(159.9, idle=True, audible_until=0) is Due.NOTHING
    assert clock.look(160.0, idle=False, audible_until=0) is Due.TIME_LIMIT
    assert clock.look(189.9, idle=False, audible_until=0) is Due.TIME_LIMIT
    assert clock.look(190.0, idle=False, audible_until=0) is Due.OVERDUE


# BI-7: our own ear


def test_bi_7_speech_over_silence_is_voiced_and_counted() -> None:
    """Silence, then a tone: voiced at once, still voiced in a short pause, not after 160 ms of it."""
    meter = LevelMeter()
    for _ in range(50):
        meter.feed(SILENCE_FRAME)
    assert not meter.voiced
    for frame in frames_of(tone(200)):
        meter.feed(frame)
    assert meter.voiced
    assert meter.snapshot()["vad_frames"] == 10
    for _ in range(7):
        meter.feed(SILENCE_FRAME)
    assert meter.voiced
    meter.feed(SILENCE_FRAME)
    assert not meter.voiced


def test_bi_7_a_steady_noise_becomes_the_floor() -> None:
    """A fan at -40 dBFS counts as speech for a moment only; speech over it still counts."""
    meter = LevelMeter()
    for frame in frames_of(tone(8000, dbfs=-40)):
        meter.feed(frame)
    assert not meter.voiced
    assert meter.snapshot()["noise_floor_dbfs"] == pytest.approx(-43, abs=4)
    for frame in frames_of(tone(100, dbfs=-12)):
        meter.feed(frame)
    assert meter.voiced


def test_bi_7_levels_are_in_dbfs() -> None:
    """A full-scale tone reads within a few dB of its level; silence reads as the bottom of the scale."""
    meter = LevelMeter()
    for frame in frames_of(tone(200, dbfs=-6)):
        meter.feed(frame)
    assert meter.snapshot()["rms_dbfs"] == pytest.approx(-10, abs=4)
    silent = LevelMeter()
    silent.feed(SILENCE_FRAME)
    assert silent.snapshot()["rms_dbfs"] < -70

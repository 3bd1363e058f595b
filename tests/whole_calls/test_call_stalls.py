"""MO-8: while the line stalls nothing is heard; the model and the record are told what the ear had."""

from __future__ import annotations

import pytest
import trio
from fault_calls import SHORT, open_one_call, record_of
from unkind_models import suppose
from virtual_call import CALL_SID, received

from agent.audio.gap_filler import FILL_AT_MOST_MS
from agent.core.records import CallRecord, Turn
from agent.core.units import BYTES_PER_MS, FRAME_BYTES, ULAW_SILENCE
from agent.sim.model.script import Answer, ScriptedToolCall
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone

LEAD_MS = 100
"""What the carrier may hold unplayed when the line stalls."""


@pytest.mark.parametrize("stall_s", [1.0, 3.0])
async def test_a_barge_in_into_a_stall_is_told_with_what_the_ear_had(
    autojump_clock: object, stall_s: float
) -> None:
    """The line stalls, the caller speaks: the model and the record are told what was heard before the stall."""
    model = ScriptedRealtime([Answer("One two three four five six seven.", 8000, speed=None), SHORT])
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        stream.stop_reading()
        await trio.sleep(stall_s - 0.4)
        heard_ms = stream.heard_ms()
        stream.say(tone(600))
        await trio.sleep(0.4)
        stream.read_again()
        await trio.sleep(3.0)
        await stream.hang_up()
    [told] = received(model, "conversation.item.truncate")
    suppose(1500 <= heard_ms <= 1500 + LEAD_MS, "the line stalls at once")
    assert told["audio_end_ms"] <= heard_ms + 40
    assert record_of(services).turns[0].heard_ms <= heard_ms + 40


async def goodbye_into_a_stall() -> tuple[int, Turn]:
    """The line stalls for 2 s in the goodbye: the milliseconds of it that the ear had, and its turn."""
    goodbye = Answer(
        "Your code is one two three, goodbye.", 3000, speed=4, tool_call=ScriptedToolCall("end_call")
    )
    model = ScriptedRealtime([Answer("Hello.", 600), goodbye])
    async with open_one_call(model) as (services, stream, _):
        services.rest.streams[CALL_SID] = stream
        await stream.until_heard_ms(600)
        await trio.sleep(0.5)
        stream.say(tone(200))
        await stream.until_heard_ms(2600)
        stream.stop_reading()
        await trio.sleep(2.0)
        stream.read_again()
        await stream.until_closed()
    return stream.heard_ms() - 600, record_of(services).turns[-1]


async def test_a_goodbye_cut_off_by_a_stall_is_not_recorded_as_heard(autojump_clock: object) -> None:
    """The record says no more of the goodbye than the ear had."""
    heard_ms, turn = await goodbye_into_a_stall()
    assert turn.heard_ms <= heard_ms + 40


async def test_a_goodbye_is_heard_out_although_the_line_stalls(autojump_clock: object) -> None:
    """The line is closed when the last mark has come back."""
    heard_ms, turn = await goodbye_into_a_stall()
    assert heard_ms == turn.audio_ms


async def sentence_with_a_stall(stall_s: float) -> tuple[bytes, ScriptedRealtime, CallRecord]:
    """A sentence of 3 s in whose middle nothing comes from the carrier for ``stall_s``, and then all at once."""
    sentence = tone(3000)
    model = ScriptedRealtime([SHORT, SHORT, SHORT], record_audio=True)
    async with open_one_call(model) as (services, stream, leg):
        await stream.until_heard_ms(800)
        stream.say(sentence)
        await trio.sleep(1.2)
        leg.agent_link.hold()
        await trio.sleep(stall_s)
        leg.agent_link.let_go()
        await trio.sleep(8.0)
        await stream.hang_up()
    return sentence, model, record_of(services)


@pytest.mark.parametrize("stall_s", [0.2, 0.6, 1.4])
async def test_mo_6_a_stall_puts_no_pause_into_a_sentence(autojump_clock: object, stall_s: float) -> None:
    """The carrier's audio is late, not lost: the model gets the sentence as it was spoken, and it is one turn."""
    sentence, model, record = await sentence_with_a_stall(stall_s)
    assert sentence in bytes(model.session.appended)
    assert [turn.role for turn in record.turns] == ["agent", "caller", "agent"]
    assert not {"CALLER_AUDIO_REPAIRED", "CALLER_AUDIO_LATE"} & set(record.metrics.events)


async def test_mo_6_after_a_long_stall_all_that_was_said_is_appended(autojump_clock: object) -> None:
    """A turn that could not end is ended; what comes late is not cut, and how late it was is in the timeline."""
    sentence, model, record = await sentence_with_a_stall(2.0)
    silence = bytes([ULAW_SILENCE]) * FILL_AT_MOST_MS * BYTES_PER_MS
    given = bytes(model.session.appended)
    assert any(
        sentence[:at] + silence + sentence[at:] in given for at in range(FRAME_BYTES, len(sentence), FRAME_BYTES)
    )
    [late] = [event for event in record.timeline if event.kind == "CALLER_AUDIO_LATE"]
    assert late.detail == {"ms": FILL_AT_MOST_MS}

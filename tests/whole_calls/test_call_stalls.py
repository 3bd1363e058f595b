"""MO-8: while the line stalls nothing is heard; the model and the record are told what the ear had."""

from __future__ import annotations

import pytest
import trio
from fault_calls import SHORT, open_one_call, record_of
from unkind_models import suppose
from virtual_call import CALL_SID, received

from agent.core.records import Turn
from agent.sim.model.script import Answer, ToolCall
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
    goodbye = Answer("Your code is one two three, goodbye.", 3000, speed=4, tool_call=ToolCall("end_call"))
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

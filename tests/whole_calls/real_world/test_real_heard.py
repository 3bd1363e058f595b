"""Heard is what the ear heard: what was cut off is told as cut."""

from __future__ import annotations

import trio
from fault_calls import SHORT, open_one_call, record_of
from unkind_models import suppose

from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.sounds import tone


async def test_an_answer_cut_off_after_a_reconnection_is_told_as_cut(autojump_clock: object) -> None:
    """The session is lost while an answer plays, then it is cut off: the new session is told that it was."""
    model = ScriptedRealtime(
        [Answer("One two three four five six seven eight nine ten.", 8000, speed=None), SHORT]
    )
    async with open_one_call(model) as (services, stream, _):
        await stream.until_heard_ms(1500)
        model.disconnect(drop=True)
        await trio.sleep(1.0)
        spoke_s = trio.current_time()
        stream.say(tone(600))
        await trio.sleep(4.0)
        await stream.hang_up()
    suppose(record_of(services).turns[0].interrupted, "the answer is cut off")
    corrections = {"conversation.item.truncate", "conversation.item.delete", "conversation.item.create"}
    told = [event["type"] for at_s, event in model.session.received if at_s >= spoke_s]
    knew_it_whole = "nine ten." in str(model.session.received)
    suppose(told or knew_it_whole, "the new session knows of the answer")
    assert not knew_it_whole or corrections & set(told)

"""NB-5: what runs during a call: transcript in memory, audio, and nothing heavy."""

from __future__ import annotations

import trio
from trio.testing import MockClock
from virtual_call import open_scripted_call

from agent.sim.model.script import Answer
from agent.sim.sounds import tone


async def test_nb_5_during_a_call_only_light_work_is_done(autojump_clock: MockClock) -> None:
    """While it lasts: no record written, nothing handed over, one REST request (the recording's start).

    The transcript is in memory; record, hang-up and hand-over come when the call is over.
    """
    answers = [Answer("Hello.", 1000), Answer("Nine to five.", 1500)]
    async with open_scripted_call(answers) as (services, stream, _):
        await stream.until_heard_ms(1000)
        stream.say(tone(500))
        await trio.sleep(4)
        assert services.records.saved == []
        assert services.handed_over() == []
        assert [request.what for request in services.rest.requests] == ["start_recording"]
        await stream.hang_up()
    assert [turn.role for turn in services.record.turns] == ["agent", "caller", "agent"]
    assert services.handed_over() == [services.record.call_sid]

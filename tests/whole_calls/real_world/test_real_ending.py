"""What the reader has in hand as the call ends."""

from __future__ import annotations

from base64 import b64encode
from functools import partial

import pytest
import trio
from fault_calls import open_one_call
from trio.testing import MockClock
from unkind_models import run_in_order
from virtual_call import CALL_SID

from agent.call.conversation import Conversation
from agent.core.units import CallSid
from agent.model.events import ModelEvent
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime


async def stop_with_a_delta_in_hand(passes: int) -> None:
    """The server stops a few passes of the scheduler after the model has sent a delta."""
    model = ScriptedRealtime([Answer("Hello.", 20_000, speed=1.0)])
    async with open_one_call(model) as (services, stream, leg):
        await stream.until_heard_ms(20)
        await trio.sleep(0.013)
        response = model.session.responses[0]
        model.inject(
            {
                "type": "response.output_audio.delta",
                "response_id": response.id,
                "item_id": response.item_id,
                "output_index": 0,
                "content_index": 0,
                "delta": b64encode(b"\x11" * 160).decode(),
            }
        )
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        services.calls.active[CallSid(CALL_SID)].cancel(reason="the server stops")
        await leg.over.wait()


def test_a_delta_in_hand_as_the_call_ends_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever task runs first when the server stops, the reader's last event raises nothing."""
    raised: list[Exception] = []
    take = Conversation.model_event

    def take_and_note(conversation: Conversation, event: ModelEvent, now: float) -> None:
        try:
            take(conversation, event, now)
        except Exception as error:
            raised.append(error)
            raise

    monkeypatch.setattr(Conversation, "model_event", take_and_note)
    for passes in (2, 3):
        stop = partial(stop_with_a_delta_in_hand, passes)
        for seed in range(40):
            run_in_order(stop, seed, MockClock(autojump_threshold=0))
            assert not raised

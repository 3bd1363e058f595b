"""The apology for a model that is of no use any more: at once, whole, and the line is closed behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fault_calls import GREETING, SHORT, open_one_call, record_of
from unkind_models import suppose

from agent.core.records import CallRecord, Outcome
from agent.model.server_shapes import ErrorDetails
from agent.sim.model.script import Answer
from agent.sim.model.server import ScriptedRealtime
from agent.sim.model.session import ModelSession

NO_QUOTA = ErrorDetails("invalid_request_error", "insufficient_quota", "You exceeded your quota.")


async def give_up_in_an_answer() -> CallRecord:
    """The provider refuses to go on in the middle of an answer, and never says that this is over."""
    model = ScriptedRealtime([Answer("A long answer.", 30_000, speed=1.0, first_delta_ms=0), SHORT])
    async with open_one_call(model) as (services, stream, leg):
        await stream.until_heard_ms(1000)
        model.session.active = None
        error = {"type": NO_QUOTA.type, "code": NO_QUOTA.code, "message": NO_QUOTA.message}
        model.inject({"type": "error", "error": error})
        await leg.over.wait()
    record = record_of(services)
    suppose(record.outcome is Outcome.MODEL_LOST, "the model is given up")
    suppose([turn.item_id for turn in record.turns if turn.role == "agent"][-1] == "prompt", "it apologises")
    return record


async def test_the_apology_is_heard_whole(autojump_clock: object) -> None:
    """Whatever the model had begun to say, the caller hears all of the apology."""
    apology = (await give_up_in_an_answer()).turns[-1]
    assert apology.heard_ms == apology.audio_ms


async def test_the_apology_is_heard_at_once(autojump_clock: object) -> None:
    """What was received of the answer is heard, or cut; the apology begins within two seconds."""
    record = await give_up_in_an_answer()
    [given_up_ms] = [event.t_ms for event in record.timeline if event.kind == "MODEL_GIVEN_UP"]
    assert record.turns[-1].started_ms <= given_up_ms + 2000


async def test_the_line_is_closed_behind_the_apology(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider refuses the greeting for good: the line is closed within a second of the apology."""

    def refuse(session: ModelSession, event: Mapping[str, Any], _now: float) -> None:
        session.error(NO_QUOTA, event)

    monkeypatch.setattr(ModelSession, "_create", refuse)
    async with open_one_call(ScriptedRealtime([GREETING])) as (services, _, leg):
        await leg.over.wait()
    record = record_of(services)
    [apology] = record.turns
    assert record.metrics.duration_ms <= apology.started_ms + apology.heard_ms + 1000

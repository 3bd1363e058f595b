"""The pipeline against simulators over HTTP, on a real Postgres: everything once, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from ended_calls import change, rows
from fake_services import ALL_DONE, Outside, check_all_once, open_outside, open_worker

from agent.core.steps import STEPS
from agent.pipeline.webhook.call_completed import event_id
from agent.sim.carrier.rest.recordings import GeneratedSound
from agent.sim.model.rest import NEVER, WRONG_KEY
from agent.sim.webhook_receiver import FAILS, HANGS

pytestmark = pytest.mark.sockets


@pytest.fixture
async def outside(postgres: str) -> AsyncIterator[Outside]:
    """The simulators around a fresh database."""
    async with open_outside(postgres) as simulators:
        yield simulators


async def test_pc_2_everything_after_a_call_in_order(outside: Outside, tmp_path: Path) -> None:
    """Recording, transcription, summary, extraction, lead, status, and a webhook with all of it."""
    async with open_worker(outside, tmp_path):
        record = await outside.end_call()
        await outside.until_done()
    assert outside.states(record.call_sid) == ALL_DONE
    finished = rows(outside.conninfo, "SELECT step FROM postcall_steps ORDER BY finished_at")
    assert [step for (step,) in finished] == list(STEPS)
    assert rows(outside.conninfo, "SELECT phone, name, city, status FROM leads") == [
        (record.caller, "Dana Levi", "Haifa", "appointment")
    ]
    [body] = outside.receiver.bodies.values()
    told = json.loads(body)
    assert told["id"] == event_id(record.call_sid)
    assert told["call"]["sid"] == record.call_sid
    assert [turn["heard_text"] for turn in told["transcript"]] == [turn.heard_text for turn in record.turns]
    assert {part["channel"] for part in told["transcription"]} == {"caller", "agent"}
    assert told["summary"] == outside.openai.summary
    assert told["extraction"]["city"] == "Haifa"
    assert told["lead"]["phone"] == record.caller
    assert told["lead_status"] == "appointment"
    assert told["recording"]["sha256"]
    assert told["metrics"]["barge_in_events"] == 1
    assert told["dead_steps"] == []
    [(path,)] = rows(outside.conninfo, "SELECT path FROM recordings")
    assert Path(path).is_relative_to(tmp_path)
    assert Path(path).is_absolute()


async def test_pc_2_a_call_without_a_recording_goes_without(outside: Outside, tmp_path: Path) -> None:
    async with open_worker(outside, tmp_path):
        record = await outside.end_call(recorded=False, caller="anonymous")
        await outside.until_done()
    assert outside.states(record.call_sid) == ALL_DONE
    skipped = rows(outside.conninfo, "SELECT step FROM postcall_steps WHERE result ? 'skipped'")
    assert {step for (step,) in skipped} == {"recording", "transcription", "lead", "status"}
    assert outside.taken(record.call_sid) == 1


async def test_a_step_that_is_given_up_stops_none_of_the_others(outside: Outside, tmp_path: Path) -> None:
    """A key that is refused: no words, no summary, no particulars; the webhook says so. A retry makes it good."""
    outside.openai.transcription_faults.append(WRONG_KEY)
    outside.openai.response_faults.extend([WRONG_KEY, WRONG_KEY])
    async with open_worker(outside, tmp_path):
        record = await outside.end_call()
        await outside.until_done()
    dead = dict.fromkeys(("transcription", "summary", "extraction"), "dead")
    assert outside.states(record.call_sid) == {**ALL_DONE, **dead}
    [body] = outside.receiver.bodies.values()
    assert [step["step"] for step in json.loads(body)["dead_steps"]] == list(dead)


async def test_a_call_that_hangs_delays_no_other(outside: Outside, tmp_path: Path) -> None:
    """The model never answers for one call, the receiver hangs for another; eight more are through meanwhile."""
    outside.openai.response_faults.append(NEVER)
    async with open_worker(outside, tmp_path, worker_calls=4):
        stuck = await outside.end_call(1, recorded=False)
        with trio.fail_after(10):
            while outside.openai.counts["responses"] < 1:  # noqa: ASYNC110 - a simulator tells nobody
                await trio.sleep(0.01)
        outside.receiver.faults.append(HANGS)
        others = [await outside.end_call(number, recorded=False) for number in range(2, 11)]
        with trio.fail_after(15):
            while outside.open_calls() > 2:  # noqa: ASYNC110
                await trio.sleep(0.02)
    assert outside.states(stuck.call_sid)["summary"] != "done"
    assert sum(outside.states(other.call_sid) == ALL_DONE for other in others) == 8


async def test_pc_4_the_webhook_is_tried_again_under_the_same_key(outside: Outside, tmp_path: Path) -> None:
    outside.receiver.faults.append(FAILS)
    async with open_worker(outside, tmp_path):
        record = await outside.end_call(recorded=False)
        with trio.fail_after(10):
            while outside.states(record.call_sid)["webhook"] != "failed":  # noqa: ASYNC110
                await trio.sleep(0.02)
        await trio.sleep(0.2)
        change(outside.conninfo, "UPDATE calls SET due_at = now()")
        change(outside.conninfo, "NOTIFY postcall")
        await outside.until_done()
    assert outside.taken(record.call_sid) == 1
    tries = rows(
        outside.conninfo, "SELECT attempt, idempotency_key, http_status FROM webhook_deliveries ORDER BY 1"
    )
    key = event_id(record.call_sid)
    assert tries == [(1, key, 500), (2, key, 200)]


async def test_fifty_calls_that_end_together(outside: Outside, tmp_path: Path) -> None:
    """One worker, the model's API answering in 200 ms: all through in 20 s, each effect once."""
    outside.openai.delay_s = 0.2
    records = [await outside.end_call(number) for number in range(1, 51)]
    async with open_worker(outside, tmp_path):
        began_s = trio.current_time()
        await outside.until_done(60)
        took_s = trio.current_time() - began_s
    assert took_s < 20
    assert all(outside.taken(record.call_sid) == 1 for record in records)
    assert rows(outside.conninfo, "SELECT count(*), count(DISTINCT phone) FROM leads") == [(50, 50)]
    assert rows(outside.conninfo, "SELECT max(attempts) FROM postcall_steps") == [(1,)]
    assert not outside.receiver.changed


async def test_recordings_are_deleted_at_the_carrier_if_the_tenant_says_so(
    outside: Outside, tmp_path: Path
) -> None:
    """After their words are written down, and only what is on our disk; nobody waits for it."""
    change(outside.conninfo, "UPDATE tenants SET delete_recordings = true")
    record = await outside.end_call(1)
    empty = await outside.end_call(2)
    [recording] = outside.twilio.recordings.of_call(empty.call_sid)
    recording.sound = GeneratedSound(0.0)
    async with open_worker(outside, tmp_path):
        await outside.until_done()
    async with open_worker(outside, tmp_path):  # another one, for it looks as soon as it begins
        with trio.fail_after(10):
            while rows(outside.conninfo, "SELECT FROM recordings WHERE deleted_at IS NULL") != [()]:  # noqa: ASYNC110
                await trio.sleep(0.02)
    assert outside.twilio.recordings.deleted == [record.recording_sid]
    assert outside.states(empty.call_sid)["recording"] == "dead"


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope after so many steps of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self.scope, self.left = scope, steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="the sweep")


async def test_pc_4_cancelled_anywhere_and_begun_again_every_effect_is_there_once(
    outside: Outside, tmp_path: Path
) -> None:
    """A worker is cancelled after a few steps of its tasks, then after more, until it is through."""
    records = [await outside.end_call(number) for number in range(1, 5)]
    scope = trio.CancelScope()
    lives, steps = 0, 60
    with trio.fail_after(60):
        while outside.open_calls():
            lives += 1
            with trio.CancelScope() as scope:
                instrument = CancelAfter(scope, steps)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with open_worker(outside, tmp_path):
                        await outside.until_done()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            steps += 23
    assert lives > 10
    check_all_once(outside, [record.call_sid for record in records])
    assert rows(outside.conninfo, "SELECT max(attempts) FROM postcall_steps WHERE step <> 'webhook'") == [(1,)], (
        "to be stopped is no attempt"
    )

"""A step whose model is gone waits, in a clear state, until the setting names one that is there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from ended_calls import change, make_record, rows, sid
from fake_backends import Neighbours, open_ready_database, until
from fake_services import ALL_DONE, Outside, check_all_once, open_outside, open_worker
from rich.console import Console

from agent.app.cli.calls.view import tell_call, tell_list
from agent.core.errors import ModelGoneError
from agent.core.event_log import EventLog
from agent.core.provider_models import RECORDING, SUMMARY
from agent.core.steps import STEPS
from agent.core.telemetry import Telemetry
from agent.pipeline.worker import Worker
from agent.store.pg import open_connection
from agent.store.sql.calls import keep_record
from agent.store.sql.claims import (
    Claim,
    ClaimLostError,
    claim_call,
    due_calls,
    release_call,
    resume_waiting,
    settle_due,
)
from agent.store.sql.ledger import finish_step, hold_step, retry, start_step, states_of
from agent.store.sql.views import list_calls, show_call

pytestmark = pytest.mark.sockets
OLD, NEW = {"summary": "old", "extraction": "old"}, {"summary": "new", "extraction": "new"}


@pytest.fixture
async def outside(postgres: str) -> AsyncIterator[Outside]:
    """The simulators around a fresh database."""
    async with open_outside(postgres) as simulators:
        yield simulators


def state(postgres: str, step: str) -> str:
    [(found,)] = rows(postgres, "SELECT state FROM postcall_steps WHERE step = %s", step)
    return str(found)


async def hold_summary(pg: Any, claims: Any, model: str) -> Claim:
    """A call whose summary waits for another model than ``model``."""
    call_id = await keep_record(pg, make_record())
    claim = await claim_call(claims, call_id, "one")
    assert claim is not None
    for step in ("recording", "transcription"):
        await start_step(pg, claim, step, "one")
        await finish_step(pg, claim, step, {})
    await start_step(pg, claim, "summary", "one")
    await hold_step(pg, claim, "summary", f"HTTP 404 for {model}", model)
    return claim


async def test_a_waiting_call_is_due_for_nobody_until_a_model_is_there_that_was_not_tried(postgres: str) -> None:
    async with (
        open_connection(postgres) as pg,
        open_connection(postgres) as claims,
    ):
        claim = await hold_summary(pg, claims, "old")
        assert rows(postgres, "SELECT due_at FROM calls") == [(None,)], "should its worker be killed now"
        await settle_due(pg, claim)
        await release_call(claims, claim)
        assert rows(postgres, "SELECT due_at FROM calls") == [(None,)]
        assert (await states_of(pg, claim.call_id))["summary"]["attempts"] == 0, "no attempt is counted"
        assert await resume_waiting(pg, OLD) == []
        assert await resume_waiting(pg, NEW) == [claim.call_sid]
        assert await due_calls(pg, 10, OLD) == [], "it is not for who has the old one still"
        assert await due_calls(pg, 10, NEW) == [claim.call_id]
        second = await claim_call(claims, claim.call_id, "two")
        assert second is not None
        await start_step(pg, second, "summary", "two")
        await hold_step(pg, second, "summary", "HTTP 404 for new", "new")
        await settle_due(pg, second)
        await release_call(claims, second)
        assert await resume_waiting(pg, OLD) + await resume_waiting(pg, NEW) == [], "each is tried once"
        assert await resume_waiting(pg, {}) == [sid(1)], "without a key the rules of this machine do it"
        assert [(await due_calls(pg, 10, models)) for models in (OLD, NEW)] == [[], []]
        assert await retry(pg, sid(1)) == list(STEPS[2:])
        assert await due_calls(pg, 10, OLD) == [claim.call_id], "whoever asks for it has it tried with any"


async def test_one_who_lost_the_claim_holds_nothing(postgres: str) -> None:
    async with (
        open_connection(postgres) as pg,
        open_connection(postgres) as claims,
    ):
        call_id = await keep_record(pg, make_record())
        claim = await claim_call(claims, call_id, "one")
        assert claim is not None
        await start_step(pg, claim, "recording", "one")
        assert await retry(pg, sid(1), "recording")
        with pytest.raises(ClaimLostError):
            await hold_step(pg, claim, "recording", "gone", "old")
    assert state(postgres, "recording") == "pending"
    [(is_due,)] = rows(postgres, "SELECT due_at <= now() FROM calls")
    assert is_due


@pytest.mark.parametrize(
    ("setting", "model", "step"),
    [("AGENT_SUMMARY_MODEL", SUMMARY, "summary"), ("AGENT_RECORDING_MODEL", RECORDING, "transcription")],
)
async def test_gone_then_waiting_then_mended_then_done_once(
    outside: Outside, tmp_path: Path, setting: str, model: str, step: str
) -> None:
    """404, and the call waits, as everybody is told; with another model it is done, and the webhook sent once."""
    outside.openai.gone.add(model)
    place = STEPS.index(step)
    waiting = {name: "done" if at < place else "pending" for at, name in enumerate(STEPS)} | {step: "waiting"}
    async with open_worker(outside, tmp_path) as worker:
        record = await outside.end_call()
        await until(lambda: state(outside.conninfo, step) == "waiting")
        await until(lambda: rows(outside.conninfo, "SELECT due_at, claim FROM calls") == [(None, None)])
    asked = outside.openai.counts.total()
    assert outside.states(record.call_sid) == waiting
    assert worker.events.telemetry.registry.get_sample_value(
        "agent_postcall_steps_total", {"step": step, "outcome": "waiting"}
    )
    await check_is_told(outside.conninfo, setting, step)
    async with open_worker(outside, tmp_path) as worker:
        registry = worker.events.telemetry.registry
        await until(lambda: registry.get_sample_value("agent_postcall_waiting_calls") == 1)
        await trio.sleep(0.3)
    assert outside.openai.counts.total() == asked, "the same model is not asked again"
    assert outside.taken(record.call_sid) == 0
    async with open_worker(outside, tmp_path, **{setting: "model-of-tomorrow"}):
        await until(lambda: outside.states(record.call_sid) == ALL_DONE)
        await outside.until_done()
    check_all_once(outside, [record.call_sid])
    assert outside.taken(record.call_sid) == 1
    [body] = outside.receiver.bodies.values()
    told = json.loads(body)
    assert told["dead_steps"] == []
    assert told["summary"] == outside.openai.summary
    assert rows(outside.conninfo, "SELECT DISTINCT attempts, error FROM postcall_steps") == [(1, None)]


async def check_is_told(conninfo: str, setting: str, step: str) -> None:
    """In the list, of the call, and by the doctor's backlog: that it waits, and which setting is to be mended."""
    async with open_connection(conninfo) as connection:
        [line] = await list_calls(connection, postcall=["waiting"])
        view = await show_call(connection, line.id)
    assert line.postcall == "waiting"
    assert view is not None
    console = Console(width=400)
    with console.capture() as captured:
        console.print(tell_list([line]), tell_call(view, datetime.now(UTC)))
    text = captured.get()
    [row] = [row for row in text.splitlines() if row.startswith(step) and "waiting" in row]
    assert setting in row
    assert "404" in row


async def test_a_worker_that_runs_takes_up_what_another_must_leave(
    outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, one set to a model that is gone: between them every call is done, each webhook sent once."""
    monkeypatch.setattr("agent.pipeline.maintenance.EVERY_S", 0.1)
    outside.openai.gone.add(SUMMARY)
    async with open_worker(outside, tmp_path), open_worker(outside, tmp_path, summary_model="model-of-tomorrow"):
        records = [await outside.end_call(number, recorded=False) for number in range(1, 13)]
        await until(lambda: all(outside.states(record.call_sid) == ALL_DONE for record in records))
        await outside.until_done()
    check_all_once(outside, [record.call_sid for record in records])


async def test_two_workers_with_two_models_that_are_gone_try_each_once(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not hand the call to and fro for ever."""
    monkeypatch.setattr("agent.pipeline.maintenance.EVERY_S", 0.05)
    both = [Neighbours(), Neighbours()]
    async with open_ready_database(postgres) as database, trio.open_nursery() as nursery:
        for neighbours, models in zip(both, (OLD, NEW), strict=True):
            neighbours.analyst.summary.always = ModelGoneError("gone", models["summary"])
            backends = attrs.evolve(neighbours.backends(tmp_path), models=models)
            nursery.start_soon(Worker(database, backends, EventLog(Telemetry())).run)
        async with open_connection(postgres) as connection:
            await keep_record(connection, make_record())
        await until(lambda: sum(neighbours.analyst.summary.uses for neighbours in both) == 2)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel(reason="enough was seen")
    assert [neighbours.analyst.summary.uses for neighbours in both] == [1, 1]
    [(gone,)] = rows(postgres, "SELECT models_gone FROM postcall_steps WHERE step = 'summary'")
    assert sorted(gone) == ["new", "old"]


async def test_retry_does_it_again_once_the_model_is_back(outside: Outside, tmp_path: Path) -> None:
    """A project that is allowed its model changes no setting: the operator says so."""
    outside.openai.gone.add(SUMMARY)
    async with open_worker(outside, tmp_path):
        record = await outside.end_call(recorded=False)
        await until(lambda: state(outside.conninfo, "summary") == "waiting")
        outside.openai.gone.clear()
        async with open_connection(outside.conninfo) as connection:
            assert await retry(connection, record.call_sid) == list(STEPS[2:])
        await until(lambda: outside.states(record.call_sid) == ALL_DONE)


async def test_a_record_that_comes_after_all_forgets_what_was_tried(postgres: str) -> None:
    async with (
        open_connection(postgres) as pg,
        open_connection(postgres) as claims,
    ):
        await hold_summary(pg, claims, "old")
        change(postgres, "UPDATE calls SET record = NULL")
        await keep_record(pg, make_record())
    assert rows(postgres, "SELECT DISTINCT state, models_gone FROM postcall_steps") == [("pending", [])]

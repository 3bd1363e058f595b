"""The ledger: a call is worked on by one worker at a time, who writes nothing any more once that is not so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
import trio
from ended_calls import change, make_record, rows, sid
from psycopg.rows import TupleRow

from agent.core.steps import STEPS
from agent.core.units import RecordingSid
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import call_answered, keep_record
from agent.store.sql.claims import (
    Claim,
    ClaimLostError,
    claim_call,
    due_calls,
    next_due_s,
    release_call,
    settle_due,
)
from agent.store.sql.ledger import (
    Begun,
    add_delivery,
    fail_step,
    finish_step,
    postpone_step,
    read_call,
    retry,
    start_step,
    states_of,
)
from agent.store.sql.values import AnsweredCall

pytestmark = pytest.mark.sockets
Conn = Connection[TupleRow]


@pytest.fixture
async def pg(postgres: str) -> AsyncIterator[Conn]:
    """A connection for what the caller of the ledger does."""
    async with open_connection(postgres) as connection:
        yield connection


@asynccontextmanager
async def open_worker(conninfo: str) -> AsyncIterator[Conn]:
    """The claim connection of a worker."""
    async with open_connection(conninfo) as connection:
        yield connection


async def claimed(claims: Conn, call_id: int, worker: str = "a worker") -> Claim:
    claim = await claim_call(claims, call_id, worker)
    assert claim is not None
    return claim


async def settle_all(pg: Conn, claim: Claim, *steps: str) -> None:
    for step in steps:
        await start_step(pg, claim, step, "a worker")
        await finish_step(pg, claim, step, {"step": step})


async def test_a_call_that_ended_is_due_at_once_and_is_claimed_by_one(postgres: str, pg: Conn) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as one, open_worker(postgres) as other:
        assert await due_calls(pg, 10) == [call_id]
        claim = await claim_call(one, call_id, "one")
        assert claim is not None
        assert await claim_call(other, call_id, "other") is None
        assert await due_calls(other, 10) == [], "what somebody works on is not offered"
        [(token, who, since)] = rows(postgres, "SELECT claim, claimed_by, claimed_at FROM calls")
        assert (token, who) == (claim.token, "one")
        assert since is not None
        await release_call(one, claim)
        assert await due_calls(other, 10) == [call_id]
        assert await claim_call(other, call_id, "other") is not None


async def test_pc_4_a_worker_that_dies_frees_its_calls_at_once(postgres: str, pg: Conn) -> None:
    """Its connection ends with it, and the locks with the connection; the row still tells who it was."""
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as other:
        async with open_worker(postgres) as dying:
            first = await claimed(dying, call_id)
            await start_step(pg, first, "recording", "dying")
        with trio.fail_after(5):
            while (second := await claim_call(other, call_id, "other")) is None:  # noqa: ASYNC110 - the server buries it
                await trio.sleep(0.01)
        assert second.token != first.token
        assert (await states_of(pg, call_id))["recording"]["state"] == "running", "to be begun again"
        assert await start_step(pg, second, "recording", "other") == Begun(attempt=1, interruptions=1)


async def test_pc_4_one_who_lost_the_claim_writes_nothing(postgres: str, pg: Conn) -> None:
    """The fencing token: checked in the transaction of every result, so two workers never both have a say."""
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        lost = await claimed(claims, call_id)
        await start_step(pg, lost, "recording", "one")
        current = Claim(call_id, uuid4())
        change(postgres, "UPDATE calls SET claim = %s", current.token)
        before = rows(postgres, "SELECT * FROM postcall_steps ORDER BY step")
        for write in (
            lambda: finish_step(pg, lost, "recording", {}),
            lambda: fail_step(pg, lost, "recording", "no", 1.0),
            lambda: fail_step(pg, lost, "recording", "no", None),
            lambda: postpone_step(pg, lost, "recording", "not yet", 1.0),
            lambda: start_step(pg, lost, "transcription", "one"),
            lambda: settle_due(pg, lost),
        ):
            with pytest.raises(ClaimLostError):
                await write()
        assert rows(postgres, "SELECT * FROM postcall_steps ORDER BY step") == before
        await finish_step(pg, current, "recording", {"ok": True})


async def test_pc_4_an_effect_goes_with_its_result_or_not_at_all(postgres: str, pg: Conn) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        claim = await claimed(claims, call_id)
        await start_step(pg, claim, "lead", "one")
        change(postgres, "UPDATE calls SET claim = %s", uuid4())

        async def effect_and_result() -> None:
            async with pg.transaction():
                await pg.execute("INSERT INTO leads (tenant_id, phone) VALUES ('default', '+15550000001')")
                await finish_step(pg, claim, "lead", {})

        with pytest.raises(ClaimLostError):
            await effect_and_result()
    assert rows(postgres, "SELECT count(*) FROM leads") == [(0,)]


async def test_pc_3_no_step_of_a_call_that_goes_on_is_ever_due(postgres: str, pg: Conn) -> None:
    """Not offered, not claimed, not read, not re-opened; and the database itself refuses to make it due."""
    call = AnsweredCall(sid(1), "default", "inbound", "+15551234567", "+15550000000", datetime.now(UTC))
    await call_answered(pg, call)
    [(call_id,)] = rows(postgres, "SELECT id FROM calls")
    change(
        postgres,
        "INSERT INTO postcall_steps (call_id, step) SELECT %s, unnest(%s::text[])",
        call_id,
        list(STEPS),
    )
    assert await due_calls(pg, 10) == []
    async with open_worker(postgres) as claims:
        assert await claim_call(claims, call_id, "one") is None
        assert rows(postgres, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)], (
            "let go again"
        )
    with pytest.raises(ClaimLostError):
        await read_call(pg, call_id)
    assert await retry(pg, sid(1)) == [], "nothing has failed"
    with pytest.raises(psycopg.errors.CheckViolation):
        await retry(pg, sid(1), "webhook")
    assert rows(postgres, "SELECT due_at FROM calls") == [(None,)]


async def test_pc_3_its_steps_are_due_when_it_has_ended(postgres: str, pg: Conn) -> None:
    record = make_record()
    call = AnsweredCall(record.call_sid, "default", "inbound", record.caller, record.called, record.answered_at)
    await call_answered(pg, call)
    assert await due_calls(pg, 10) == []
    call_id = await keep_record(pg, record)
    assert await due_calls(pg, 10) == [call_id]


async def test_a_call_is_due_when_its_next_step_is_and_never_when_all_are_settled(
    postgres: str, pg: Conn
) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        claim = await claimed(claims, call_id)
        await settle_all(pg, claim, "recording")
        assert await start_step(pg, claim, "transcription", "one") == Begun(attempt=1, interruptions=0)
        await fail_step(pg, claim, "transcription", "the API answers 500", 60.0)
        await settle_due(pg, claim)
        await release_call(claims, claim)
        assert await due_calls(pg, 10) == []
        due_s = await next_due_s(pg)
        assert due_s is not None
        assert 50 < due_s <= 60
        assert await claim_call(claims, call_id, "one") is None, "it rests"
        change(postgres, "UPDATE calls SET due_at = now()")
        claim = await claimed(claims, call_id)
        assert await start_step(pg, claim, "transcription", "one") == Begun(attempt=2, interruptions=0)
        await fail_step(pg, claim, "transcription", "the API refuses the key", None)
        await settle_all(pg, claim, *STEPS[2:])
        await settle_due(pg, claim)
        await release_call(claims, claim)
    assert await next_due_s(pg) is None
    assert rows(postgres, "SELECT due_at, claim, claimed_by, claimed_at FROM calls") == [(None,) * 4]
    states = await states_of(pg, call_id)
    assert states["transcription"]["state"] == "dead"
    assert states["transcription"]["error"] == "the API refuses the key"
    assert {states[step]["state"] for step in STEPS if step != "transcription"} == {"done"}


async def test_what_is_not_ready_costs_no_attempt(postgres: str, pg: Conn) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        claim = await claimed(claims, call_id)
        for _ in range(3):
            assert await start_step(pg, claim, "recording", "one") == Begun(attempt=1, interruptions=0)
            await postpone_step(pg, claim, "recording", "it is in progress", 15.0)
        row = (await states_of(pg, call_id))["recording"]
        assert (row["state"], row["attempts"], row["error"]) == ("pending", 0, "it is in progress")


async def test_many_workers_claim_many_calls_each_once(postgres: str, pg: Conn) -> None:
    calls = [await keep_record(pg, make_record(number)) for number in range(1, 31)]
    taken: list[tuple[int, int]] = []

    async def work(worker: int) -> None:
        async with open_worker(postgres) as claims:
            while due := await due_calls(claims, 3):
                for call_id in due:
                    claim = await claim_call(claims, call_id, f"worker {worker}")
                    if claim is None:
                        continue
                    taken.append((call_id, worker))
                    await settle_all(claims, claim, *STEPS)
                    await settle_due(claims, claim)
                    await release_call(claims, claim)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for worker in range(4):
                nursery.start_soon(work, worker)
    assert sorted(call_id for call_id, _ in taken) == calls
    assert len({worker for _, worker in taken}) > 1
    assert {attempts for (attempts,) in rows(postgres, "SELECT attempts FROM postcall_steps")} == {1}


async def test_retry_does_what_failed_again_and_what_stands_on_it(postgres: str, pg: Conn) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        claim = await claimed(claims, call_id)
        await settle_all(pg, claim, "recording", "transcription")
        await start_step(pg, claim, "summary", "one")
        await fail_step(pg, claim, "summary", "given up", None)
        await settle_all(pg, claim, *STEPS[3:])
        await settle_due(pg, claim)
        await release_call(claims, claim)
        assert await retry(pg, sid(1)) == list(STEPS[2:])
        states = await states_of(pg, call_id)
        assert {step for step in STEPS if states[step]["state"] == "done"} == {"recording", "transcription"}
        assert states["summary"]["attempts"] == 0
        assert await due_calls(pg, 10) == [call_id]
        claim = await claimed(claims, call_id)
        await settle_all(pg, claim, *STEPS[2:])
        await settle_due(pg, claim)
        await release_call(claims, claim)
    assert await retry(pg, sid(1)) == [], "nothing has failed"
    assert await retry(pg, sid(1), "webhook") == ["webhook"]
    assert await retry(pg, sid(404)) == []


async def test_retry_stops_whoever_works_on_the_call(postgres: str, pg: Conn) -> None:
    """What a worker finds on old grounds is not written over what was re-opened."""
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims, open_worker(postgres) as listening:
        await listening.execute("LISTEN postcall")
        claim = await claimed(claims, call_id)
        await settle_all(pg, claim, "recording", "transcription", "summary")
        await start_step(pg, claim, "extraction", "one")
        assert await retry(pg, sid(1), "summary") == list(STEPS[2:])
        with pytest.raises(ClaimLostError):
            await finish_step(pg, claim, "extraction", {})
        with trio.fail_after(5):
            assert (await listening.notification()).channel == "postcall"
        await release_call(claims, claim)
        assert await claim_call(claims, call_id, "two") is not None


async def test_pc_4_the_true_record_of_a_crashed_call_stops_who_works_on_what_was_known_before(
    postgres: str, pg: Conn
) -> None:
    """Its steps begin anew with what is true; what was found on old grounds is not written."""
    record = make_record(recording_sid=RecordingSid("RE" + "1" * 32))
    await call_answered(
        pg,
        AnsweredCall(
            record.call_sid, "default", "inbound", record.caller, record.called, record.answered_at, uuid4()
        ),
    )
    async with open_worker(postgres) as claims:
        [call_id] = [row[0] for row in rows(postgres, "SELECT id FROM calls")]
        change(
            postgres,
            "UPDATE calls SET status = 'ended', outcome = 'crashed', ended_at = now(), due_at = now()",
        )
        change(
            postgres,
            "INSERT INTO postcall_steps (call_id, step) SELECT %s, unnest(%s::text[])",
            call_id,
            list(STEPS),
        )
        claim = await claimed(claims, call_id)
        await settle_all(pg, claim, "recording", "transcription")
        await start_step(pg, claim, "summary", "one")
        assert await keep_record(pg, record) == call_id
        with pytest.raises(ClaimLostError):
            await finish_step(pg, claim, "summary", {"text": "of half a call"})
        assert {row["state"] for row in (await states_of(pg, call_id)).values()} == {"pending"}


async def test_deliveries_are_numbered(postgres: str, pg: Conn) -> None:
    call_id = await keep_record(pg, make_record())
    async with open_worker(postgres) as claims:
        claim = await claimed(claims, call_id)
        for status, error in ((500, "HTTP 500"), (None, "no answer"), (200, None)):
            await add_delivery(
                pg, claim, key="key", url="https://x.example/", http_status=status, error=error, duration_ms=5
            )
    found = rows(postgres, "SELECT attempt, http_status, error FROM webhook_deliveries ORDER BY attempt")
    assert found == [(1, 500, "HTTP 500"), (2, None, "no answer"), (3, 200, None)]

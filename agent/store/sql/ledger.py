"""The ledger of post-call work: what became of each step of each call (DESIGN D10).

Whoever writes here holds a claim (``agent.store.sql.claims``), and every result is checked against it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import attrs
import msgspec
import trio
from psycopg.rows import TupleRow, class_row, dict_row

from agent.core.steps import STEPS, steps_from
from agent.store.pg import Connection
from agent.store.sql.calls import tell_workers
from agent.store.sql.claims import Claim, ClaimLostError, check_claim
from agent.store.sql.text import clean, clean_json

_BROKEN: Final = ("failed", "waiting", "dead")
_threads: Final = trio.CapacityLimiter(2)


@attrs.frozen
class Begun:
    """A step that began: which attempt it is, and how often the process of a worker died under it before."""

    attempt: int
    interruptions: int


@attrs.frozen
class ClaimedCall:
    """What a worker knows of a call before its steps."""

    id: int
    call_sid: str
    tenant_id: str
    direction: Literal["inbound", "outbound"]
    caller: str
    called: str
    answered_at: datetime
    ended_at: datetime
    outcome: str
    reason: str
    dtmf: str
    has_record: bool
    """False: it crashed, and nobody knows more than what was saved meanwhile."""
    metrics: dict[str, Any] | None
    recorded_from_ms: int
    """When the recording began, in milliseconds after the answer; 0: nobody knows."""


async def read_call(connection: Connection[TupleRow], call_id: int) -> ClaimedCall:
    """The call as it ended."""
    call = await connection.fetch_one(
        """
        SELECT id, call_sid, tenant_id, direction, caller, called, answered_at, ended_at, outcome, reason,
          dtmf, record IS NOT NULL AS has_record, record->'metrics' AS metrics,
          coalesce(jsonb_path_query_first(record,
            '$.timeline[*] ? (@.kind == "RECORDING_STARTED").t_ms')::integer, 0) AS recorded_from_ms
        FROM calls
        WHERE id = %(call_id)s AND status = 'ended'
        """,
        {"call_id": call_id},
        class_row(ClaimedCall),
    )
    if call is None:
        raise ClaimLostError(f"call {call_id} is not there, or goes on")
    return call


async def start_step(connection: Connection[TupleRow], claim: Claim, step: str, worker: str) -> Begun:
    """A step begins. One that was left running goes on being the same attempt.

    If another worker left it, that died, perhaps of it: an interruption. If ``worker`` did, it lost its claim.
    """
    async with connection.transaction():
        await check_claim(connection, claim)
        row = await connection.fetch_one(
            """
            UPDATE postcall_steps
            SET state = 'running', started_at = now(), claimed_by = %(worker)s,
              attempts = attempts + (state <> 'running')::int,
              interruptions = interruptions + (state = 'running' AND claimed_by <> %(worker)s)::int,
              next_try_at = NULL, result = NULL, finished_at = NULL
            WHERE call_id = %(call_id)s AND step = %(step)s
            RETURNING attempts, interruptions
            """,
            {"worker": clean(worker), "call_id": claim.call_id, "step": step},
        )
    if row is None:
        raise ClaimLostError(f"call {claim.call_id} has no step {step}")
    return Begun(*row)


async def finish_step(
    connection: Connection[TupleRow], claim: Claim, step: str, result: Mapping[str, Any]
) -> None:
    """A step is done. Call it in the transaction of the step's own effect, if it has one in the database."""
    # The words of two hours are half a megabyte: not for the event loop (ST-3).
    written = await trio.to_thread.run_sync(_write, result, limiter=_threads)
    async with connection.transaction():
        await check_claim(connection, claim)
        await connection.execute(
            """
            UPDATE postcall_steps
            SET state = 'done', result = %(result)s, error = NULL, finished_at = now()
            WHERE call_id = %(call_id)s AND step = %(step)s
            """,
            {"result": written, "call_id": claim.call_id, "step": step},
        )


async def fail_step(
    connection: Connection[TupleRow], claim: Claim, step: str, error: str, rest_s: float | None
) -> None:
    """A step failed: to be tried again after ``rest_s``, or given up if that is None."""
    async with connection.transaction():
        await check_claim(connection, claim)
        await connection.execute(
            """
            UPDATE postcall_steps
            SET state = %(state)s, error = %(error)s, result = NULL,
              next_try_at = now() + %(rest_s)s * interval '1 s',
              finished_at = CASE WHEN %(dead)s THEN now() END
            WHERE call_id = %(call_id)s AND step = %(step)s
            """,
            {
                "state": "dead" if rest_s is None else "failed",
                "dead": rest_s is None,
                "error": clean(error),
                "rest_s": rest_s,
                "call_id": claim.call_id,
                "step": step,
            },
        )


async def hold_step(connection: Connection[TupleRow], claim: Claim, step: str, why: str, model: str) -> None:
    """A step waits for another model than ``model``: until then the call is not due. No attempt is counted."""
    async with connection.transaction():
        await check_claim(connection, claim)
        await connection.execute(
            """
            UPDATE postcall_steps
            SET state = 'waiting', attempts = greatest(attempts - 1, 0), error = %(why)s, next_try_at = NULL,
              models_gone = array_append(array_remove(models_gone, %(model)s), %(model)s)
            WHERE call_id = %(call_id)s AND step = %(step)s
            """,
            {"why": clean(why), "model": clean(model), "call_id": claim.call_id, "step": step},
        )
        await connection.execute(
            "UPDATE calls SET due_at = NULL WHERE id = %(call_id)s", {"call_id": claim.call_id}
        )


async def postpone_step(
    connection: Connection[TupleRow], claim: Claim, step: str, why: str, rest_s: float
) -> None:
    """A step under way needs what is not there yet, or its worker stops: no attempt is counted.

    It is due at once if the carrier told of the call's recording meanwhile: that may be what it needs.
    """
    async with connection.transaction():
        await check_claim(connection, claim)
        await connection.execute(
            """
            UPDATE postcall_steps
            SET state = 'pending', attempts = greatest(attempts - 1, 0), error = %(why)s,
              next_try_at = CASE
                WHEN EXISTS (
                  SELECT FROM recording_callbacks b JOIN calls c USING (call_sid)
                  WHERE c.id = call_id AND b.status <> 'in-progress' AND b.came_at > started_at)
                THEN now()
                ELSE now() + %(rest_s)s * interval '1 s'
              END
            WHERE call_id = %(call_id)s AND step = %(step)s AND state = 'running'
            """,
            {"why": clean(why), "rest_s": rest_s, "call_id": claim.call_id, "step": step},
        )


async def add_delivery(
    connection: Connection[TupleRow],
    claim: Claim,
    *,
    key: str,
    url: str,
    http_status: int | None,
    error: str | None,
    duration_ms: int,
) -> None:
    """A try to deliver the webhook."""
    await connection.execute(
        """
        INSERT INTO webhook_deliveries (call_id, idempotency_key, attempt, url, http_status, error, duration_ms)
        SELECT %(call_id)s, %(key)s, coalesce(max(attempt), 0) + 1, %(url)s, %(http_status)s, %(error)s,
          %(duration_ms)s
        FROM webhook_deliveries
        WHERE call_id = %(call_id)s
        """,
        {
            "call_id": claim.call_id,
            "key": clean(key),
            "url": clean(url),
            "http_status": http_status,
            "error": clean(error) if error else None,
            "duration_ms": max(duration_ms, 0),
        },
    )


async def states_of(connection: Connection[TupleRow], call_id: int) -> dict[str, dict[str, Any]]:
    """State, attempts, error and next try of each step."""
    rows = await connection.fetch_all(
        """
        SELECT step, state, attempts, error, next_try_at, next_try_at > now() AS rests
        FROM postcall_steps
        WHERE call_id = %(call_id)s
        """,
        {"call_id": call_id},
        dict_row,
    )
    return {row["step"]: row for row in rows}


async def results_of(connection: Connection[TupleRow], call_id: int) -> dict[str, dict[str, Any]]:
    """What the steps that are done have found."""
    found = await connection.fetch_all(
        "SELECT step, result::text FROM postcall_steps WHERE call_id = %(call_id)s AND state = 'done'",
        {"call_id": call_id},
    )
    return await trio.to_thread.run_sync(_read, found, limiter=_threads)


async def retry(connection: Connection[TupleRow], call_sid: str, step: str | None = None) -> list[str]:
    """Have work done again: what failed, waits or was given up, or a step whatever its state; what is re-opened.

    What comes after a step is re-opened with it, for it stands on it; the webhook keeps its Idempotency-Key. An
    empty list: there was nothing to do again. Raises psycopg.errors.CheckViolation for a call that goes on.
    """
    async with connection.transaction():
        # The call, which nobody changes meanwhile.
        row = await connection.fetch_one(
            "SELECT id FROM calls WHERE call_sid = %(call_sid)s FOR UPDATE", {"call_sid": call_sid}
        )
        if row is None:
            return []
        call_id = int(row[0])
        if step is None:
            states = await states_of(connection, call_id)
            broken = [name for name in STEPS if name in states and states[name]["state"] in _BROKEN]
            if not broken:
                return []
            step = broken[0]
        # The step and what stands on it, as not begun.
        reset = await connection.fetch_all(
            """
            UPDATE postcall_steps
            SET state = 'pending', attempts = 0, interruptions = 0, result = NULL, error = NULL,
              models_gone = DEFAULT, next_try_at = NULL, started_at = NULL, finished_at = NULL, claimed_by = NULL
            WHERE call_id = %(call_id)s AND step = ANY (%(steps)s)
            RETURNING step
            """,
            {"call_id": call_id, "steps": list(steps_from(step))},
        )
        opened = {name for (name,) in reset}
        # Whoever works on the call has read its states: a new token stops them, and the call is taken up again.
        await connection.execute(
            """
            UPDATE calls SET due_at = now(), claim = NULL, claimed_by = NULL, claimed_at = NULL
            WHERE id = %(call_id)s
            """,
            {"call_id": call_id},
        )
        await tell_workers(connection)
    return [name for name in STEPS if name in opened]


def _write(result: Mapping[str, Any]) -> str:
    return msgspec.json.encode(clean_json(dict(result))).decode()


def _read(rows: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    return {step: msgspec.json.decode(result, type=dict[str, Any]) for step, result in rows}

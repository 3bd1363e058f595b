"""Who works on which call (DESIGN D10).

A claim is a session advisory lock on a connection of the worker's own, so that a worker that dies, or loses that
connection, frees its calls at once; and a token in the call's row, which every result is checked against, so that
one who lost a claim and does not know it yet writes nothing.
"""

from collections.abc import Mapping
from typing import Final
from uuid import UUID, uuid4

import attrs
import msgspec
from psycopg.rows import TupleRow

from agent.core.errors import AgentError
from agent.core.steps import STEPS
from agent.store.pg import Connection
from agent.store.sql.calls import tell_workers
from agent.store.sql.text import clean

LOCKS: Final = 0x43414C4C
"""The first half of the advisory locks of calls; the second is the call's number, its low 32 bits."""


class ClaimLostError(AgentError):
    """Somebody else works on the call now: whatever was found is theirs to find again."""


@attrs.frozen
class Claim:
    """The right to work on a call."""

    call_id: int
    token: UUID
    call_sid: str = ""


async def due_calls(
    connection: Connection[TupleRow], limit: int, models: Mapping[str, str] | None = None
) -> list[int]:
    """Calls with work that is due and that nobody works on, as far as the rows tell; the longest due first.

    Without those that wait for another model than ``models``, by step, has for them.
    """
    due = await connection.fetch_all(
        """
        SELECT id FROM calls
        WHERE due_at <= now() AND status = 'ended'
          AND NOT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 2 AND classid = %(locks)s
              AND objid = (calls.id & 4294967295)::oid
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND NOT EXISTS (
            SELECT FROM postcall_steps s
            WHERE s.call_id = calls.id AND s.state = 'waiting'
              AND %(models)s::jsonb->>s.step = ANY (s.models_gone))
        ORDER BY due_at
        LIMIT %(limit)s
        """,
        {"locks": LOCKS, "models": as_jsonb(models), "limit": limit},
    )
    return [call_id for (call_id,) in due]


async def resume_waiting(connection: Connection[TupleRow], models: Mapping[str, str]) -> list[str]:
    """Make the calls due that wait for a model, and ``models``, by step, has one not tried yet; their SIDs."""
    async with connection.transaction():
        due = await connection.fetch_all(
            """
            UPDATE calls SET due_at = now()
            WHERE id IN (
                SELECT c.id FROM postcall_steps s JOIN calls c ON c.id = s.call_id
                WHERE s.state = 'waiting' AND c.due_at IS NULL
                  AND coalesce(%(models)s::jsonb->>s.step, '') <> ALL (s.models_gone)
                FOR UPDATE OF c SKIP LOCKED)
            RETURNING call_sid
            """,
            {"models": as_jsonb(models)},
        )
        resumed = [str(call_sid) for (call_sid,) in due]
        if resumed:
            await tell_workers(connection)
    return resumed


async def next_due_s(connection: Connection[TupleRow]) -> float | None:
    """Seconds until further work is due, beyond what is due now; None: there is none."""
    row = await connection.fetch_one(
        "SELECT extract(epoch FROM min(due_at) - now())::float FROM calls WHERE due_at > now()"
    )
    return row[0] if row else None


async def claim_call(claims: Connection[TupleRow], call_id: int, worker: str) -> Claim | None:
    """Claim a call on the worker's own connection; None if somebody has it, or nothing is due any more."""
    if not await _lock(claims, call_id):
        return None
    token = uuid4()
    row = await claims.fetch_one(
        """
        UPDATE calls SET claim = %(token)s, claimed_by = %(worker)s, claimed_at = now()
        WHERE id = %(call_id)s AND status = 'ended' AND due_at <= now()
        RETURNING call_sid
        """,
        {"token": token, "worker": clean(worker), "call_id": call_id},
    )
    if row is None:
        await _unlock(claims, call_id)
        return None
    return Claim(call_id, token, row[0])


async def release_call(claims: Connection[TupleRow], claim: Claim) -> None:
    """Give a claim back: it ends, if ``settle_due`` could not end it, and the call is unlocked."""
    await claims.execute(
        """
        UPDATE calls SET claim = NULL, claimed_by = NULL, claimed_at = NULL
        WHERE id = %(call_id)s AND claim = %(token)s
        """,
        {"call_id": claim.call_id, "token": claim.token},
    )
    await _unlock(claims, claim.call_id)


async def settle_due(connection: Connection[TupleRow], claim: Claim) -> None:
    """End the claim, and set when the call is due: when its next step is; not if that waits or there is none.

    The lock is left: ``release_call`` frees it, or the end of the worker's connection.
    """
    async with connection.transaction():
        await check_claim(connection, claim)
        await connection.execute(
            """
            UPDATE calls
            SET due_at = (
                SELECT CASE WHEN s.state <> 'waiting' THEN coalesce(s.next_try_at, now()) END
                FROM postcall_steps s
                WHERE s.call_id = calls.id AND s.state NOT IN ('done', 'dead')
                ORDER BY array_position(%(steps)s::text[], s.step)
                LIMIT 1),
              claim = NULL, claimed_by = NULL, claimed_at = NULL
            WHERE id = %(call_id)s
            """,
            {"steps": list(STEPS), "call_id": claim.call_id},
        )


async def check_claim(connection: Connection[TupleRow], claim: Claim) -> None:
    """Hold the call's row, if the claim still stands. Raises ClaimLostError."""
    row = await connection.fetch_one(
        "SELECT claim FROM calls WHERE id = %(call_id)s FOR UPDATE", {"call_id": claim.call_id}
    )
    if row is None or row[0] != claim.token:
        raise ClaimLostError(f"the claim on call {claim.call_id} was lost")


def as_jsonb(models: Mapping[str, str] | None) -> str:
    """``models`` as a parameter of a statement."""
    return msgspec.json.encode(dict(models or {})).decode()


async def _lock(connection: Connection[TupleRow], call_id: int) -> bool:
    row = await connection.fetch_one(
        "SELECT pg_try_advisory_lock(%(locks)s, %(call)s)", {"locks": LOCKS, "call": _half(call_id)}
    )
    return bool(row and row[0])


async def _unlock(connection: Connection[TupleRow], call_id: int) -> None:
    await connection.execute(
        "SELECT pg_advisory_unlock(%(locks)s, %(call)s)", {"locks": LOCKS, "call": _half(call_id)}
    )


def _half(call_id: int) -> int:
    """The low 32 bits as a signed integer: two calls that share them cannot be worked on at once, no more."""
    low = call_id & 0xFFFFFFFF
    return low - 0x100000000 if low >= 0x80000000 else low  # noqa: PLR2004  (int4)

"""Calls as people look at them: in a list, and one with everything."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg.rows import TupleRow, class_row

from agent.core.records import CallRecord, Turn
from agent.core.steps import STEPS
from agent.store.pg import Connection
from agent.store.sql.leads import appointments_in, find_lead
from agent.store.sql.recordings import recording_of
from agent.store.sql.text import key
from agent.store.sql.values import CallLine, CallView, DeliveryRow, EarlierCall, StepRow


async def list_calls(
    connection: Connection[TupleRow],
    *,
    tenant_id: str | None = None,
    since: datetime | None = None,
    outcome: str | None = None,
    postcall: Sequence[str] = (),
    limit: int = 20,
) -> list[CallLine]:
    """The latest calls first; ``postcall`` keeps those in one of its states."""
    return await connection.fetch_all(
        """
        SELECT * FROM call_lines
        WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
          AND (%(since)s::timestamptz IS NULL OR answered_at >= %(since)s)
          AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
          AND (cardinality(%(postcall)s::text[]) = 0 OR postcall = ANY (%(postcall)s::text[]))
        ORDER BY answered_at DESC, id DESC
        LIMIT %(limit)s
        """,
        {"tenant": tenant_id, "since": since, "outcome": outcome, "postcall": list(postcall), "limit": limit},
        class_row(CallLine),
    )


async def find_calls(connection: Connection[TupleRow], call: str, limit: int = 10) -> list[CallLine]:
    """The calls that ``call`` may mean: its number in the list, its SID, or how the SID begins."""
    number = int(call) if call.isascii() and call.isdigit() and len(call) < 18 else None  # noqa: PLR2004  (bigint)
    found = await connection.fetch_all(
        """
        SELECT * FROM call_lines
        WHERE id = %(number)s OR starts_with(call_sid, %(call)s)
        ORDER BY call_sid = %(call)s DESC, answered_at DESC
        LIMIT %(limit)s
        """,
        {"number": number, "call": key(call), "limit": limit},
        class_row(CallLine),
    )
    exact = [line for line in found if line.call_sid == call or line.id == number]
    return exact[:1] or found


async def earlier_calls(
    connection: Connection[TupleRow], tenant_id: str, phone: str, limit: int = 5
) -> list[EarlierCall]:
    """The last calls from that number that are over, the latest first."""
    return await connection.fetch_all(
        """
        SELECT c.answered_at, coalesce(s.result->>'summary', '') AS summary
        FROM calls c LEFT JOIN postcall_steps s ON s.call_id = c.id AND s.step = 'summary'
        WHERE c.tenant_id = %(tenant_id)s AND c.caller = %(phone)s AND c.status = 'ended'
        ORDER BY c.answered_at DESC
        LIMIT %(limit)s
        """,
        {"tenant_id": tenant_id, "phone": key(phone), "limit": limit},
        class_row(EarlierCall),
    )


async def show_call(connection: Connection[TupleRow], call_id: int) -> CallView | None:
    """Everything of one call, as of one moment."""
    async with connection.transaction():
        # All of it as of this moment.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The call as it is in a list.
        line = await connection.fetch_one(
            "SELECT * FROM call_lines WHERE id = %(call_id)s", {"call_id": call_id}, class_row(CallLine)
        )
        if line is None:
            return None
        # What of the call is in no list.
        more = await connection.fetch_one(
            """
            SELECT t.name, t.time_zone, c.reason, c.dtmf, c.record->'metrics'
            FROM calls c JOIN tenants t ON t.id = c.tenant_id
            WHERE c.id = %(call_id)s
            """,
            {"call_id": call_id},
        )
        name, time_zone, reason, dtmf, metrics = more or ("", "UTC", "", "", None)
        phone = line.caller if line.direction == "inbound" else line.called
        return CallView(
            line=line,
            tenant_name=name,
            time_zone=time_zone,
            reason=reason,
            dtmf=dtmf,
            metrics=metrics,
            turns=tuple(await turns_of(connection, call_id)),
            recording=await recording_of(connection, call_id),
            steps=tuple(await steps_of(connection, call_id)),
            lead=await find_lead(connection, line.tenant_id, phone),
            appointments=tuple(await appointments_in(connection, call_id)),
            deliveries=tuple(await deliveries_of(connection, call_id)),
        )


async def record_of(connection: Connection[TupleRow], call_id: int) -> CallRecord | None:
    """All that a call left when it ended; None of one that goes on or crashed. Takes a while for a long one."""
    row = await connection.fetch_one(
        "SELECT record::text FROM calls WHERE id = %(call_id)s", {"call_id": call_id}
    )
    return msgspec.json.decode(row[0], type=CallRecord) if row and row[0] else None


async def turns_of(connection: Connection[TupleRow], call_id: int) -> list[Turn]:
    """The turns of a call in the order they began."""
    return await connection.fetch_all(
        """
        SELECT role, item_id, text, heard_text, started_ms, audio_ms, heard_ms, interrupted, complete
        FROM turns
        WHERE call_id = %(call_id)s
        ORDER BY started_ms, turn_key
        """,
        {"call_id": call_id},
        class_row(Turn),
    )


async def steps_of(connection: Connection[TupleRow], call_id: int) -> list[StepRow]:
    """The post-call steps of a call in their order."""
    return await connection.fetch_all(
        """
        SELECT step, state, attempts, result, error, started_at, next_try_at, claimed_by, finished_at
        FROM postcall_steps
        WHERE call_id = %(call_id)s
        ORDER BY array_position(%(steps)s::text[], step)
        """,
        {"call_id": call_id, "steps": list(STEPS)},
        class_row(StepRow),
    )


async def deliveries_of(connection: Connection[TupleRow], call_id: int) -> list[DeliveryRow]:
    """The tries to deliver the webhook of a call, in order."""
    return await connection.fetch_all(
        """
        SELECT attempt, idempotency_key, url, at, http_status, error, duration_ms
        FROM webhook_deliveries
        WHERE call_id = %(call_id)s
        ORDER BY attempt
        """,
        {"call_id": call_id},
        class_row(DeliveryRow),
    )

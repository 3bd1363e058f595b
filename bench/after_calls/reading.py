"""What became of the calls, read from outside of everything: from the database and the tenant's receiver."""

from __future__ import annotations

from typing import Final, Literal

from psycopg.rows import class_row

from agent.store.pg import open_connection
from bench.after_calls.aftermath import Aftermath, Ledger
from bench.after_calls.outside import Outside

Counted = Literal[
    "leads",
    "appointments",
    "calls WHERE due_at IS NOT NULL",
    "calls WHERE record IS NOT NULL",
    "postcall_steps WHERE state = 'running'",
    "postcall_steps WHERE step = 'webhook' AND state = 'done'",
]
_CALLS: Final = """
SELECT c.call_sid, c.outcome, c.record IS NOT NULL AS has_record,
  (SELECT coalesce(jsonb_object_agg(s.step, s.state), '{}') FROM postcall_steps s
    WHERE s.call_id = c.id) AS steps,
  (SELECT extract(epoch FROM s.finished_at)::float FROM postcall_steps s
    WHERE s.call_id = c.id AND s.step = 'webhook' AND s.state = 'done') AS finished_at_s,
  (SELECT count(*) FROM leads l WHERE l.tenant_id = c.tenant_id AND l.phone = c.caller) AS leads,
  (SELECT count(*) FROM appointments a WHERE a.call_sid = c.call_sid) AS appointments,
  (SELECT count(*) FROM webhook_deliveries d
    WHERE d.call_id = c.id AND d.http_status BETWEEN 200 AND 299) AS delivered,
  (SELECT count(*) FROM turns t WHERE t.call_id = c.id) AS turns
FROM calls c ORDER BY c.id
"""


async def read_ledger(outside: Outside) -> Ledger:
    """All that the calls have come to. Raises psycopg.Error, httpx.HTTPError."""
    async with (
        open_connection(outside.conninfo) as connection,
        connection.cursor(row_factory=class_row(Aftermath)) as cursor,
    ):
        await cursor.execute(_CALLS)
        calls = tuple(await cursor.fetchall())
    return Ledger(
        calls=calls,
        leads=await count_rows(outside.conninfo, "leads"),
        appointments=await count_rows(outside.conninfo, "appointments"),
        received=await outside.received(),
    )


async def count_rows(conninfo: str, of: Counted) -> int:
    """How many rows there are. Raises psycopg.Error."""
    async with open_connection(conninfo) as connection:
        cursor = await connection.execute(f"SELECT count(*) FROM {of}")  # noqa: S608 - one of ours
        row = await cursor.fetchone()
    return int(row[0]) if row else 0

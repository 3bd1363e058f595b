"""How far post-call work is behind."""

from datetime import datetime
from typing import Final

import attrs
from psycopg.rows import TupleRow, class_row

from agent.store.pg import Connection
from agent.store.sql.claims import due_calls

_MOST: Final = 100_000


@attrs.frozen
class Backlog:
    """Calls whose work is due but that nobody works on, since when, and calls with a step given up lately.

    ``waiting`` calls wait for the operator; ``waits_for`` says what one of them needs.
    """

    overdue: int
    oldest_due_at: datetime | None
    dead: int
    waiting: int
    waits_for: str | None


async def count_left(connection: Connection[TupleRow]) -> tuple[int, int]:
    """How many calls have work left, due or not, and how many wait for the operator."""
    counts = await connection.fetch_one(
        """
        SELECT (SELECT count(*) FROM calls WHERE due_at IS NOT NULL),
          (SELECT count(*) FROM postcall_steps WHERE state = 'waiting')
        """
    )
    return counts or (0, 0)


async def find_backlog(connection: Connection[TupleRow], *, overdue_s: int, dead_days: int) -> Backlog:
    """What is due for over ``overdue_s`` and nobody works on, and what was given up within ``dead_days``."""
    due = await due_calls(connection, _MOST)
    found = await connection.fetch_one(
        """
        SELECT count(*) AS overdue, min(due_at) AS oldest_due_at,
          (SELECT count(DISTINCT call_id) FROM postcall_steps
            WHERE state = 'dead'
              AND coalesce(finished_at, started_at) > now() - %(dead_days)s * interval '1 day') AS dead,
          (SELECT count(*) FROM postcall_steps WHERE state = 'waiting') AS waiting,
          (SELECT max(error) FROM postcall_steps WHERE state = 'waiting') AS waits_for
        FROM calls
        WHERE id = ANY (%(due)s) AND due_at < now() - %(overdue_s)s * interval '1 s'
        """,
        {"dead_days": dead_days, "due": due, "overdue_s": overdue_s},
        class_row(Backlog),
    )
    return found or Backlog(0, None, 0, 0, None)

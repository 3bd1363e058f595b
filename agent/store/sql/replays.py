"""The first answers to what the carrier asked, for all processes."""

from typing import Final

from psycopg.rows import TupleRow

from agent.store.pg import Connection

_SWEPT: Final = 20
"""Rows past their time that are deleted with each new one: the table needs no other upkeep."""


async def first_answer(connection: Connection[TupleRow], key: bytes, answer: str, life_s: float) -> str:
    """The answer that ``key`` was given first, within its life: an earlier one, or ``answer``, kept by this."""
    row = await connection.fetch_one(
        """
        WITH swept AS (
          DELETE FROM replays WHERE key IN (
            SELECT key FROM replays WHERE expires_at < now() AND key <> %(key)s
            ORDER BY expires_at LIMIT %(swept)s FOR UPDATE SKIP LOCKED
          )
        )
        INSERT INTO replays AS r (key, answer, expires_at)
        VALUES (%(key)s, %(answer)s, now() + %(life_s)s * interval '1 s')
        ON CONFLICT (key) DO UPDATE
        SET answer = CASE WHEN r.expires_at < now() THEN excluded.answer ELSE r.answer END,
          expires_at = CASE WHEN r.expires_at < now() THEN excluded.expires_at ELSE r.expires_at END
        RETURNING answer
        """,
        {"key": key, "answer": answer, "life_s": life_s, "swept": _SWEPT},
    )
    return row[0] if row else answer

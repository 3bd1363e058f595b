"""Recordings: what the carrier tells of them, and what was fetched."""

from collections.abc import Collection

import attrs
from psycopg.rows import TupleRow, class_row

from agent.core.records import RecordingCallback
from agent.store.pg import Connection
from agent.store.sql.calls import lock_call, tell_workers
from agent.store.sql.text import clean, key
from agent.store.sql.values import RecordingRow


async def note_callback(connection: Connection[TupleRow], callback: RecordingCallback) -> None:
    """Keep what the carrier told, also of a call that is not known yet, and wake the workers if it is the end.

    Callbacks may come twice and in any order: one that a recording begins does not undo that it ended.
    """
    async with connection.transaction():
        await lock_call(connection, callback.call_sid)
        # Whoever ends the call holds its row before those of its recordings; so do we.
        await connection.execute(
            "SELECT FROM calls WHERE call_sid = %(call_sid)s FOR UPDATE", {"call_sid": key(callback.call_sid)}
        )
        # What the carrier told, but for a beginning that comes after the end. It came when the row was locked,
        # not when the transaction began: a step that has begun meanwhile knows nothing of it.
        await connection.execute(
            """
            INSERT INTO recording_callbacks (recording_sid, call_sid, status, url, duration_s, channels, came_at)
            VALUES (%(recording_sid)s, %(call_sid)s, %(status)s, %(url)s, %(duration_s)s, %(channels)s,
              clock_timestamp())
            ON CONFLICT (recording_sid) DO UPDATE
            SET status = excluded.status, url = excluded.url, duration_s = excluded.duration_s,
              channels = excluded.channels, came_at = excluded.came_at
            WHERE excluded.status <> 'in-progress'
            """,
            attrs.asdict(callback)
            | {
                "recording_sid": key(callback.recording_sid),
                "call_sid": key(callback.call_sid),
                "url": clean(callback.url) or None,
            },
        )
        # The same for the call's own row of the recording, if the call is known and nothing was fetched.
        await connection.execute(
            """
            INSERT INTO recordings (recording_sid, call_id, status, url, duration_s, channels)
            SELECT b.recording_sid, c.id, b.status, b.url, b.duration_s, b.channels
            FROM recording_callbacks b JOIN calls c USING (call_sid)
            WHERE b.recording_sid = %(recording_sid)s
            ON CONFLICT (recording_sid) DO UPDATE
            SET status = excluded.status, url = excluded.url, duration_s = excluded.duration_s,
              channels = excluded.channels
            WHERE recordings.path IS NULL
            """,
            {"recording_sid": key(callback.recording_sid)},
        )
        if callback.status != "in-progress":
            # A call that waited for this is due now.
            await connection.execute(
                "UPDATE calls SET due_at = now() WHERE call_sid = %(call_sid)s AND due_at > now()",
                {"call_sid": key(callback.call_sid)},
            )
            await tell_workers(connection)


async def recording_of(connection: Connection[TupleRow], call_id: int) -> RecordingRow | None:
    """The recording of a call; of several the one that is furthest."""
    return await connection.fetch_one(
        """
        SELECT recording_sid, status, url, duration_s, channels, path, sha256, size_bytes, downloaded_at,
          deleted_at
        FROM recordings
        WHERE call_id = %(call_id)s
        ORDER BY path IS NULL, array_position(ARRAY['completed', 'in-progress', 'failed', 'absent'], status)
        LIMIT 1
        """,
        {"call_id": call_id},
        class_row(RecordingRow),
    )


async def mark_downloaded(
    connection: Connection[TupleRow],
    call_id: int,
    recording_sid: str,
    *,
    path: str,
    sha256: str,
    size_bytes: int,
    channels: int,
    duration_s: float,
) -> None:
    """The recording is on disk, whole; it need not have been known."""
    await connection.execute(
        """
        INSERT INTO recordings (recording_sid, call_id, status, path, sha256, size_bytes, channels, duration_s,
          downloaded_at)
        VALUES (%(recording_sid)s, %(call_id)s, 'completed', %(path)s, %(sha256)s, %(size_bytes)s, %(channels)s,
          %(duration_s)s, now())
        ON CONFLICT (recording_sid) DO UPDATE
        SET status = 'completed', path = excluded.path, sha256 = excluded.sha256,
          size_bytes = excluded.size_bytes, channels = excluded.channels, duration_s = excluded.duration_s,
          downloaded_at = excluded.downloaded_at
        """,
        {
            "recording_sid": recording_sid,
            "call_id": call_id,
            "path": path,
            "sha256": sha256,
            "size_bytes": size_bytes,
            "channels": channels,
            "duration_s": round(duration_s),
        },
    )


async def to_be_deleted(connection: Connection[TupleRow], but: Collection[str], limit: int) -> list[str]:
    """Recordings that the carrier is to delete because their tenant says so, without those in ``but``.

    Each was fetched, and its transcription is settled: until then the copy of the carrier is the only one that a
    worker on another machine can read. One that could not be fetched stays where it is.
    """
    found = await connection.fetch_all(
        """
        SELECT r.recording_sid
        FROM recordings r
          JOIN calls c ON c.id = r.call_id
          JOIN tenants t ON t.id = c.tenant_id
          JOIN postcall_steps s ON s.call_id = c.id
        WHERE t.delete_recordings AND r.deleted_at IS NULL AND r.path IS NOT NULL
          AND s.step = 'transcription' AND s.state IN ('done', 'dead')
          AND r.recording_sid <> ALL (%(but)s::text[])
        ORDER BY r.downloaded_at
        LIMIT %(limit)s
        """,
        {"but": list(but), "limit": limit},
    )
    return [recording_sid for (recording_sid,) in found]


async def mark_deleted(connection: Connection[TupleRow], recording_sid: str) -> None:
    """The carrier has it no more."""
    await connection.execute(
        """
        UPDATE recordings SET deleted_at = coalesce(deleted_at, now())
        WHERE recording_sid = %(recording_sid)s
        """,
        {"recording_sid": recording_sid},
    )

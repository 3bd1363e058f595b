"""Calls from their answer to their record, and the ends of those that crashed."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import trio
from psycopg.rows import TupleRow

from agent.core.records import CallRecord, Turn
from agent.core.steps import STEPS
from agent.store.pg import Connection
from agent.store.sql.text import clean, key, record_json
from agent.store.sql.values import AnsweredCall

CHANNEL: Final = "postcall"
"""Workers listen here; what is sent says nothing but "look"."""
UNSEEN_S: Final = 60
"""A server that was not seen for so long is gone, and its calls with it. It says so each 10 s."""
CALLBACK_S: Final = 30
"""How long the carrier's word that a recording is ready is waited for, before it is asked."""
_CALLS_LOCK: Final = 0x63616C73
"""The first half of the advisory locks of calls by their SID."""
_SERVERS_KEPT: Final = "7 days"
_threads: Final = trio.CapacityLimiter(2)

_TURN_COLUMNS: Final = (
    "turn_key, role, item_id, text, heard_text, started_ms, audio_ms, heard_ms, interrupted, complete"
)


async def call_answered(connection: Connection[TupleRow], call: AnsweredCall) -> None:
    """Insert the row of a call in progress; one that is there already stays as it is."""
    await connection.execute(
        "INSERT INTO calls (call_sid, tenant_id, direction, caller, called, answered_at, server_id, status) "
        f"VALUES (%s, {_TENANT}, %s, %s, %s, %s, %s, 'active') ON CONFLICT (call_sid) DO NOTHING",
        [
            key(call.call_sid),
            call.tenant_id,
            call.direction,
            key(call.caller),
            key(call.called),
            call.answered_at,
            call.server_id,
        ],
    )


_TENANT: Final = "coalesce((SELECT id FROM tenants WHERE id = %s), 'default')"
"""A tenant that is there: calls outlive mistakes."""


async def save_turn(connection: Connection[TupleRow], call_sid: str, turn: Turn) -> None:
    """Insert a turn, or what is new of it. Of a call that is not known, nothing: its record brings all turns."""
    await connection.execute(
        f"INSERT INTO turns (call_id, {_TURN_COLUMNS}) "
        "SELECT id, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM calls WHERE call_sid = %s AND record IS NULL "
        # A record that is being kept has its turns already, where this one cannot see them.
        "FOR SHARE "
        "ON CONFLICT (call_id, turn_key) DO UPDATE SET text = excluded.text, heard_text = excluded.heard_text, "
        "audio_ms = excluded.audio_ms, heard_ms = excluded.heard_ms, interrupted = excluded.interrupted, "
        "complete = excluded.complete",
        [*_turn_values(turn), key(call_sid)],
    )


async def keep_record(connection: Connection[TupleRow], record: CallRecord) -> int:
    """Keep everything of a call that ended, and open its post-call work; returns the call's id.

    In one transaction; the same record a second time changes nothing. The record of a call that was held to have
    crashed replaces that end, and its post-call work begins anew.
    """
    whole = await trio.to_thread.run_sync(record_json, record, limiter=_threads)
    async with connection.transaction():
        await lock_call(connection, record.call_sid)
        cursor = await connection.execute(
            "INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at, ended_at, "
            f"outcome, reason, dtmf, record) VALUES (%s, {_TENANT}, %s, %s, %s, 'ended', %s, %s, %s, %s, %s, %s) "
            "ON CONFLICT (call_sid) DO UPDATE SET status = 'ended', ended_at = excluded.ended_at, "
            "outcome = excluded.outcome, reason = excluded.reason, dtmf = excluded.dtmf, "
            "record = excluded.record WHERE calls.record IS NULL RETURNING id",
            [
                key(record.call_sid),
                record.tenant_id,
                record.direction,
                key(record.caller),
                key(record.called),
                record.answered_at,
                max(record.ended_at, record.answered_at),
                record.outcome.value,
                clean(record.reason),
                clean(record.dtmf),
                whole,
            ],
        )
        row = await cursor.fetchone()
        if row is None:
            cursor = await connection.execute("SELECT id FROM calls WHERE call_sid = %s", [key(record.call_sid)])
            [call_id] = await cursor.fetchone() or [0]
            return int(call_id)
        call_id = int(row[0])
        await _replace_turns(connection, call_id, record.turns)
        await _note_recording(connection, call_id, record)
        await connection.execute(
            "UPDATE appointments SET call_id = %s WHERE call_sid = %s", [call_id, key(record.call_sid)]
        )
        await open_steps(connection, call_id)
        await connection.execute(
            "UPDATE calls SET due_at = CASE WHEN EXISTS "
            "(SELECT FROM recordings r WHERE r.call_id = calls.id AND r.status = 'in-progress') "
            f"THEN greatest(now(), ended_at + interval '{CALLBACK_S} s') ELSE now() END, "
            # Whoever works on what was known of a crashed call must not write what they find now.
            "claim = NULL, claimed_by = NULL, claimed_at = NULL WHERE id = %s",
            [call_id],
        )
        await connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    return call_id


async def lock_call(connection: Connection[TupleRow], call_sid: str) -> None:
    """Until the end of the transaction, nobody else tells of that call: of one without a row yet, too."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_CALLS_LOCK, key(call_sid)])


async def open_steps(connection: Connection[TupleRow], call_id: int) -> None:
    """All post-call steps of a call as not begun."""
    await connection.execute(
        "INSERT INTO postcall_steps (call_id, step) SELECT %s, unnest(%s::text[]) ON CONFLICT (call_id, step) "
        "DO UPDATE SET state = 'pending', attempts = 0, interruptions = 0, result = NULL, error = NULL, "
        "started_at = NULL, next_try_at = NULL, claimed_by = NULL, finished_at = NULL",
        [call_id, list(STEPS)],
    )


async def end_crashed(connection: Connection[TupleRow]) -> list[str]:
    """End the calls whose server is gone, with the turns that were saved; their SIDs.

    A server counts as seen when the database itself came back, so that a long outage of it ends no calls.
    """
    async with connection.transaction():
        cursor = await connection.execute(
            "UPDATE calls SET status = 'ended', outcome = 'crashed', "
            "reason = 'its server was not seen any more', due_at = now(), ended_at = greatest(answered_at, "
            "(SELECT seen_at FROM servers WHERE servers.id = calls.server_id), "
            "(SELECT calls.answered_at + max(started_ms + heard_ms) * interval '1 ms' FROM turns "
            "WHERE call_id = calls.id)) "
            "WHERE id IN (SELECT c.id FROM calls c LEFT JOIN servers s ON s.id = c.server_id "
            "WHERE c.status = 'active' AND "
            "greatest(s.seen_at, c.answered_at, pg_postmaster_start_time()) < now() - %s * interval '1 s' "
            "FOR UPDATE OF c SKIP LOCKED) RETURNING id, call_sid",
            [UNSEEN_S],
        )
        ended = await cursor.fetchall()
        for call_id, call_sid in ended:
            await _adopt_callbacks(connection, call_id, call_sid)
            await open_steps(connection, call_id)
        if ended:
            await connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    return [str(call_sid) for _, call_sid in ended]


async def heartbeat(connection: Connection[TupleRow], server_id: UUID, host: str = "") -> None:
    """Say that a server is alive; forget those that were not for long."""
    await connection.execute(
        "INSERT INTO servers (id, host) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET seen_at = now()",
        [server_id, host or socket.gethostname()],
    )
    await connection.execute(f"DELETE FROM servers WHERE seen_at < now() - interval '{_SERVERS_KEPT}'")


async def _replace_turns(connection: Connection[TupleRow], call_id: int, turns: Iterable[Turn]) -> None:
    await connection.execute("DELETE FROM turns WHERE call_id = %s", [call_id])
    rows = {values[0]: (call_id, *values) for values in map(_turn_values, turns)}
    places = ", ".join(["%s"] * 11)
    async with connection.cursor() as cursor:
        await cursor.executemany(
            f"INSERT INTO turns (call_id, {_TURN_COLUMNS}) VALUES ({places})",
            list(rows.values()),
        )


def _turn_values(turn: Turn) -> tuple[Any, ...]:
    return (
        key(turn.item_id) or f"{turn.role}-{turn.started_ms}",
        turn.role,
        clean(turn.item_id),
        clean(turn.text),
        clean(turn.heard_text),
        turn.started_ms,
        max(turn.audio_ms, 0),
        max(turn.heard_ms, 0),
        turn.interrupted,
        turn.complete,
    )


async def _note_recording(connection: Connection[TupleRow], call_id: int, record: CallRecord) -> None:
    if record.recording_sid:
        await connection.execute(
            "INSERT INTO recordings (recording_sid, call_id, status) VALUES (%s, %s, 'in-progress') "
            "ON CONFLICT (recording_sid) DO NOTHING",
            [key(record.recording_sid), call_id],
        )
    await _adopt_callbacks(connection, call_id, record.call_sid)


async def _adopt_callbacks(connection: Connection[TupleRow], call_id: int, call_sid: str) -> None:
    """What the carrier told of the call's recordings before its row was there."""
    await connection.execute(
        "INSERT INTO recordings (recording_sid, call_id, status, url, duration_s, channels) "
        "SELECT recording_sid, %s, status, url, duration_s, channels FROM recording_callbacks "
        "WHERE call_sid = %s "
        "ON CONFLICT (recording_sid) DO UPDATE SET status = excluded.status, url = excluded.url, "
        "duration_s = excluded.duration_s, channels = excluded.channels WHERE recordings.path IS NULL",
        [call_id, key(call_sid)],
    )

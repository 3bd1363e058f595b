"""Calls from their answer to their record, and the ends of those that crashed."""

import socket
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec
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
TURNS_AT_ONCE: Final = 50
_CALLS_LOCK: Final = 0x63616C73
"""The first half of the advisory locks of calls by their SID."""
_threads: Final = trio.CapacityLimiter(2)


async def call_answered(connection: Connection[TupleRow], call: AnsweredCall) -> None:
    """Insert the row of a call in progress; one that is there already stays as it is."""
    await connection.execute(
        # Of a tenant that is not there, the default one: calls outlive mistakes.
        """
        INSERT INTO calls (call_sid, tenant_id, direction, caller, called, answered_at, server_id, status)
        VALUES (%(call_sid)s, coalesce((SELECT id FROM tenants WHERE id = %(tenant_id)s), 'default'),
          %(direction)s, %(caller)s, %(called)s, %(answered_at)s, %(server_id)s, 'active')
        ON CONFLICT (call_sid) DO NOTHING
        """,
        attrs.asdict(call)
        | {"call_sid": key(call.call_sid), "caller": key(call.caller), "called": key(call.called)},
    )


async def save_turn(connection: Connection[TupleRow], call_sid: str, turn: Turn) -> None:
    """Insert a turn, or what is new of it. Of a call that is not known, nothing: its record brings all turns."""
    await connection.execute(
        # FOR SHARE: a record that is being kept has its turns already, where this one cannot see them.
        """
        INSERT INTO turns (call_id, turn_key, role, item_id, text, heard_text, started_ms, audio_ms, heard_ms,
          interrupted, complete)
        SELECT id, %(turn_key)s, %(role)s, %(item_id)s, %(text)s, %(heard_text)s, %(started_ms)s, %(audio_ms)s,
          %(heard_ms)s, %(interrupted)s, %(complete)s
        FROM calls
        WHERE call_sid = %(call_sid)s AND record IS NULL
        FOR SHARE
        ON CONFLICT (call_id, turn_key) DO UPDATE
        SET text = excluded.text, heard_text = excluded.heard_text, audio_ms = excluded.audio_ms,
          heard_ms = excluded.heard_ms, interrupted = excluded.interrupted, complete = excluded.complete
        """,
        _turn_row(turn) | {"call_sid": key(call_sid)},
    )


async def keep_record(connection: Connection[TupleRow], record: CallRecord) -> int:
    """Keep everything of a call that ended, and open its post-call work; returns the call's id.

    In one transaction; the same record a second time changes nothing. The record of a call that was held to have
    crashed replaces that end, and its post-call work begins anew.
    """
    whole = await trio.to_thread.run_sync(record_json, record, limiter=_threads)
    # Each turn once, and only a few in a thread at a time: it holds the interpreter, and with it every call.
    rows: dict[str, dict[str, Any]] = {}
    for begin in range(0, len(record.turns), TURNS_AT_ONCE):
        few = record.turns[begin : begin + TURNS_AT_ONCE]
        rows |= await trio.to_thread.run_sync(_turn_rows, few, limiter=_threads)
    turns = await trio.to_thread.run_sync(_as_json, rows, limiter=_threads)
    call_sid = key(record.call_sid)
    async with connection.transaction():
        await lock_call(connection, call_sid)
        # The whole record, into the row of the call or a new one; nothing if a record is there already.
        row = await connection.fetch_one(
            """
            INSERT INTO calls (call_sid, tenant_id, direction, caller, called, status, answered_at, ended_at,
              outcome, reason, dtmf, record)
            VALUES (%(call_sid)s, coalesce((SELECT id FROM tenants WHERE id = %(tenant_id)s), 'default'),
              %(direction)s, %(caller)s, %(called)s, 'ended', %(answered_at)s, %(ended_at)s,
              %(outcome)s, %(reason)s, %(dtmf)s, %(record)s)
            ON CONFLICT (call_sid) DO UPDATE
            SET status = 'ended', ended_at = excluded.ended_at, outcome = excluded.outcome,
              reason = excluded.reason, dtmf = excluded.dtmf, record = excluded.record
            WHERE calls.record IS NULL
            RETURNING id
            """,
            {
                "call_sid": call_sid,
                "tenant_id": record.tenant_id,
                "direction": record.direction,
                "caller": key(record.caller),
                "called": key(record.called),
                "answered_at": record.answered_at,
                "ended_at": max(record.ended_at, record.answered_at),
                "outcome": record.outcome.value,
                "reason": clean(record.reason),
                "dtmf": clean(record.dtmf),
                "record": whole,
            },
        )
        if row is None:
            # The call that was kept before.
            known = await connection.fetch_one(
                "SELECT id FROM calls WHERE call_sid = %(call_sid)s", {"call_sid": call_sid}
            )
            return int(known[0]) if known else 0
        call_id = int(row[0])
        await _replace_turns(connection, call_id, turns)
        await _note_recording(connection, call_id, record)
        # The call's appointments were made when its row may not have been there.
        await connection.execute(
            "UPDATE appointments SET call_id = %(call_id)s WHERE call_sid = %(call_sid)s",
            {"call_id": call_id, "call_sid": call_sid},
        )
        await open_steps(connection, call_id)
        # The call is due, later if its recording is still to come; and without a claim: whoever works on what
        # was known of a crashed call must not write what they find now.
        await connection.execute(
            """
            UPDATE calls
            SET due_at = CASE
                WHEN EXISTS (SELECT FROM recordings r WHERE r.call_id = calls.id AND r.status = 'in-progress')
                THEN greatest(now(), ended_at + %(callback_s)s * interval '1 s')
                ELSE now()
              END,
              claim = NULL, claimed_by = NULL, claimed_at = NULL
            WHERE id = %(call_id)s
            """,
            {"call_id": call_id, "callback_s": CALLBACK_S},
        )
        await tell_workers(connection)
    return call_id


async def tell_workers(connection: Connection[TupleRow]) -> None:
    """Wake the workers, at the end of the transaction."""
    await connection.execute("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})


async def lock_call(connection: Connection[TupleRow], call_sid: str) -> None:
    """Until the end of the transaction, nobody else tells of that call: of one without a row yet, too."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(%(calls)s, hashtext(%(call_sid)s))",
        {"calls": _CALLS_LOCK, "call_sid": key(call_sid)},
    )


async def open_steps(connection: Connection[TupleRow], call_id: int) -> None:
    """All post-call steps of a call as not begun."""
    await connection.execute(
        """
        INSERT INTO postcall_steps (call_id, step)
        SELECT %(call_id)s, unnest(%(steps)s::text[])
        ON CONFLICT (call_id, step) DO UPDATE
        SET state = 'pending', attempts = 0, interruptions = 0, result = NULL, error = NULL,
          models_gone = DEFAULT, started_at = NULL, next_try_at = NULL, claimed_by = NULL, finished_at = NULL
        """,
        {"call_id": call_id, "steps": list(STEPS)},
    )


async def end_crashed(connection: Connection[TupleRow], gone: UUID | None = None) -> list[str]:
    """End the calls whose server is gone, with the turns that were saved; their SIDs.

    The server ``gone`` is known to be. Another one counts as seen when the database itself came back, so that a
    long outage of it ends no calls.
    """
    async with connection.transaction():
        ended = await connection.fetch_all(
            """
            UPDATE calls
            SET status = 'ended', outcome = 'crashed', reason = 'its server was not seen any more',
              due_at = now(), ended_at = greatest(
                answered_at,
                (SELECT seen_at FROM servers WHERE servers.id = calls.server_id),
                (SELECT calls.answered_at + max(started_ms + heard_ms) * interval '1 ms'
                  FROM turns WHERE call_id = calls.id))
            WHERE id IN (
              SELECT c.id FROM calls c LEFT JOIN servers s ON s.id = c.server_id
              WHERE c.status = 'active'
                AND (c.server_id = %(gone)s::uuid
                  OR greatest(s.seen_at, c.answered_at, pg_postmaster_start_time())
                    < now() - %(unseen_s)s * interval '1 s')
              FOR UPDATE OF c SKIP LOCKED)
            RETURNING id, call_sid
            """,
            {"gone": gone, "unseen_s": UNSEEN_S},
        )
        for call_id, call_sid in ended:
            await _adopt_callbacks(connection, call_id, call_sid)
            await open_steps(connection, call_id)
        if ended:
            await tell_workers(connection)
    return [str(call_sid) for _, call_sid in ended]


async def heartbeat(connection: Connection[TupleRow], server_id: UUID, host: str = "") -> None:
    """Say that a server is alive; forget those that were not for long."""
    await connection.execute(
        """
        INSERT INTO servers (id, host) VALUES (%(id)s, %(host)s)
        ON CONFLICT (id) DO UPDATE SET seen_at = now()
        """,
        {"id": server_id, "host": host or socket.gethostname()},
    )
    # Servers that were not seen for a week.
    await connection.execute("DELETE FROM servers WHERE seen_at < now() - interval '7 days'")


async def _replace_turns(connection: Connection[TupleRow], call_id: int, turns: str) -> None:
    """The turns of the record, a JSON array, in place of those that were saved during the call."""
    await connection.execute("DELETE FROM turns WHERE call_id = %(call_id)s", {"call_id": call_id})
    await connection.execute(
        """
        INSERT INTO turns (call_id, turn_key, role, item_id, text, heard_text, started_ms, audio_ms, heard_ms,
          interrupted, complete)
        SELECT %(call_id)s, turn_key, role, item_id, text, heard_text, started_ms, audio_ms, heard_ms,
          interrupted, complete
        FROM jsonb_to_recordset(%(turns)s) AS turn (turn_key text, role text, item_id text, text text,
          heard_text text, started_ms integer, audio_ms integer, heard_ms integer, interrupted boolean,
          complete boolean)
        """,
        {"call_id": call_id, "turns": turns},
    )


async def replace_words(connection: Connection[TupleRow], call_id: int, turns: Iterable[Turn]) -> None:
    """Give turns that are kept already the text that they have now."""
    words = [{k: row[k] for k in ("turn_key", "text", "heard_text")} for row in map(_turn_row, turns)]
    await connection.execute(
        """
        UPDATE turns SET text = now.text, heard_text = now.heard_text
        FROM jsonb_to_recordset(%(words)s) AS now (turn_key text, text text, heard_text text)
        WHERE turns.call_id = %(call_id)s AND turns.turn_key = now.turn_key
        """,
        {"call_id": call_id, "words": msgspec.json.encode(words).decode()},
    )


def _turn_rows(turns: Iterable[Turn]) -> dict[str, dict[str, Any]]:
    return {row["turn_key"]: row for row in map(_turn_row, turns)}


def _as_json(rows: Mapping[str, dict[str, Any]]) -> str:
    return msgspec.json.encode(list(rows.values())).decode()


def _turn_row(turn: Turn) -> dict[str, Any]:
    return attrs.asdict(turn) | {
        "turn_key": key(turn.item_id) or f"{turn.role}-{turn.started_ms}",
        "item_id": clean(turn.item_id),
        "text": clean(turn.text),
        "heard_text": clean(turn.heard_text),
        "audio_ms": max(turn.audio_ms, 0),
        "heard_ms": max(turn.heard_ms, 0),
    }


async def _note_recording(connection: Connection[TupleRow], call_id: int, record: CallRecord) -> None:
    if record.recording_sid:
        # The recording that was begun, unless the carrier told more of it already.
        await connection.execute(
            """
            INSERT INTO recordings (recording_sid, call_id, status)
            VALUES (%(recording_sid)s, %(call_id)s, 'in-progress')
            ON CONFLICT (recording_sid) DO NOTHING
            """,
            {"recording_sid": key(record.recording_sid), "call_id": call_id},
        )
    await _adopt_callbacks(connection, call_id, record.call_sid)


async def _adopt_callbacks(connection: Connection[TupleRow], call_id: int, call_sid: str) -> None:
    """What the carrier told of the call's recordings before its row was there."""
    await connection.execute(
        """
        INSERT INTO recordings (recording_sid, call_id, status, url, duration_s, channels)
        SELECT recording_sid, %(call_id)s, status, url, duration_s, channels
        FROM recording_callbacks
        WHERE call_sid = %(call_sid)s
        ON CONFLICT (recording_sid) DO UPDATE
        SET status = excluded.status, url = excluded.url, duration_s = excluded.duration_s,
          channels = excluded.channels
        WHERE recordings.path IS NULL
        """,
        {"call_id": call_id, "call_sid": key(call_sid)},
    )

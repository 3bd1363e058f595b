"""Recordings in the database: callbacks in any order, and what was fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ended_calls import make_record, rows, sid
from psycopg.rows import TupleRow

from agent.core.records import RecordingCallback
from agent.core.units import RecordingSid
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import call_answered, keep_record
from agent.store.sql.recordings import mark_deleted, mark_downloaded, note_callback, recording_of
from agent.store.sql.values import AnsweredCall, RecordingRow

pytestmark = pytest.mark.sockets
SID = RecordingSid("RE" + "1" * 32)
OTHER = RecordingSid("RE" + "2" * 32)
DONE = RecordingCallback(sid(1), SID, "completed", "https://api.twilio.com/x", 40, 2)
BEGUN = RecordingCallback(sid(1), SID, "in-progress")
SHA256 = "ab" * 32


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(postgres) as opened:
        yield opened


async def download(connection: Connection[TupleRow], call_id: int, recording_sid: str = SID, **more: Any) -> None:
    values: dict[str, Any] = {
        "path": "/data/x.wav", "sha256": SHA256, "size_bytes": 9, "channels": 2, "duration_s": 39.6, **more
    }  # fmt: skip
    await mark_downloaded(connection, call_id, recording_sid, **values)


@pytest.mark.parametrize("callbacks", [(BEGUN, DONE), (DONE, BEGUN), (DONE, DONE), (DONE,)])
@pytest.mark.parametrize("when", ["before the row", "during the call", "after the record"])
async def test_callbacks_in_any_order(
    connection: Connection[TupleRow], callbacks: tuple[RecordingCallback, ...], when: str
) -> None:
    record = make_record(recording_sid=SID)
    if when == "after the record":
        await keep_record(connection, record)
    if when == "during the call":
        await call_answered(
            connection,
            AnsweredCall(sid(1), "default", "inbound", record.caller, record.called, record.answered_at),
        )
    for callback in callbacks:
        await note_callback(connection, callback)
    call_id = await keep_record(connection, record)
    assert await recording_of(connection, call_id) == RecordingRow(
        SID, "completed", "https://api.twilio.com/x", 40, 2
    )


async def test_a_callback_of_a_call_of_nobody_is_kept(connection: Connection[TupleRow], postgres: str) -> None:
    await note_callback(connection, DONE)
    assert rows(postgres, "SELECT call_sid FROM recording_callbacks") == [(sid(1),)]


async def test_a_call_without_a_recording(connection: Connection[TupleRow]) -> None:
    call_id = await keep_record(connection, make_record())
    assert await recording_of(connection, call_id) is None


async def test_what_is_on_disk_stays_when_the_carrier_says_more(connection: Connection[TupleRow]) -> None:
    call_id = await keep_record(connection, make_record(recording_sid=SID))
    for _ in range(2):
        await download(connection, call_id)
    await note_callback(connection, RecordingCallback(sid(1), SID, "absent"))
    row = await recording_of(connection, call_id)
    assert row is not None
    assert (row.status, row.path, row.sha256, row.duration_s) == ("completed", "/data/x.wav", SHA256, 40)
    assert row.downloaded_at is not None
    assert row.deleted_at is None


async def test_of_several_the_one_that_is_furthest(connection: Connection[TupleRow]) -> None:
    call_id = await keep_record(connection, make_record(recording_sid=SID))
    await note_callback(connection, RecordingCallback(sid(1), OTHER, "failed"))
    row = await recording_of(connection, call_id)
    assert row is not None
    assert row.recording_sid == SID
    await download(connection, call_id, OTHER)
    row = await recording_of(connection, call_id)
    assert row is not None
    assert row.recording_sid == OTHER


async def test_deleted_at_the_carrier_once(connection: Connection[TupleRow]) -> None:
    call_id = await keep_record(connection, make_record(recording_sid=SID))
    await download(connection, call_id)
    await mark_deleted(connection, SID)
    first = await recording_of(connection, call_id)
    await mark_deleted(connection, SID)
    assert first is not None
    assert first.deleted_at is not None
    assert await recording_of(connection, call_id) == first

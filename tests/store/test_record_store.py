"""Call records on disk: durable before anyone is told, whatever the call is named (ST-4)."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import attrs
import msgspec
import pytest
import trio

from agent.core.records import CallMetrics, CallRecord, Outcome, TimelineEvent, Turn
from agent.core.units import CallSid, RecordingSid, StreamSid
from agent.store.record_store import FileRecordStore, decode_record, encode_record

RECORD = CallRecord(
    call_sid=CallSid("CA" + "1" * 32),
    stream_sid=StreamSid("MZ" + "1" * 32),
    direction="inbound",
    caller="+97235550001",
    called="+15551230002",
    answered_at=datetime(2025, 3, 30, 0, 59, 59, 123456, UTC),
    ended_at=datetime(2025, 3, 30, 1, 2, 3, tzinfo=UTC),
    outcome=Outcome.CALLER_HUNG_UP,
    reason="המתקשר ניתק",
    turns=(
        Turn("agent", "item_1", "שלום, במה אפשר לעזור?", "שלום", 120, 2400, 800, interrupted=True),
        Turn(
            "caller", "item_2", 'אני צריך "אינסטלטור"', 'אני צריך "אינסטלטור"', 900, 1500, 1500, interrupted=False
        ),
    ),
    metrics=CallMetrics(
        duration_ms=124_000,
        barge_in_events=1,
        fps=50.0,
        max_gap_ms=None,
        first_audio_ms=310,
        turn_latencies_ms=(480, 520),
        frames_in=6200,
        frames_out=3000,
        frames_dropped=0,
        reconnects=0,
        stalls=0,
        events={"BARGE_IN": 1},
    ),
    recording_sid=RecordingSid("RE" + "1" * 32),
    dtmf="12#",
    timeline=(TimelineEvent(1020, "BARGE_IN", {"heard_ms": 800, "text": "שלום"}),),
)


def test_a_record_survives_the_disk_and_stays_readable() -> None:
    encoded = encode_record(RECORD)
    assert decode_record(encoded) == RECORD
    assert "שלום" in encoded.decode()
    assert encoded.count(b"\n") > 20, "indented, for people"


def test_an_empty_record_survives_too() -> None:
    record = attrs.evolve(RECORD, turns=(), recording_sid=None, timeline=(), dtmf="")
    assert decode_record(encode_record(record)) == record


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", encode_record(RECORD).replace(b"caller_hung_up", b"vanished")]
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_record(raw)


@pytest.mark.sockets
async def test_st_4_a_record_is_one_file_under_its_calls_name(tmp_path: Path) -> None:
    store = FileRecordStore(tmp_path / "data")
    with trio.fail_after(10):
        path = await store.save(RECORD)
    assert path == tmp_path / "data" / "calls" / f"{RECORD.call_sid}.json" == store.path_of(RECORD.call_sid)
    assert decode_record(path.read_bytes()) == RECORD
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


@pytest.mark.sockets
async def test_st_4_the_file_is_synced_before_it_has_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees a whole record or none, and so does the machine after a power cut."""
    store = FileRecordStore(tmp_path)
    path = store.path_of(RECORD.call_sid)
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def observed(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().is_dir(), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    with trio.fail_after(10):
        await store.save(RECORD)
    assert synced == [(False, False), (True, True)]


@pytest.mark.sockets
async def test_saving_again_replaces_the_record(tmp_path: Path) -> None:
    store = FileRecordStore(tmp_path)
    with trio.fail_after(10):
        await store.save(RECORD)
        path = await store.save(attrs.evolve(RECORD, reason="later"))
    assert decode_record(path.read_bytes()).reason == "later"


@pytest.mark.parametrize(
    "call_sid",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "a\\b",
        "nul\x00l",
        "CA 1\n",
        "שלום",
        "x.json",
        "-_-",
    ],
)
def test_odd_call_sids_stay_inside_the_directory(tmp_path: Path, call_sid: str) -> None:
    path = FileRecordStore(tmp_path).path_of(CallSid(call_sid))
    assert path.parent == tmp_path / "calls"
    assert path.resolve().parent == (tmp_path / "calls").resolve()
    assert path.suffix == ".json"
    assert path.stem


@pytest.mark.sockets
async def test_a_cancel_does_not_stop_a_write_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileRecordStore(tmp_path)
    writing, let_go = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        writing.set()
        assert let_go.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.save, RECORD)
            await trio.to_thread.run_sync(writing.wait)
            nursery.cancel_scope.cancel()
            let_go.set()
    assert decode_record(store.path_of(RECORD.call_sid).read_bytes()) == RECORD


@pytest.mark.sockets
async def test_a_disk_that_fails_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file where the directory should be")
    with trio.fail_after(10), pytest.raises(OSError, match="exists"):
        await FileRecordStore(tmp_path).save(RECORD)


@pytest.mark.parametrize("nasty", ["a\0b", "a\ud800b"])
def test_no_text_loses_a_record(tmp_path: Path, nasty: str) -> None:
    """UTF-8 has no halves of surrogate pairs, but a model, or a tool of somebody's, may."""
    record = attrs.evolve(RECORD, reason=nasty, timeline=(TimelineEvent(1, "TOOL", {nasty: nasty}),))
    kept = decode_record(FileRecordStore(tmp_path).write(record).read_bytes())
    text = nasty.replace("\ud800", "?")
    assert kept == attrs.evolve(RECORD, reason=text, timeline=(TimelineEvent(1, "TOOL", {text: text}),))

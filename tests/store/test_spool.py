"""The spool: durable before it counts, read by whoever comes next, and nothing in it harms what is beside it."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import attrs
import msgspec
import pytest
import trio
from ended_calls import make_record

from agent.core.records import CallMetrics, CallRecord, Outcome, TimelineEvent, Turn
from agent.core.units import CallSid, RecordingSid, StreamSid
from agent.store.spool import CORRUPT, STALE_S, Spool, decode_record, encode_record
from agent.store.sql.values import AnsweredCall

pytestmark = pytest.mark.sockets
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
NAME = str(RECORD.call_sid)
ANSWERED = AnsweredCall(
    NAME, "default", "inbound", "+15551234567", "+15550000000", datetime(2026, 3, 1, tzinfo=UTC), uuid4()
)


def files_in(directory: Path, pattern: str) -> list[Path]:
    return [path for path in directory.rglob(pattern) if path.is_file()]


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


@pytest.mark.parametrize("nasty", ["a\0b", "a\ud800b"])
async def test_no_text_loses_a_record(tmp_path: Path, nasty: str) -> None:
    """UTF-8 has no halves of surrogate pairs, but a model, or a tool of somebody's, may."""
    record = attrs.evolve(RECORD, reason=nasty, timeline=(TimelineEvent(1, "TOOL", {nasty: nasty}),))
    kept = decode_record((await Spool(tmp_path).save(record)).read_bytes())
    text = nasty.replace("\ud800", "?")
    assert kept == attrs.evolve(RECORD, reason=text, timeline=(TimelineEvent(1, "TOOL", {text: text}),))


async def test_st_4_a_saved_record_waits_until_the_database_has_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = await spool.save(RECORD)
    assert path == spool.path_of(RECORD.call_sid) == tmp_path / "calls" / f"{NAME}.json"
    assert await Spool(tmp_path).waiting() == [NAME], "whoever comes next sees it"
    assert await spool.load(NAME) == RECORD
    await spool.done(NAME)
    await spool.done(NAME)
    assert await spool.waiting() == []
    assert path.exists(), "the record itself is kept"


async def test_the_row_of_a_call_in_progress_waits_beside_its_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await spool.save_answered(ANSWERED)
    assert await spool.waiting() == [f"{NAME}.answered"]
    await spool.save(RECORD)
    assert sorted(await spool.waiting()) == [NAME, f"{NAME}.answered"]
    assert await spool.load(f"{NAME}.answered") == ANSWERED
    await spool.done(f"{NAME}.answered")
    assert await spool.waiting() == [NAME]


async def test_an_empty_or_missing_directory_has_nothing(tmp_path: Path) -> None:
    assert await Spool(tmp_path / "none").waiting() == []
    assert await Spool(tmp_path).load("CA404") is None


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b'{"call_sid": 1}', b"\0" * 4096])
async def test_what_cannot_be_read_is_set_aside_under_a_name_of_its_own(tmp_path: Path, raw: bytes) -> None:
    spool = Spool(tmp_path)
    path = await spool.save(RECORD)
    await spool.save_answered(ANSWERED)
    answered = tmp_path / "spool" / f"{NAME}.answered"
    path.write_bytes(raw)
    answered.write_bytes(raw)
    for name, damaged in ((NAME, path), (f"{NAME}.answered", answered)):
        with pytest.raises(msgspec.MsgspecError):
            await spool.load(name)
        aside = await spool.set_aside(name)
        assert aside == damaged.with_name(damaged.name + CORRUPT)
        assert aside.read_bytes() == raw
    assert await spool.waiting() == []


async def test_st_4_killed_before_any_write_was_whole_nothing_false_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the moment of the kill: no record, or a whole one that waits; never a saved one that does not."""

    class KilledError(Exception):
        pass

    calls = ("open", "fsync", "replace", "mkdir", "close")
    writes = 0
    for at in range(100):
        left = at

        def killed(*_: object, **__: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError

        directory = tmp_path / str(at)
        with monkeypatch.context() as patch:
            for name in calls:
                real = getattr(os, name)

                def call(*args: object, real: object = real, **kwargs: object) -> object:
                    killed()
                    return real(*args, **kwargs)  # type: ignore[operator]  # what os has

                patch.setattr(os, name, call)
            try:
                await Spool(directory).save(RECORD)
            except KilledError:
                writes = at
            else:
                break
        spool = Spool(directory)
        for name in await spool.waiting():
            assert name == NAME
            assert await spool.load(name) in (None, RECORD), f"killed at {at}"
        if spool.path_of(RECORD.call_sid).exists():
            assert await spool.waiting() == [NAME], f"killed at {at}"
    assert writes >= 4, "it was killed at several places"
    assert await Spool(directory).waiting() == [NAME]


async def test_a_mark_whose_record_is_still_to_come_is_left_alone(tmp_path: Path) -> None:
    """Another process is about to write it; only a mark that is old is one of a process that was killed."""
    spool = Spool(tmp_path)
    mark = tmp_path / "spool" / NAME
    mark.parent.mkdir()
    mark.touch()
    assert await spool.load(NAME) is None
    assert await spool.waiting() == [NAME]
    long_ago_s = mark.stat().st_mtime - STALE_S - 1
    os.utime(mark, (long_ago_s, long_ago_s))
    assert await spool.load(NAME) is None
    assert await spool.waiting() == []


async def test_two_processes_on_one_directory_do_each_other_no_harm(tmp_path: Path) -> None:
    """Both save, both move everything; each record is seen at least once, and nothing is left or broken."""
    one, other = Spool(tmp_path), Spool(tmp_path)
    seen: dict[str, CallRecord] = {}

    async def save(spool: Spool, numbers: range) -> None:
        for number in numbers:
            await spool.save(make_record(number, reason=f"call {number}"))

    async def move(spool: Spool) -> None:
        await trio.lowlevel.checkpoint()
        while len(seen) < 40:
            for name in await spool.waiting():
                record = await spool.load(name)
                if isinstance(record, CallRecord):
                    seen[name] = record
                    await spool.done(name)
            await trio.lowlevel.checkpoint()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(save, one, range(1, 21))
            nursery.start_soon(save, other, range(21, 41))
            nursery.start_soon(move, one)
            nursery.start_soon(move, other)
    assert {record.reason for record in seen.values()} == {f"call {number}" for number in range(1, 41)}
    assert await one.waiting() == []
    assert not files_in(tmp_path, "*.part")


async def test_a_cancel_does_not_stop_a_save_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    writing, let_go = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        writing.set()
        assert let_go.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.save, RECORD)
            await trio.to_thread.run_sync(writing.wait)
            nursery.cancel_scope.cancel()
            let_go.set()
    assert await spool.waiting() == [NAME]
    assert await spool.load(NAME) == RECORD


@pytest.mark.parametrize("call_sid", ["../../etc/passwd", "..", "", "a/b", "nul\x00l", "CA1.answered", ".hidden"])
async def test_odd_call_sids_stay_inside_and_are_found_again(tmp_path: Path, call_sid: str) -> None:
    spool = Spool(tmp_path / "data")
    record = attrs.evolve(RECORD, call_sid=CallSid(call_sid))
    await spool.save(record)
    [name] = await spool.waiting()
    assert await spool.load(name) == record
    assert {path.parent.name for path in files_in(tmp_path, "*")} == {"calls", "spool"}


async def test_st_4_the_file_is_synced_before_it_has_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader sees a whole record or none, and so does the machine after a power cut."""
    spool = Spool(tmp_path)
    path = spool.path_of(RECORD.call_sid)
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def observed(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve().is_dir(), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    with trio.fail_after(10):
        await spool.save(RECORD)
    assert synced == [(True, False), (False, False), (True, True)], "the mark, the record, its name"


async def test_saving_again_replaces_the_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with trio.fail_after(10):
        await spool.save(RECORD)
        path = await spool.save(attrs.evolve(RECORD, reason="later"))
    assert decode_record(path.read_bytes()).reason == "later"


async def test_a_disk_that_fails_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file where the directory should be")
    with pytest.raises(OSError, match="exists"):
        await Spool(tmp_path).save(RECORD)


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
def test_odd_call_sids_name_a_file_inside_the_directory(tmp_path: Path, call_sid: str) -> None:
    path = Spool(tmp_path).path_of(CallSid(call_sid))
    assert path.parent == tmp_path / "calls"
    assert path.resolve().parent == (tmp_path / "calls").resolve()
    assert path.suffix == ".json"
    assert path.stem

"""Recordings brought to disk: every state the carrier may have them in, broken connections, bad files, cancels.

The carrier is in memory; the files are real, so threads are at work and time is real.
"""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from memory_rest import MemoryRest
from psutil import Process

from agent.core.errors import CarrierError, NotReadyError, StepDeadError
from agent.core.units import CallSid, RecordingSid
from agent.pipeline.recording import download as recordings
from agent.pipeline.recording.download import Downloaded, RecordingState, fetch_recording, path_of
from agent.pipeline.recording.part_file import make_tag
from agent.sim.carrier.rest.recordings import GeneratedSound, SimulatedRecording, Sound

pytestmark = pytest.mark.sockets
CALL = CallSid("CA" + "c" * 32)
SECONDS = 20.0
"""640 KB: three blocks."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "RESUME_PAUSE_S", 0.001)


def open_carrier(sound: Sound | None = None) -> tuple[MemoryRest, SimulatedRecording]:
    rest = MemoryRest(delay_s=0.0)
    return rest, rest.kept.made_up(CALL, sound or GeneratedSound(SECONDS))


def told(recording: SimulatedRecording, status: str = "completed") -> RecordingState:
    return RecordingState(RecordingSid(recording.sid), status)


async def fetch(told: RecordingState | None, rest: MemoryRest, folder: Path) -> Downloaded:
    with trio.fail_after(20):
        downloaded = await fetch_recording(CALL, told, rest, folder)
    assert downloaded is not None
    return downloaded


def whole(recording: SimulatedRecording) -> bytes:
    return b"".join(recording.read(0, recording.size))


def parts(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.part")]


def kept(folder: Path) -> list[Path]:
    return list(folder.rglob("*.wav"))


def asked(rest: MemoryRest) -> list[str]:
    return [request.what for request in rest.requests]


# What is there


async def test_a_recording_is_kept_under_its_name_with_its_checksum(tmp_path: Path) -> None:
    """Told that it is ready, nothing more is asked; a second time, nothing at all."""
    rest, recording = open_carrier()
    got = await fetch(told(recording), rest, tmp_path)
    content = whole(recording)
    assert got == Downloaded(
        tmp_path / CALL / f"{recording.sid}.wav", hashlib.sha256(content).hexdigest(), len(content), 2, SECONDS
    )
    assert got.path.read_bytes() == content
    assert asked(rest) == ["open_media"]
    assert await fetch(told(recording, "in-progress"), rest, tmp_path) == got
    assert asked(rest) == ["open_media"]
    assert parts(tmp_path) == []


async def test_a_mono_recording_is_kept_as_one(tmp_path: Path) -> None:
    rest, recording = open_carrier(GeneratedSound(SECONDS, channels=1))
    assert (await fetch(told(recording), rest, tmp_path)).channels == 1


async def test_a_lost_callback_is_made_up_for_by_asking(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    await fetch(told(recording, "in-progress"), rest, tmp_path)
    assert asked(rest) == ["recording_state", "open_media"]


async def test_a_call_that_knows_of_no_recording_asks_for_one(tmp_path: Path) -> None:
    """The server died between starting the recording and keeping its record."""
    rest, recording = open_carrier()
    assert (await fetch(None, rest, tmp_path)).path.stem == recording.sid
    rest.kept.delete(recording.sid)
    assert await fetch_recording(CallSid("CA0"), None, rest, tmp_path) is None


@pytest.mark.parametrize("status", ["in-progress", "processing"])
async def test_what_is_not_ready_is_no_failure(tmp_path: Path, status: Any) -> None:
    rest, recording = open_carrier()
    rest.streams[CALL] = None  # type: ignore[assignment]  # its call is not over for the carrier
    recording.status = "processing"
    with pytest.raises(NotReadyError, match="processing"):
        await fetch(told(recording, status), rest, tmp_path)


@pytest.mark.parametrize("status", ["absent", "failed"])
@pytest.mark.parametrize("by_callback", [True, False])
async def test_what_will_never_be_is_dead(tmp_path: Path, status: Any, by_callback: bool) -> None:  # noqa: FBT001
    rest, recording = open_carrier()
    recording.status = status
    with pytest.raises(StepDeadError, match=status):
        await fetch(told(recording, status if by_callback else "in-progress"), rest, tmp_path)
    assert asked(rest) == ([] if by_callback else ["recording_state"])


@pytest.mark.parametrize("status", ["completed", "in-progress"])
async def test_what_was_deleted_is_dead(tmp_path: Path, status: str) -> None:
    rest, recording = open_carrier()
    rest.kept.delete(recording.sid)
    with pytest.raises(StepDeadError, match=r"gone|deleted"):
        await fetch(told(recording, status), rest, tmp_path)


async def test_a_carrier_that_refuses_is_asked_again_later(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    rest.failures += ["HTTP 429", "HTTP 500"]
    for status in ("completed", "in-progress"):
        with pytest.raises(CarrierError, match="HTTP"):
            await fetch(told(recording, status), rest, tmp_path)
    await fetch(told(recording), rest, tmp_path)


async def test_deleting_at_the_carrier_may_be_repeated(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    for _ in range(2):
        await rest.delete_recording(RecordingSid(recording.sid))
    assert rest.kept.deleted == [recording.sid]


def test_sids_from_outside_name_no_other_folder(tmp_path: Path) -> None:
    path = path_of(tmp_path, CallSid("../../etc"), RecordingSid("a/b\0.wav"))
    assert path == tmp_path / "etc" / "abwav.wav"
    assert path_of(tmp_path, CallSid("/"), RecordingSid("..")) == tmp_path / "unnamed" / "unnamed.wav"


# Broken connections


async def test_a_broken_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.break_after += [0, 1, 43, 300_000, 5]
    got = await fetch(told(recording), rest, tmp_path)
    assert got.path.read_bytes() == whole(recording)
    assert got.sha256 == hashlib.sha256(whole(recording)).hexdigest()


async def test_what_breaks_too_often_goes_on_at_the_next_attempt(tmp_path: Path) -> None:
    """Also by another process: what it needs to know is in the name of the part."""
    rest, recording = open_carrier()
    recording.faults.break_after += [20_000] * (recordings.RESUMES + 1)
    with pytest.raises(httpx.ReadError):
        await fetch(told(recording), rest, tmp_path)
    assert parts(tmp_path) == [20_000 * (recordings.RESUMES + 1)]
    recording.faults.break_after.append(0)
    got = await fetch(told(recording), rest, tmp_path)
    assert got.sha256 == hashlib.sha256(whole(recording)).hexdigest()
    assert parts(tmp_path) == []


async def test_a_part_that_is_whole_already_only_needs_its_name(tmp_path: Path) -> None:
    """Killed between the last byte and the renaming."""
    rest, recording = open_carrier()
    got = await fetch(told(recording), rest, tmp_path)
    tag = make_tag(recording.etag, recording.size)
    got.path.rename(got.path.with_name(f"{recording.sid}.{tag}.part"))
    assert await fetch(told(recording), rest, tmp_path) == got


async def test_a_carrier_without_ranges_sends_it_all_again(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.ranges = False
    recording.faults.break_after.append(100_000)
    got = await fetch(told(recording), rest, tmp_path)
    assert got.path.read_bytes() == whole(recording)


async def test_parts_of_two_versions_are_never_joined(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.break_after += [100_000] * (recordings.RESUMES + 1)
    with pytest.raises(httpx.ReadError):
        await fetch(told(recording), rest, tmp_path)
    recording.sound = GeneratedSound(SECONDS + 1)
    got = await fetch(told(recording), rest, tmp_path)
    assert got.path.read_bytes() == whole(recording)
    assert parts(tmp_path) == []


async def test_a_file_that_changes_each_time_is_given_up(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.new_etag_each_time = True
    recording.faults.break_after += [100_000] * 20
    with pytest.raises((CarrierError, httpx.ReadError)):
        await fetch(told(recording), rest, tmp_path)
    recording.faults.break_after.clear()
    assert (await fetch(told(recording), rest, tmp_path)).size_bytes == recording.size


# Bad files


@pytest.mark.parametrize("sound", [GeneratedSound(0.0), GeneratedSound(0.0, channels=1)])
async def test_a_recording_without_a_sample_is_dead(tmp_path: Path, sound: Sound) -> None:
    rest, recording = open_carrier(sound)
    with pytest.raises(StepDeadError, match="empty"):
        await fetch(told(recording), rest, tmp_path)
    assert parts(tmp_path) == []


async def test_a_file_without_a_byte_is_dead(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.junk = b""
    with pytest.raises(StepDeadError, match="empty"):
        await fetch(told(recording), rest, tmp_path)


async def test_a_truncated_recording_is_tried_again_from_the_start(tmp_path: Path) -> None:
    rest, recording = open_carrier()
    recording.faults.missing_bytes = 1000
    with pytest.raises(CarrierError, match="truncated: 1000 bytes"):
        await fetch(told(recording), rest, tmp_path)
    assert parts(tmp_path) == []
    recording.faults.missing_bytes = 0
    await fetch(told(recording), rest, tmp_path)


@pytest.mark.parametrize("junk", [b"<html>try later</html>", b"RIFF\0\0\0\0WAVEfmt "])
async def test_what_is_no_wav_file_is_tried_again(tmp_path: Path, junk: bytes) -> None:
    rest, recording = open_carrier()
    recording.faults.junk = junk
    with pytest.raises(CarrierError, match="not a whole WAV file"):
        await fetch(told(recording), rest, tmp_path)
    assert parts(tmp_path) == []


async def test_more_than_a_call_can_have_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_BYTES", 100_000)
    rest, recording = open_carrier()
    with pytest.raises(StepDeadError, match="which no call can have"):
        await fetch(told(recording), rest, tmp_path)


async def test_do_3_a_full_disk_is_waited_for_and_the_part_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as no attempt: eight of them were over before somebody had come to make room."""
    rest, recording = open_carrier()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(NotReadyError, match="no room"):
            await fetch(told(recording), rest, tmp_path)
    assert not kept(tmp_path)
    assert not parts(tmp_path)
    await fetch(told(recording), rest, tmp_path)


async def test_two_hours_take_little_memory(tmp_path: Path) -> None:
    """230 MB come through; what is held at any time is some blocks."""
    rest, recording = open_carrier(GeneratedSound(7200.0))
    tracemalloc.start()
    try:
        got = await fetch(told(recording), rest, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (got.size_bytes, got.duration_s) == (44 + 7200 * 32_000, 7200.0)
    assert peak < 3_000_000


# Cancelled


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` before step ``at`` of the test's task."""

    at: int
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and strike once."""
        if task is self.task:
            if self.steps == self.at:
                self.scope.cancel(reason="the sweep")
            self.steps += 1


async def test_cancelled_at_any_checkpoint_nothing_is_open_and_the_rest_can_follow(tmp_path: Path) -> None:
    """Two connections' worth of steps; after each cancel the next attempt brings the whole file."""
    rest, recording = open_carrier()
    content, process, at, cancelled = whole(recording), Process(), 0, True
    while cancelled:
        folder = tmp_path / str(at)
        recording.faults.break_after.clear()
        recording.faults.break_after.append(300_000)
        descriptors = process.num_fds()
        with trio.CancelScope() as scope:
            sweep = CancelAt(at, trio.lowlevel.current_task(), scope)
            trio.lowlevel.add_instrument(sweep)
            try:
                await fetch(told(recording, "in-progress"), rest, folder)
            finally:
                trio.lowlevel.remove_instrument(sweep)
        cancelled = scope.cancelled_caught
        assert process.num_fds() <= descriptors, f"step {at}"
        recording.faults.break_after.clear()
        before = sum(parts(folder))
        got = await fetch(told(recording, "in-progress"), rest, folder)
        assert got.path.read_bytes() == content, f"step {at}, after {before} bytes"
        assert got.sha256 == hashlib.sha256(content).hexdigest()
        at += 1
    assert at > 20

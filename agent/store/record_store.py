"""Where call records become durable before anyone is told of them (ST-4)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, Protocol

import attrs
import msgspec
import trio

from agent.core.records import CallRecord
from agent.core.units import CallSid

_WRITERS: Final = 4


class RecordStore(Protocol):
    """Keeps call records."""

    async def save(self, record: CallRecord) -> Path | None:
        """Make the record durable; when this returns it survives the machine. Raises OSError.

        A cancel does not stop a write under way.
        """


@attrs.define(eq=False)
class FileRecordStore:
    """One JSON file a call, ``<directory>/calls/<call sid>.json``: written aside, synced, renamed, synced."""

    directory: Path
    _limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_WRITERS))

    def path_of(self, call_sid: CallSid) -> Path:
        """The file of a call; the sid comes from outside, so only its letters and digits name it."""
        name = "".join(letter for letter in call_sid if letter.isalnum() or letter in "-_")
        return self.directory / "calls" / f"{name or 'unnamed'}.json"

    async def save(self, record: CallRecord) -> Path:
        """See RecordStore; returns the file."""
        return await trio.to_thread.run_sync(self.write, record, limiter=self._limiter)

    def write(self, record: CallRecord) -> Path:
        """``save``, blocking."""
        path = self.path_of(record.call_sid)
        write_durably(path, encode_record(record))
        return path


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a power cut it is there whole or not at all. Blocks; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Blocks; raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def encode_record(record: CallRecord) -> bytes:
    """The record as indented UTF-8 JSON; halves of surrogate pairs, which UTF-8 has not, as question marks."""
    try:
        raw = msgspec.json.encode(record)
    except UnicodeEncodeError:
        raw = json.dumps(msgspec.to_builtins(record), ensure_ascii=False).encode(errors="replace")
    return msgspec.json.format(raw, indent=2) + b"\n"


def decode_record(raw: bytes) -> CallRecord:
    """The inverse of ``encode_record``. Raises msgspec.ValidationError or DecodeError."""
    return msgspec.json.decode(raw, type=CallRecord)

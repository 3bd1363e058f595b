"""What Postgres does not have yet, on disk: no call waits for the database, and nothing is lost with it.

A finished call's record is ``<data_dir>/calls/<call sid>.json``; an empty file ``<data_dir>/spool/<call sid>``,
made before it, says that the database has still to get it, and is removed when it has. The row of a call in
progress that could not be inserted is ``<data_dir>/spool/<call sid>.answered``. Everything is synced before it
counts; two processes on one directory do the same work twice at worst, and saving is idempotent.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import attrs
import msgspec
import trio
from typing_extensions import override

from agent.core.durable import (
    PRIVATE_DIRECTORY,
    check_own_directory,
    make_private_directory,
    open_private,
    sync_directory,
    write_durably,
)
from agent.core.graceful import run_in_thread
from agent.core.records import CallRecord
from agent.core.units import CallSid
from agent.store.sql.values import AnsweredCall

CORRUPT: Final = ".corrupt"
STALE_S: Final = 60.0
"""A mark without a record that is older than this is one of a process that was killed."""
_ANSWERED: Final = ".answered"
_THREADS: Final = 4
GRACE_S: Final = 2.0
"""How long a cancel waits for a thread on the disk. One that hangs must not hold the end of the process."""

_T = TypeVar("_T")
_P = ParamSpec("_P")


class RecordStore(Protocol):
    """Where call records become durable before anyone is told of them (ST-4)."""

    async def save(self, record: CallRecord) -> Path | None:
        """Make the record durable; when this returns it survives the machine. Raises OSError.

        A cancel waits GRACE_S for a write under way, which goes on in its thread.
        """


def _in_a_thread(
    work: Callable[Concatenate[Spool, _P], _T],
) -> Callable[Concatenate[Spool, _P], Coroutine[Any, Any, _T]]:
    """``work`` of a spool in one of its threads; a cancel waits for it, GRACE_S at most."""

    @wraps(work)
    async def run(spool: Spool, /, *arguments: _P.args, **named: _P.kwargs) -> _T:
        return await run_in_thread(
            partial(work, spool, *arguments, **named), limiter=spool.limiter, grace_s=GRACE_S
        )

    return run


@attrs.define(eq=False)
class Spool(RecordStore):
    """``RecordStore`` on disk, and what waits in it for the database.

    What is awaited works in threads; a cancel does not stop a write.
    """

    directory: Path
    is_elsewhere: bool = False
    """It is in a place where anybody can make directories: one that is not ours raises PermissionError."""
    limiter: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(_THREADS))

    def path_of(self, call_sid: CallSid) -> Path:
        """The file of a call's record; the SID comes from outside, so only its letters and digits name it."""
        name = "".join(letter for letter in call_sid if letter.isalnum() or letter in "-_")
        return self._file(name or "unnamed")

    @override
    @_in_a_thread
    def save(self, record: CallRecord) -> Path:
        return self._save(record.call_sid, encode_record(record))

    @_in_a_thread
    def save_encoded(self, call_sid: CallSid, record: bytes) -> Path:
        """``save`` what ``encode_record`` made. Raises OSError."""
        return self._save(call_sid, record)

    def _save(self, call_sid: CallSid, record: bytes) -> Path:
        if self.is_elsewhere:
            self.directory.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            check_own_directory(self.directory)
        make_private_directory(self._spool)
        path = self.path_of(call_sid)
        self._mark(path.stem)
        began_s = time.monotonic()
        write_durably(path, record)
        if time.monotonic() - began_s > STALE_S / 2:
            # A reader may have held the mark for one of a process that was killed (DO-3).
            self._mark(path.stem)
        return path

    def _mark(self, name: str) -> None:
        mark = open_private(str(self._spool / name), os.O_CREAT | os.O_WRONLY)
        try:
            os.utime(mark)
        finally:
            os.close(mark)
        sync_directory(self._spool)

    @_in_a_thread
    def save_answered(self, call: AnsweredCall) -> None:
        """Keep the row of a call in progress. Raises OSError."""
        name = self.path_of(CallSid(call.call_sid)).stem + _ANSWERED
        write_durably(self._spool / name, msgspec.json.encode(call))

    @_in_a_thread
    def waiting(self) -> list[str]:
        """The names of what the database does not have yet, the oldest first. Raises OSError."""
        try:
            if self.is_elsewhere:
                check_own_directory(self.directory)
            found = [entry for entry in self._spool.iterdir() if entry.suffix in ("", _ANSWERED)]
        except FileNotFoundError:
            return []
        return [entry.name for entry in sorted(found, key=_age)]

    @_in_a_thread
    def load(self, name: str) -> CallRecord | AnsweredCall | None:
        """What waits under ``name``; None: nothing (any more). Raises OSError, msgspec.MsgspecError."""
        try:
            raw = self._file(name).read_bytes()
        except FileNotFoundError:
            # Another process is about to write it, or was killed before it did.
            mark = self._spool / name
            if 0.0 < _age(mark) < time.time() - STALE_S:
                mark.unlink(missing_ok=True)
                if self._file(name).exists():  # it was written meanwhile
                    self._mark(name)
            return None
        return msgspec.json.decode(raw, type=AnsweredCall) if name.endswith(_ANSWERED) else decode_record(raw)

    @_in_a_thread
    def done(self, name: str) -> None:
        """The database has it. Raises OSError."""
        (self._spool / name).unlink(missing_ok=True)

    @_in_a_thread
    def remove(self, name: str) -> None:
        """It is elsewhere now: remove it, its mark first. Raises OSError."""
        (self._spool / name).unlink(missing_ok=True)
        self._file(name).unlink(missing_ok=True)

    @_in_a_thread
    def set_aside(self, name: str) -> Path:
        """Rename what cannot be read, so that it is in nobody's way and can be looked at; its new path."""
        path = self._file(name)
        aside = path.with_name(path.name + CORRUPT)
        path.replace(aside)
        (self._spool / name).unlink(missing_ok=True)
        return aside

    @property
    def _spool(self) -> Path:
        return self.directory / "spool"

    def _file(self, name: str) -> Path:
        return self._spool / name if name.endswith(_ANSWERED) else self.directory / "calls" / f"{name}.json"


def _age(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def encode_record(record: CallRecord) -> bytes:
    """The record as indented UTF-8 JSON; halves of surrogate pairs, which UTF-8 has not, as question marks.

    What JSON has no form for is there as its ``repr``: a record is kept, whatever a timeline's detail is.
    """
    try:
        raw = msgspec.json.encode(record, enc_hook=repr)
    except (UnicodeEncodeError, OverflowError):
        raw = json.dumps(msgspec.to_builtins(record, enc_hook=repr), ensure_ascii=False).encode(errors="replace")
    return msgspec.json.format(raw, indent=2) + b"\n"


def decode_record(raw: bytes) -> CallRecord:
    """The inverse of ``encode_record``. Raises msgspec.ValidationError or DecodeError."""
    return msgspec.json.decode(raw, type=CallRecord)

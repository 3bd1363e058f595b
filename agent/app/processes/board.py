"""Who the processes of a server are and how many calls each has, in memory that all of them share.

Each process writes a row of its own, whenever something changes, and reads those of the others without asking
anybody; the parent clears the row of one that has died, which gives its lines back.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from typing import IO, Final

import attrs

TAKING: Final = 1
"""Takes new calls."""
LEAVING: Final = 2
"""Takes none any more; may have some."""
ROWS: Final = 64
_ROW: Final = struct.Struct("5i")
_SIZE: Final = ROWS * _ROW.size


@attrs.frozen
class Row:
    """One process."""

    number: int
    """Its name: from 1, never used again; 0: there is none."""
    state: int = 0
    lines: int = 0
    promised: int = 0
    """Calls that it told to come, and whose streams are on their way."""
    is_busy: int = 0
    """1: its processor has no time for another call."""


@attrs.frozen(eq=False)
class Board:
    """The rows. A row may be read while it is written: then some of its numbers are those of before."""

    _memory: mmap.mmap

    @classmethod
    def over(cls, descriptor: int) -> Board:
        """The board behind a descriptor, which may be closed then."""
        return cls(mmap.mmap(descriptor, _SIZE))

    def rows(self) -> list[Row]:
        """The processes there are."""
        return [Row(*row) for row in _ROW.iter_unpack(self._memory[:]) if row[0]]

    def write(self, place: int, row: Row) -> None:
        """Write the row at ``place``, which is below ROWS."""
        _ROW.pack_into(
            self._memory, place * _ROW.size, row.number, row.state, row.lines, row.promised, row.is_busy
        )


def open_board() -> tuple[Board, IO[bytes]]:
    """An empty board, and the nameless file behind it."""
    file = tempfile.TemporaryFile(prefix="call-agent-")  # noqa: SIM115 - whoever asked for it closes it
    file.truncate(_SIZE)
    return Board.over(file.fileno()), file

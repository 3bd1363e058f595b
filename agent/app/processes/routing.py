"""Which process a request is for. Pure.

A call's stream is for the process that told it to come, as long as that takes calls; a browser that comes again
is for the process that has its call. A process that leaves gives all else away, one without time for another call
the calls that are announced.
"""

import re
from collections.abc import Iterable
from typing import Final

from agent.app.processes.board import LEAVING, TAKING, Row
from agent.carrier.front_door import BROWSER_PATH, STREAM_PATH

_NAMED: Final = re.compile(f"({STREAM_PATH}|{BROWSER_PATH})/([0-9]{{1,9}})/?")
_ANNOUNCED: Final = ("/voice/incoming", "/voice/outgoing")


def whose(rows: Iterable[Row], own: int, path: str) -> int:
    """The number of the process that is to serve a request for ``path``; 0: the one with the number ``own``."""
    by_number = {row.number: row for row in rows}
    here = by_number.pop(own, Row(own))
    takers = [row for row in by_number.values() if row.state == TAKING]
    named = _NAMED.fullmatch(path)
    if named is not None:
        number = int(named[2])
        if named[1] == BROWSER_PATH and (number == own or number in by_number):
            return 0 if number == own else number
        if any(row.number == number for row in takers):
            return number
    if here.state == LEAVING:
        return least(takers)
    if here.is_busy and path in _ANNOUNCED:
        return least([row for row in takers if not row.is_busy])
    return 0


def least(rows: Iterable[Row]) -> int:
    """The number of the process with the fewest calls; 0: there is none."""
    return min(((row.lines + row.promised, row.number) for row in rows), default=(0, 0))[1]

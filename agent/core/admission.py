"""Who is taken, and why nobody else: one for a process, asked by every door and told by whoever knows of a limit.

A call that would find no line, no model or no time on the processor hears that we are busy: that is better than
an answer that stutters or stays silent, and harms no call in progress (NB-6). Pure: times come in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

import attrs

from agent.core.errors import AdmissionError

BUSY: Final = "all lines are busy"
LIMITED: Final = "the model's provider limits the rate"
OVERLOADED: Final = "the processor has no time for another call"
SHARE_MOST: Final = 0.85
"""Of a core, for the event loop: what is over it makes frames late."""
LATE_S: Final = 0.010
"""A tick that is later than this is late."""
LATE_MOST: Final = 0.01
"""Share of late ticks: over it the 99th percentile of lateness is over LATE_S."""
BEATS: Final = 5
"""Over so many beats, of a second each, lateness is judged."""
TICKS_LEAST: Final = 1000
"""With fewer ticks in all that time (four calls that speak) the machine is late, and not for our load."""
CALL_SHARE: Final = 0.007
"""What a call is taken to cost before calls have told; measured on some machines: 0.0045 to 0.009."""
CALL_SHARE_LEAST: Final = 0.003
CALL_SHARE_MOST: Final = 0.02
"""The bounds of what is learnt: whatever else the loop does, for strangers say, is in the share as well."""
TEACHERS: Final = 10
"""Calls whose share tells what one costs, if hardly any of them has just begun: that costs more than a second."""
LEARNT: Final = 0.2
"""How much of what is known a second replaces."""


def _always() -> str:
    return ""


def _none() -> int:
    return 0


def _alone() -> tuple[int, int]:
    return 0, 0


def _nobody(_: Admission) -> None:
    return


def _no_crowd() -> bool:
    return False


@attrs.define(eq=False)
class Admission:
    """The lines of one process, and its limits."""

    max_calls: int | None = None
    """Of the whole server, all its processes; None: as many as the processor has time for."""
    not_ready: Callable[[], str] = _always
    """Why no call at all can be taken now; empty when one can."""
    promised: Callable[[], int] = _none
    """Calls that were told to come, and whose streams are on their way."""
    others: Callable[[], tuple[int, int]] = _alone
    """Lines taken in the server's other processes, and calls that were told to come there."""
    tell: Callable[[Admission], None] = _nobody
    """Told when lines or the load have changed, for the others to know."""
    crowded: Callable[[], bool] = _no_crowd
    """Whether strangers wait at the door: a tick that is late meanwhile is so for them, and not for our load."""
    lines: int = 0
    """Lines taken."""
    _limited_until: float = -inf
    call_share: float = CALL_SHARE
    """Of a core, that a call costs, as far as is known."""
    _share: float = 0.0
    _fresh: deque[int] = attrs.field(factory=lambda: deque([0, 0], 2))
    """Calls taken in the last beat, and in the one that is under way."""
    _told: deque[int] = attrs.field(factory=lambda: deque([0, 0], 2))
    """Calls that were told to come, likewise: who has not come after two seconds has hung up."""
    _ticks: deque[list[int]] = attrs.field(factory=lambda: deque([[0, 0] for _ in range(BEATS)], BEATS))
    """Ticks, and those of them that were late, in each."""

    def refusal(self, now: float) -> str:
        """Why a new call is not to be taken, empty if it is; ``not_ready`` first."""
        if reason := self.not_ready():
            return reason
        if self._is_full(self.lines + self.promised() + sum(self.others())):
            return BUSY
        if now < self._limited_until:
            return LIMITED
        return OVERLOADED if self.is_overloaded else ""

    def promise(self) -> None:
        """A call was told to come."""
        self._told[-1] += 1
        self.tell(self)

    def take_line(self) -> None:
        """A call that was told to come is here. Raises AdmissionError when there is no line after all."""
        # Taken before it is looked whether it may be: of two processes that take the last one, none has it.
        self.lines += 1
        self.tell(self)
        if self._is_full(self.lines - 1 + self.others()[0]):
            self.give_back()
            raise AdmissionError("unavailable", BUSY)
        self._fresh[-1] += 1

    def give_back(self) -> None:
        """A call is over."""
        self.lines -= 1
        self.tell(self)

    def limited(self, until: float) -> None:
        """The model's provider answers nothing before ``until``: who comes now would be answered by silence."""
        self._limited_until = max(self._limited_until, until)

    def tick(self, late_s: float) -> None:
        """A tick of a pacer ran ``late_s`` after its deadline."""
        counts = self._ticks[-1]
        counts[0] += 1
        counts[1] += late_s > LATE_S and not self.crowded()

    def beat(self, share: float) -> None:
        """A second is over in which the event loop had ``share`` of a core."""
        self._share = share
        if self.lines >= max(TEACHERS, TEACHERS * self._fresh[-1]):
            told = min(max(share / self.lines, CALL_SHARE_LEAST), CALL_SHARE_MOST)
            self.call_share += (told - self.call_share) * LEARNT
        self._fresh.append(0)
        self._told.append(0)
        self._ticks.append([0, 0])
        self.tell(self)

    @property
    def is_full(self) -> bool:
        """Whether all lines are taken."""
        return self._is_full(self.lines + self.others()[0])

    def _is_full(self, calls: int) -> bool:
        return self.max_calls is not None and calls >= self.max_calls

    @property
    def is_overloaded(self) -> bool:
        """Whether ticks are late, or would be with the calls that were just taken."""
        ticks, late = (sum(counts) for counts in zip(*self._ticks, strict=True))
        if ticks >= TICKS_LEAST and late > ticks * LATE_MOST:
            return True
        before, now = self._fresh
        # Of those taken in the second that was measured about half shows.
        unseen = before / 2 + now + min(self.promised(), sum(self._told))
        return self._share + unseen * self.call_share > SHARE_MOST

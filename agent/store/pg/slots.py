"""Who gets a connection next: the pool's decisions, without its I/O.

A pool has ``max_size`` slots. A connection needs one while it exists, a caller needs one to use it. Callers hold
a :class:`Ticket`; it is granted in the order in which they came, with an idle connection or with the right to
open one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

import attrs

C = TypeVar("C")


@attrs.frozen(eq=False)
class Idle(Generic[C]):
    """A connection that nobody uses, and since when."""

    connection: C
    since_s: float


@attrs.define(eq=False)
class Ticket(Generic[C]):
    """A caller's place in the queue, and once ``granted``, its slot."""

    asked_at_s: float
    granted: bool = False
    idle: Idle[C] | None = None
    """The idle connection that came with the slot; None: the caller opens one."""


@attrs.define(eq=False)
class Slots(Generic[C]):
    """Connections of a pool, and the callers that wait for one. Times are monotonic seconds.

    Held together: ``taken + len(idle) <= max_size``, and nobody waits while a slot could be granted.
    """

    min_size: int
    max_size: int
    taken: int = 0
    """Slots in the hands of callers: in use, or being opened."""
    idle: deque[Idle[C]] = attrs.field(factory=deque, init=False)
    """The most recently used last: it is given out first, so that the others can be closed one day."""
    waiting: OrderedDict[Ticket[C], None] = attrs.field(factory=OrderedDict, init=False)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(
                f"a pool needs 0 <= min_size <= max_size and 1 <= max_size: {self.min_size}, {self.max_size}"
            )

    def ask(self, now_s: float) -> Ticket[C]:
        """Join the queue; the ticket may be granted already."""
        ticket: Ticket[C] = Ticket(now_s)
        self.waiting[ticket] = None
        self._grant()
        return ticket

    def give_back(self, connection: C | None, now_s: float) -> list[Ticket[C]]:
        """A slot is free, with its connection or (None) without: it was closed, or could not be opened.

        Returns the tickets that are granted by this.
        """
        self.taken -= 1
        if connection is not None:
            self.idle.append(Idle(connection, now_s))
        return self._grant()

    def leave(self, ticket: Ticket[C]) -> bool:
        """Give up waiting; False if it is too late: the ticket was granted, and its slot must be given back."""
        if ticket.granted:
            return False
        self.waiting.pop(ticket, None)
        return True

    def take_lacking(self) -> bool:
        """Whether there are fewer connections than ``min_size``; if so, a slot is taken to open one."""
        if self.taken + len(self.idle) >= self.min_size:
            return False
        self.taken += 1
        return True

    def take_surplus(self, unused_since_s: float) -> list[C]:
        """Connections above ``min_size`` that nobody used since then; they are the pool's no more: close them."""
        surplus: list[C] = []
        while (
            self.idle and self.idle[0].since_s <= unused_since_s and self.taken + len(self.idle) > self.min_size
        ):
            surplus.append(self.idle.popleft().connection)
        return surplus

    def clear(self) -> tuple[list[C], list[Ticket[C]]]:
        """The end: all idle connections, to be closed, and all who wait, to be told."""
        connections = [idle.connection for idle in self.idle]
        tickets = list(self.waiting)
        self.idle.clear()
        self.waiting.clear()
        return connections, tickets

    def _grant(self) -> list[Ticket[C]]:
        granted: list[Ticket[C]] = []
        while self.waiting and (self.idle or self.taken < self.max_size):
            ticket, _ = self.waiting.popitem(last=False)
            ticket.idle = self.idle.pop() if self.idle else None
            ticket.granted = True
            self.taken += 1
            granted.append(ticket)
        return granted

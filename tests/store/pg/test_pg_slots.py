"""Whose turn it is at the pool: decisions without I/O, checked against every order of events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.store.pg.slots import Slots, Ticket


def test_the_most_recently_used_connection_is_given_first() -> None:
    slots: Slots[str] = Slots(0, 2)
    for _ in range(2):
        slots.ask(0.0)
    slots.give_back("first", 1.0)
    slots.give_back("second", 2.0)
    ticket = slots.ask(3.0)
    assert ticket.idle is not None
    assert (ticket.idle.connection, ticket.idle.since_s) == ("second", 2.0)


def test_callers_are_served_in_their_order() -> None:
    slots: Slots[str] = Slots(0, 1)
    first, second, third = (slots.ask(float(number)) for number in range(3))
    assert [ticket.granted for ticket in (first, second, third)] == [True, False, False]
    assert slots.give_back("c", 3.0) == [second]
    assert slots.leave(third)
    assert not slots.leave(second)
    assert slots.give_back(None, 4.0) == []
    assert slots.taken == 0


def test_connections_nobody_uses_are_let_go_the_oldest_first() -> None:
    slots: Slots[str] = Slots(1, 4)
    for _ in range(3):
        slots.ask(0.0)
    for number, name in enumerate("abc"):
        slots.give_back(name, float(number))
    assert slots.take_surplus(0.5) == ["a"]
    assert slots.take_surplus(10.0) == ["b"]
    assert slots.take_surplus(10.0) == [], "the last is kept: min_size"


def test_what_lacks_is_counted_with_what_is_being_opened() -> None:
    slots: Slots[str] = Slots(2, 3)
    slots.ask(0.0)
    assert slots.take_lacking()
    assert not slots.take_lacking()


@pytest.mark.parametrize(("least", "most"), [(-1, 3), (4, 3), (0, 0)])
def test_sizes_that_make_no_sense_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min_size"):
        Slots(least, most)


class SlotsMachine(RuleBasedStateMachine):
    """Callers come, leave, use and break connections, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: Slots[int] = Slots(1, 3)
        self.names = itertools.count()
        self.now_s = 0.0
        self.queue: list[Ticket[int]] = []
        self.using: list[int | None] = []
        """Slots in the hands of callers, and the connection in each; None: being opened."""

    def _granted(self, tickets: list[Ticket[int]]) -> None:
        assert tickets == self.queue[: len(tickets)], "not in the order of asking"
        for ticket in tickets:
            assert ticket.granted
            self.queue.remove(ticket)
            self.using.append(ticket.idle.connection if ticket.idle else None)

    @rule()
    def ask(self) -> None:
        """Somebody wants a connection."""
        self.now_s += 1
        ticket = self.slots.ask(self.now_s)
        self.queue.append(ticket)
        if ticket.granted:
            assert self.queue == [ticket], "overtook somebody"
            self._granted([ticket])

    @precondition(lambda self: self.using)
    @rule(data=st.data(), good=st.booleans())
    def give_back(self, data: st.DataObject, good: bool) -> None:  # noqa: FBT001
        """A connection, new or used, comes back; or the slot alone."""
        connection = self.using.pop(data.draw(st.integers(0, len(self.using) - 1)))
        if good and connection is None:
            connection = next(self.names)
        self.now_s += 1
        self._granted(self.slots.give_back(connection if good else None, self.now_s))

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Somebody waits no more."""
        ticket = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        assert self.slots.leave(ticket)

    @rule()
    def keep(self) -> None:
        """The pool looks after itself."""
        if self.slots.take_lacking():
            self.using.append(None)
        self.slots.take_surplus(self.now_s - 3)

    @invariant()
    def never_too_many_and_nobody_waits_in_vain(self) -> None:
        """What holds after every event."""
        idle = [entry.connection for entry in self.slots.idle]
        assert self.slots.taken == len(self.using)
        assert self.slots.taken + len(idle) <= self.slots.max_size
        assert list(self.slots.waiting) == self.queue
        assert not self.queue or (not idle and self.slots.taken == self.slots.max_size)
        assert not set(idle) & set(self.using), "given to two"
        assert len(set(idle)) == len(idle)


TestSlots = SlotsMachine.TestCase

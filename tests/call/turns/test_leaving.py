"""Leaving as four states: the table is printed in docs/, and the first reason counts until it is taken back."""

from __future__ import annotations

from pathlib import Path

from agent.call.turns.leaving import MOVES, Departure, Move, Presence, Why
from agent.core.records import Outcome
from agent.core.state_table import as_markdown

DOCS = Path(__file__).parents[3] / "docs" / "responses.md"
IDLE = Why(Outcome.IDLE, "the agent said goodbye")
OTHER = Why(Outcome.AGENT_HUNG_UP, "the agent ended the call")


def test_the_documents_show_the_table_in_force() -> None:
    assert as_markdown("the call is", MOVES, Move) in DOCS.read_text(encoding="utf-8")


def test_mo_7_only_a_leaving_can_be_taken_back_and_every_call_can_end() -> None:
    assert set(MOVES) == set(Presence)
    assert [at for at, moves in MOVES.items() if Move.CALL_BACK in moves] == [Presence.LEAVING]
    assert [at for at, moves in MOVES.items() if Move.END not in moves] == [Presence.GONE]
    assert MOVES[Presence.GONE] == {}


def test_the_first_reason_counts_until_it_is_taken_back() -> None:
    departure = Departure()
    assert departure.move(Move.LEAVE, IDLE)
    assert not departure.move(Move.LEAVE, OTHER)
    assert departure.why is IDLE
    assert departure.ended is None
    assert departure.move(Move.CALL_BACK)
    assert departure.why is None
    assert not departure.move(Move.CALL_BACK)
    assert departure.move(Move.END, OTHER)
    assert not departure.move(Move.END, IDLE)
    assert departure.ended is OTHER
    assert departure.final

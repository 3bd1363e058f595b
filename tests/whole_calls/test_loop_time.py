"""What one synchronous step may cost the event loop: its work does not grow with the length of the call.

Work is counted in calls of functions, Python's and C's: the same on every machine, under every load.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import attrs
import pytest
import trio
from conversation_driver import Talk
from ended_calls import make_record, rows
from unkind_models import suppose

import agent.store.sql.calls
from agent.core.records import Turn
from agent.store.pg import open_connection
from agent.store.sql.calls import keep_record

TURNS = 600
"""Of each side: about an hour of lively talk."""


def long_talk() -> Talk:
    talk = Talk()
    for number in range(TURNS):
        talk.starts(f"caller {number}")
        talk.commits(f"caller {number}", "I would like to know when you are open on Sunday, please.")
        talk.created(f"resp {number}")
        talk.text(f"resp {number}", "We are open from nine to five on weekdays, and closed on Sundays.")
        talk.audio(f"resp {number}", 40)
        talk.done(f"resp {number}")
        talk.play(60)
    return talk


def calls_made_by(step: Callable[[], Any]) -> int:
    """How many functions are called in one step."""
    made = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(before)
    return made


def test_the_transcript_does_not_make_every_turn_anew() -> None:
    """Asked again, the transcript of a long call costs less than one call of a function for each turn."""
    transcript = long_talk().conversation.transcript
    suppose(len(transcript.turns()) == 2 * TURNS, "all turns are there")
    assert calls_made_by(transcript.turns) < 2 * TURNS


def test_a_reconnection_does_not_encode_every_turn_in_one_step() -> None:
    """The second reconnection of a long call costs less than one call of a function for each turn."""
    conversation = long_talk().conversation
    suppose(len(conversation.replay()) == 2 * TURNS, "all turns are told")
    assert calls_made_by(conversation.replay) < 2 * TURNS


LOOK_UP = """
import sys, phonenumbers
from agent.call.tools import builtin as tool_desk
from agent.core.tenant import Tenant
from datetime import UTC, datetime
from agent.call.tools.declare import ToolCall
from agent.core.units import CallSid
before = set(sys.modules)
region = tool_desk._region_of(ToolCall("c", CallSid("CA1"), Tenant("t", "T"), "+18765551234", datetime.now(UTC)))
print(region, len({name for name in set(sys.modules) - before if name.startswith("phonenumbers.data")}))
"""


@pytest.mark.sockets
def test_the_first_look_up_of_a_country_imports_nothing() -> None:
    """The region of a caller from Jamaica is found without importing a file for each country under +1."""
    done = subprocess.run([sys.executable, "-c", LOOK_UP], capture_output=True, text=True, check=True, timeout=60)
    region, imported = done.stdout.split()
    suppose(region == "JM", "the region is found")
    assert int(imported) == 0


@attrs.define(eq=False)
class RowsInAStep(trio.abc.Instrument):
    """Counts the rows of turns that are made from one step of a task to the next."""

    rows: int = 0
    most: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See trio.abc.Instrument."""
        self.rows = 0

    def made(self) -> None:
        """A row was made."""
        self.rows += 1
        self.most = max(self.most, self.rows)


@pytest.mark.sockets
async def test_keeping_a_long_record_does_not_make_all_rows_in_one_step(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record with a thousand turns no more than a hundred rows are made from one step to the next."""
    steps, make = RowsInAStep(), agent.store.sql.calls._turn_row

    def make_and_count(turn: Turn) -> dict[str, Any]:
        steps.made()
        return make(turn)

    monkeypatch.setattr(agent.store.sql.calls, "_turn_row", make_and_count)
    record = make_record(1, turns=long_talk().conversation.transcript.turns())
    trio.lowlevel.add_instrument(steps)
    async with open_connection(postgres) as connection:
        await keep_record(connection, record)
    trio.lowlevel.remove_instrument(steps)
    suppose(steps.most, "rows are made")
    suppose(rows(postgres, "SELECT count(*) FROM turns") == [(2 * TURNS,)], "the turns are kept")
    assert steps.most <= 100

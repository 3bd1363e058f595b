"""Calls that ended, for tests of what comes after them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import psycopg

from agent.core.records import CallRecord, Outcome, Turn
from agent.core.units import CallSid, StreamSid
from bench.after_calls.ended_calls import METRICS

TURNS = (
    Turn("agent", "item_1", "Hello, how can I help?", "Hello, how can I help?", 0, 1500, 1500, interrupted=False),
    Turn(
        "caller",
        "item_2",
        "My name is Dana Levi, I am from Haifa and I want to book a cleaning.",
        "My name is Dana Levi, I am from Haifa and I want to book a cleaning.",
        2000,
        4000,
        4000,
        interrupted=False,
    ),
    Turn(
        "agent",
        "item_3",
        "I booked it for you. Goodbye.",
        "I booked it for you.",
        7000,
        2500,
        1800,
        interrupted=True,
    ),
)


def sid(number: int) -> CallSid:
    """The SID of a call."""
    return CallSid(f"CA{number:032x}")


def make_record(number: int = 1, **changes: Any) -> CallRecord:
    """The record of a call that ended a moment ago; each number has a caller of its own."""
    ended_at = datetime.now(UTC)
    record = CallRecord(
        call_sid=sid(number),
        stream_sid=StreamSid(f"MZ{number:032x}"),
        direction="inbound",
        caller=f"+1555{number:07d}",
        called="+15550000000",
        answered_at=ended_at - timedelta(seconds=40),
        ended_at=ended_at,
        outcome=Outcome.CALLER_HUNG_UP,
        reason="stop",
        turns=TURNS,
        metrics=METRICS,
    )
    return attrs.evolve(record, **changes)


def rows(conninfo: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database says, asked from outside of everything."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(sql, values).fetchall()


def change(conninfo: str, sql: str, *values: Any) -> None:
    """Change the database from outside of everything."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(sql, values)

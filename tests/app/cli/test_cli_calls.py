"""``call-agent calls`` as a user types it, on a real Postgres."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from demo_calls import ANSWERED, RECORD
from psycopg.rows import TupleRow
from typer.testing import CliRunner

from agent.app.cli.app import app as cli
from agent.core.records import Outcome
from agent.core.tenant import make_tenant
from agent.core.units import CallSid
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import call_answered, keep_record
from agent.store.sql.tenants import put_tenant
from agent.store.sql.values import AnsweredCall

pytestmark = pytest.mark.sockets
ONE, TWO, THREE = CallSid("CA" + "1" * 32), CallSid("CA12" + "2" * 30), CallSid("CA" + "3" * 32)


@pytest.fixture(autouse=True)
def _settings(postgres: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests; a database of our own."""
    for name in os.environ:
        if name.startswith(("AGENT_", "OPENAI_", "TWILIO_", "DATABASE_URL", "DEBUG_TX")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DATABASE_URL", postgres)


def calls(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["calls", *arguments])
    return result.exit_code, result.output


def with_database(postgres: str, work: Callable[[Connection[TupleRow]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_connection(postgres) as connection:
            await work(connection)

    trio.run(run)


@pytest.fixture
def three_calls(postgres: str) -> None:
    """One that is over, one that crashed a day later with a dead step, one that goes on."""
    first = attrs.evolve(RECORD, call_sid=ONE, tenant_id="harbour-dental")
    later = ANSWERED + timedelta(days=1)
    second = attrs.evolve(RECORD, call_sid=TWO, answered_at=later, ended_at=later, outcome=Outcome.ERROR)

    async def keep(connection: Connection[TupleRow]) -> None:
        await put_tenant(connection, make_tenant(name="Harbour Dental", time_zone="Asia/Jerusalem"))
        for record in (first, second):
            await keep_record(connection, record)
        await connection.execute(
            "UPDATE postcall_steps SET state = 'dead', attempts = 12, error = 'HTTP 410', finished_at = now() "
            "WHERE step = 'webhook' AND call_id = (SELECT id FROM calls WHERE call_sid = %s)",
            [TWO],
        )
        await connection.execute("UPDATE calls SET due_at = NULL WHERE call_sid = %s", [TWO])
        answered = AnsweredCall(THREE, "default", "outbound", "+15552223333", "", later + timedelta(hours=1))
        await call_answered(connection, answered)

    with_database(postgres, keep)


def listed(*options: str) -> list[str]:
    """The SIDs of the list."""
    status, text = calls(*options, "--json")
    assert status == 0
    return [call["call_sid"] for call in json.loads(text)]


@pytest.mark.usefixtures("three_calls")
def test_the_list_and_its_filters() -> None:
    """The latest first."""
    status, text = calls()
    assert status == 0
    rows = [line.split() for line in text.splitlines() if "+1555" in line or "withheld" in line]
    assert [row[0] for row in rows] == ["3", "2", "1"]
    assert rows[2][3:] == ["←", "+15550001111", "harbour-dental", "0:14", "agent", "hung", "up", "open"]
    assert rows[1][-2:] == ["error", "dead"]
    assert rows[0][-1] == "active"
    assert listed() == [THREE, TWO, ONE]
    assert listed("--limit", "1") == [THREE]
    assert listed("--tenant", "harbour-dental") == [ONE]
    assert listed("--outcome", "error") == [TWO]
    assert listed("--dead") == [TWO]
    assert listed("--open") == [THREE, ONE]
    assert listed("--open", "--dead") == [THREE, TWO, ONE]
    assert listed("--since", (ANSWERED + timedelta(hours=1)).isoformat()) == [THREE, TWO]
    assert calls("--since", "1m") == (0, "no call is like that\n")


def test_an_empty_database() -> None:
    assert calls() == (0, "there were no calls yet\n")
    assert calls("--json") == (0, "[]\n")


@pytest.mark.usefixtures("three_calls")
@pytest.mark.parametrize("call", ["1", ONE, "CA111"])
def test_one_call_by_number_sid_and_its_beginning(call: str) -> None:
    status, text = calls("show", call)
    assert status == 0
    for part in (
        ONE,
        "+15550001111 called +15552223333",
        "Harbour Dental (harbour-dental)",
        "14:00:00 IST at Asia/Jerusalem",
        "agent hung up: the agent ended the call",
        "Hello, this [not heard: is the assistant.]",
        "When are you open?",
        "transcription",
        "pending",
    ):
        assert part in text
    whole: dict[str, Any] = json.loads(calls("show", call, "--json")[1])
    assert (whole["call_sid"], len(whole["turns"]), len(whole["steps"])) == (ONE, 5, 7)


@pytest.mark.usefixtures("three_calls")
def test_a_dead_step_and_a_call_that_goes_on() -> None:
    assert "12 attempts  HTTP 410" in calls("show", TWO)[1]
    assert "the call goes on" in calls("show", THREE)[1]
    assert "(withheld) was called by +15552223333" in calls("show", THREE)[1]


@pytest.mark.usefixtures("three_calls")
@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["show", "CA9"], 1, "there is no call CA9: call-agent calls lists the latest"),
        (["show", "99999999999999999999"], 1, "there is no call 9999"),
        (["show", ""], 1, "there is no call"),
        (["show", "CA1"], 1, "CA1 may be any of these calls"),
        (["retry", "3"], 1, "call 3 goes on"),
        (["retry", "1", "--step", "lunch"], 2, "there is no step lunch; there are: recording, transcription"),
        (["retry", "1"], 1, "no step of call 1 has failed"),
        (["--tenant", "nobody"], 1, "there is no tenant nobody; there are: default, harbour-dental"),
        (["--outcome", "lunch"], 2, "there is no outcome lunch; there are: agent_hung_up"),
        (["--since", "yesterday"], 2, "--since: 'yesterday' is no time; such are 90m"),
        (["--limit", "0"], 2, "--limit"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], status: int, expected: str) -> None:
    found, text = calls(*arguments)
    assert (found, expected in " ".join(text.split())) == (status, True), text


@pytest.mark.usefixtures("three_calls")
def test_a_beginning_that_fits_more_than_one_lists_them() -> None:
    _, text = calls("show", "CA1")
    assert [line.split()[1] for line in text.splitlines()[1:]] == [TWO, ONE]
    assert all("+15550001111" in line for line in text.splitlines()[1:])


@pytest.mark.usefixtures("three_calls")
def test_work_is_done_again() -> None:
    """What died is pending, the call is due, and workers are woken."""
    status, text = calls("retry", TWO)
    assert (status, text) == (0, "call 2: webhook will be done again by a running serve or worker\n")
    whole = json.loads(calls("show", "2", "--json")[1])
    assert {row["step"]: row["state"] for row in whole["steps"]}["webhook"] == "pending"
    assert whole["postcall"] == "open"


@pytest.mark.usefixtures("three_calls")
def test_a_webhook_is_delivered_once_more(postgres: str) -> None:
    """One step of its own choosing, though it was done."""

    async def finish(connection: Connection[TupleRow]) -> None:
        await connection.execute("UPDATE postcall_steps SET state = 'done', result = '{}', error = NULL")
        await connection.execute("UPDATE calls SET due_at = NULL")

    with_database(postgres, finish)
    assert calls("retry", "1")[0] == 1
    status, text = calls("redeliver", "1")
    assert (status, "webhook will be done again" in text) == (0, True)
    whole = json.loads(calls("show", "1", "--json")[1])
    states = {row["step"]: row["state"] for row in whole["steps"]}
    assert (states.pop("webhook"), set(states.values())) == ("pending", {"done"})

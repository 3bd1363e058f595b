"""The doctor on the database: it looks, says what to do, and makes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from demo_calls import RECORD
from psycopg.rows import TupleRow

from agent.app.cli.doctor.database import examine_database
from agent.app.cli.doctor.findings import Finding
from agent.core.settings import Settings, load_settings
from agent.core.tenant import make_tenant
from agent.store.pg import Connection, open_connection
from agent.store.sql.calls import keep_record
from agent.store.sql.tenants import put_tenant

pytestmark = pytest.mark.sockets
NUMBER = "+15552223333"


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)


def settings(conninfo: str, **more: Any) -> Settings:
    return load_settings(database_url=conninfo, twilio_number=NUMBER, **more)


async def found(conninfo: str, **more: Any) -> dict[str, Finding]:
    findings = await examine_database(settings(conninfo, **more))
    return {finding.subject or "database": finding for finding in findings}


@asynccontextmanager
async def connected(conninfo: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(conninfo) as connection:
        yield connection


async def test_whose_calls_come(postgres: str) -> None:
    finding = (await found(postgres))["tenants"]
    assert finding.state == "todo"
    assert "taken by the default tenant" in finding.detail
    assert f"--number {NUMBER}" in finding.advice
    assert (await found(postgres, unknown_number="refuse"))["tenants"].state == "problem"
    async with connected(postgres) as connection:
        await put_tenant(connection, make_tenant(name="Harbour Dental", numbers=NUMBER))
        finding = (await found(postgres))["tenants"]
        assert (finding.state, finding.detail) == ("ok", "1 numbers of 1 businesses")
        await put_tenant(connection, make_tenant(name="Silent"))
        finding = (await found(postgres))["tenants"]
        assert (finding.state, finding.detail.partition(":")[0]) == ("todo", "silent")


async def test_what_is_left_to_do(postgres: str) -> None:
    assert (await found(postgres))["after the call"].state == "ok"
    async with connected(postgres) as connection:
        await keep_record(connection, RECORD)
        assert (await found(postgres))["after the call"].state == "ok"  # its turn comes
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        await connection.execute("UPDATE calls SET due_at = %s", [long_ago])
        finding = (await found(postgres))["after the call"]
        assert (finding.state, finding.detail.partition(",")[0]) == ("todo", "1 calls wait for a worker")
        assert "call-agent worker" in finding.advice
        await connection.execute("UPDATE calls SET due_at = NULL")
        await connection.execute(
            "UPDATE postcall_steps SET state = 'dead', error = 'x', finished_at = now() WHERE step = 'summary'"
        )
        finding = (await found(postgres))["after the call"]
        assert "given up of 1 calls" in finding.detail
        assert "call-agent calls --dead" in finding.advice
        await connection.execute(
            "UPDATE postcall_steps SET state = 'waiting', models_gone = '{old}', "
            "error = 'set AGENT_SUMMARY_MODEL' WHERE step = 'summary'"
        )
        finding = (await found(postgres))["after the call"]
        assert (finding.state, finding.detail) == ("todo", "1 calls wait: set AGENT_SUMMARY_MODEL")
        assert "call-agent calls --open" in finding.advice


async def test_a_database_that_is_not_as_it_should_be(postgres: str, empty_postgres: str) -> None:
    finding = (await found(empty_postgres))["database"]
    assert (finding.state, "to be applied" in finding.detail) == ("todo", True)
    async with connected(empty_postgres) as connection:
        cursor = await connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert await cursor.fetchone() == (0,)
    async with connected(postgres) as connection:
        await connection.execute("INSERT INTO schema_migrations VALUES (9999, 'of_tomorrow', 'x')")
    finding = (await found(postgres))["database"]
    assert (finding.state, finding.advice) == ("problem", "update call-agent")


@pytest.mark.parametrize("url", ["postgresql://me:very-secret@127.0.0.1:1/calls", "mysql://me:very-secret@db"])
async def test_a_database_that_is_away_is_named_without_its_password(url: str) -> None:
    [finding] = await examine_database(settings(url))
    assert finding.state == "problem"
    assert "DATABASE_URL" in finding.advice
    assert "very-secret" not in repr(attrs.asdict(finding))


async def test_no_database_yet_is_fine_and_none_is_made(tmp_path: Path) -> None:
    [finding] = await examine_database(load_settings(data_dir=tmp_path / "data"))
    assert (finding.state, "serve makes an embedded Postgres" in finding.detail) == ("ok", True)
    assert not await trio.Path(tmp_path / "data").exists()

"""The demo's wait for what comes after its call: each step told as it settles, bounded, on the real database."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from demo_calls import RECORD
from rich.console import Console

from agent.app.demo.after_call import AfterCall, AfterCallError, open_after_call
from agent.app.demo.progress import Progress
from agent.pipeline.webhook.call_completed import event_id
from agent.pipeline.webhook.signature import IDEMPOTENCY_HEADER, SIGNATURE_HEADER, sign
from agent.store.sql.calls import keep_record
from agent.store.sql.tenants import list_tenants

pytestmark = pytest.mark.sockets
SETTLE = (
    "UPDATE postcall_steps SET state = 'done', result = '{}' WHERE step <> 'webhook'",
    "UPDATE postcall_steps SET state = 'dead', error = 'HTTP 410' WHERE step = 'webhook'",
    "UPDATE calls SET due_at = NULL",
)


@asynccontextmanager
async def after_a_call(folder: Path, *, kept: bool = True) -> AsyncIterator[AfterCall]:
    with trio.fail_after(60):
        async with open_after_call(folder / "data", RECORD.called) as after:
            if kept:
                async with after.database.connection() as connection:
                    await keep_record(connection, attrs.evolve(RECORD, tenant_id=after.tenant.id))
            yield after


def silent() -> Progress:
    return Progress(Console(file=io.StringIO(), width=200), None, trio.current_time())


def told(progress: Progress) -> str:
    assert isinstance(progress.console.file, io.StringIO)
    return progress.console.file.getvalue()


async def test_each_step_is_told_as_it_settles(tmp_path: Path) -> None:
    """Then the call is there with everything, and its record as the agent made it."""
    progress = silent()
    async with after_a_call(tmp_path) as after, trio.open_nursery() as nursery:

        async def settle() -> None:
            await trio.sleep(0.4)
            async with after.database.connection() as connection:
                for statement in SETTLE:
                    await connection.execute(statement)

        nursery.start_soon(settle)
        view = await after.follow(RECORD.call_sid, progress)
        assert await after.record(view) == attrs.evolve(RECORD, tenant_id="harbour-dental")
    assert view.line.postcall == "dead"
    assert "after the call: transcription done" in told(progress)
    assert "after the call: webhook dead: HTTP 410" in told(progress)


@pytest.mark.parametrize(
    ("kept", "why"), [(True, "recording is pending, transcription is pending"), (False, "not in the database")]
)
async def test_the_wait_is_bounded_and_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kept: bool, why: str
) -> None:
    monkeypatch.setattr("agent.app.demo.after_call.AFTER_S", 0.3)
    async with after_a_call(tmp_path, kept=kept) as after:
        with pytest.raises(AfterCallError, match=why):
            await after.follow(RECORD.call_sid, silent())


async def test_the_receiver_checks_signatures_and_the_tenant_is_harbour_dental(tmp_path: Path) -> None:
    async with after_a_call(tmp_path, kept=False) as after:
        async with after.database.connection() as connection:
            tenants = {tenant.id: tenant for tenant in await list_tenants(connection)}
        tenant = tenants["harbour-dental"]
        assert tenant == after.tenant
        assert tenant.numbers == (RECORD.called,)
        assert tenant.webhook_url is not None
        assert tenant.webhook_secret is not None
        key, now = event_id(RECORD.call_sid), int(time.time())
        async with httpx.AsyncClient(trust_env=False) as client:
            for secret, status in ((tenant.webhook_secret, 200), ("another secret", 401)):
                headers = {SIGNATURE_HEADER: sign(b"{}", secret, now), IDEMPOTENCY_HEADER: key}
                answer = await client.post(tenant.webhook_url, content=b"{}", headers=headers)
                assert answer.status_code == status
        received = after.received(RECORD.call_sid)
        assert (received.taken, received.unsigned) == (1, 1)

"""``call-agent worker``: killed at any moment, stopped in order, and with a database that goes and comes back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from ended_calls import rows
from fake_services import ALL_DONE, Outside, check_all_once, open_outside, open_worker
from pg_servers import open_server

from agent.core.provider_models import SUMMARY
from agent.store.migrating import migrate
from agent.store.pg import open_connection

pytestmark = pytest.mark.sockets
KILLS = 5


@asynccontextmanager
async def open_process(outside: Outside, data_dir: Path, **settings: str) -> AsyncIterator[trio.Process]:
    """A worker in a process of its own, ready; killed when left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "agent", "worker"],
        env={
            **environment,
            **outside.environment,
            "AGENT_DATA_DIR": str(data_dir),
            "AGENT_LOG_LEVEL": "warning",
            **settings,
        },
        stdout=subprocess.PIPE,
        stderr=None,
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(20):
            said = await process.stdout.receive_some()
        assert said.startswith(b"call-agent works")
        yield process
    finally:
        with trio.move_on_after(5, shield=True):
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def test_pc_4_killed_at_any_moment_every_call_is_completed(postgres: str, tmp_path: Path) -> None:
    """Kill -9, a few times, while calls are worked on; then one worker is let through."""
    chance = random.Random(4)  # noqa: S311 - moments, not secrets
    async with open_outside(postgres) as outside:
        outside.openai.delay_s = 0.05
        records, interrupted = [], 0
        with trio.fail_after(90):
            for number in range(KILLS):
                records += [await outside.end_call(4 * number + more) for more in range(1, 5)]
                async with open_process(outside, tmp_path) as process:
                    await trio.sleep(chance.uniform(0.0, 0.6))
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                interrupted += len(rows(postgres, "SELECT FROM postcall_steps WHERE state = 'running'"))
            async with open_process(outside, tmp_path):
                await outside.until_done(60)
        assert interrupted, "none was killed in the middle of its work"
        check_all_once(outside, [record.call_sid for record in records])


async def test_pc_4_killed_at_any_moment_a_call_whose_model_is_gone_waits_and_is_completed(
    postgres: str, tmp_path: Path
) -> None:
    """Kill -9 while calls come to wait, and again, with the setting mended, while they are taken up."""
    chance = random.Random(7)  # noqa: S311 - moments, not secrets

    def waiting() -> int:
        return len(rows(postgres, "SELECT FROM postcall_steps WHERE state = 'waiting'"))

    async with open_outside(postgres) as outside:
        outside.openai.delay_s = 0.05
        outside.openai.gone.add(SUMMARY)
        records = []
        with trio.fail_after(90):
            for life in range(4):
                mended = {"AGENT_SUMMARY_MODEL": "model-of-tomorrow"} if life % 2 else {}
                records += [await outside.end_call(4 * life + more, recorded=False) for more in range(1, 5)]
                before = waiting()
                async with open_process(outside, tmp_path, **mended) as process:
                    while waiting() == before:  # noqa: ASYNC110 - the process tells nobody
                        await trio.sleep(0.01)
                    await trio.sleep(chance.uniform(0.0, 0.1))
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
            async with open_process(outside, tmp_path, **mended):
                while any(outside.states(record.call_sid) != ALL_DONE for record in records):  # noqa: ASYNC110
                    await trio.sleep(0.05)
                await outside.until_done()
        check_all_once(outside, [record.call_sid for record in records])


async def test_stopped_in_order_it_ends_the_steps_under_way_and_begins_no_other(
    postgres: str, tmp_path: Path
) -> None:
    async with open_outside(postgres) as outside:
        outside.openai.delay_s = 1.0
        record = await outside.end_call(recorded=False)
        async with open_process(outside, tmp_path) as process:
            with trio.fail_after(10):
                while outside.openai.counts["responses"] < 1:  # noqa: ASYNC110 - a simulator tells nobody
                    await trio.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0
        states = outside.states(record.call_sid)
        assert states["summary"] == "done"
        assert states["extraction"] == "pending"
        assert rows(postgres, "SELECT claim, due_at <= now() FROM calls") == [(None, True)], (
            "free for the next one"
        )


async def test_a_claim_that_is_lost_stops_the_work_and_it_is_begun_again(postgres: str, tmp_path: Path) -> None:
    """The server cuts the worker's connections: what it did is not written, and done again under a new claim."""
    cut = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    async with open_outside(postgres) as outside:
        outside.openai.delay_s = 0.3
        records = [await outside.end_call(number) for number in range(1, 9)]
        async with open_worker(outside, tmp_path):
            for _ in range(3):
                await trio.sleep(0.4)
                async with open_connection(postgres) as connection:
                    await connection.execute(cut)
            await outside.until_done(30)
        check_all_once(outside, [record.call_sid for record in records])


async def test_pc_4_the_database_is_restarted_under_it(tmp_path: Path) -> None:
    """Three times, while calls are worked on: the worker waits for it and goes on, and nothing is lost."""
    with open_server() as server:
        async with open_connection(server.conninfo) as connection:
            await migrate(connection)
        async with open_outside(server.conninfo) as outside:
            outside.openai.delay_s = 0.1
            records = [await outside.end_call(number) for number in range(1, 13)]
            async with open_worker(outside, tmp_path):
                for _ in range(3):
                    await trio.sleep(0.5)
                    await trio.to_thread.run_sync(server.kill)
                    await trio.sleep(0.3)
                    await trio.to_thread.run_sync(server.start)
                await outside.until_done(60)
            check_all_once(outside, [record.call_sid for record in records])
            assert all(outside.states(record.call_sid) == ALL_DONE for record in records)

"""Calls that end while the disk of their records is full, with Postgres elsewhere or on the same disk.

The disk is a tmpfs, which only root can mount. It is full before the first call hangs up, and for a while after
the last; on the same disk Postgres is killed meanwhile, and cannot come back before there is room. The server is
never restarted.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import msgspec
import psycopg
import trio

from agent.store.embedded_postgres import open_embedded_postgres
from agent.store.migrating import migrate
from agent.store.pg import open_connection
from bench.after_calls.aftermath import Verdict, judge
from bench.after_calls.burst import free_port
from bench.after_calls.outside import Outside, open_outside
from bench.after_calls.own_postgres import open_postgres
from bench.after_calls.reading import count_rows, read_ledger
from bench.generator.plan import LoadPlan, call_sid
from bench.rig.players import (
    open_callers,
    open_model,
    open_server,
    server_settings,
    until,
    until_ready,
    window_of,
)
from bench.rig.processes import Child, Say, cores, moved_to
from bench.rig.small_disk import SmallDisk, open_small_disk

LONGEST_S: Final = 120.0
"""What is not completed so long after there is room is not waited for."""
_KILOBYTES: Final = {False: 16 * 1024, True: 320 * 1024}
"""A new cluster wants 200 MB free."""
_LOOK_S: Final = 0.25
_FILL_S: Final = 0.05
_WITHIN_S: Final = 1.0


@attrs.frozen(kw_only=True)
class FullDiskPlan:
    """How many calls end on a full disk, and how long it is full after that."""

    calls: int = 20
    full_s: float = 60.0
    same_disk: bool = False
    """Postgres is the embedded one, in the same data directory."""
    talk_s: float = 4.0
    every_s: float = 5.0
    """Each caller speaks so often."""
    recorded: bool = True
    """By the carrier: a recording waits for room, too, and for half a minute if Postgres was not told of it."""

    @property
    def load(self) -> LoadPlan:
        """The calls: one more than those that are measured goes on."""
        return LoadPlan(
            calls=self.calls + 1,
            every_s=self.every_s,
            leaving=self.calls,
            leaving_at_s=self.talk_s,
            leaving_within_s=_WITHIN_S,
            seconds=self.talk_s + _WITHIN_S + self.full_s + 2.0,
        )


@attrs.frozen(kw_only=True)
class FullDiskFigures:
    """What became of the calls."""

    plan: FullDiskPlan
    records: int
    """In Postgres."""
    completed: int
    """Calls with all their post-call work done."""
    verdict: Verdict
    completed_s: float
    """The last of them, from the moment there was room; before it, it is negative."""
    held: int
    """The most records that were in the server's memory."""
    is_alive: bool
    """The server is the process it was."""

    @property
    def met(self) -> bool:
        """Whether every call was completed, once, by the same server."""
        whole = self.records == self.completed == self.plan.calls
        return whole and self.is_alive and not self.verdict.lost and not self.verdict.duplicated


async def run_full_disk(plan: FullDiskPlan, folder: Path, say: Say) -> FullDiskFigures:
    """Run it. Raises BenchError when a process fails or nothing can be mounted, DatabaseError."""
    agent_core, other_core = cores() or (None, None)
    data, port = folder / "data", free_port()
    with moved_to(other_core), open_small_disk(data, _KILOBYTES[plan.same_disk]) as disk:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            starting = AsyncExitStack()
            if plan.same_disk:
                conninfo = await starting.enter_async_context(_embedded(data))
            else:
                conninfo = await (await enter(open_postgres(other_core))).make_database("disk")
            outside = await enter(open_outside(conninfo, folder, other_core, delay_ms=50))
            model, model_url = await enter(open_model(plan.load, folder, other_core))
            settings = {
                **server_settings(plan.load, model_url, data),
                **outside.settings,
                "AGENT_PUBLIC_URL": f"http://127.0.0.1:{port}",
                "AGENT_LAST_RESORT_DIR": str(folder / "elsewhere"),
                "AGENT_WORKER": "1",
                "AGENT_RECORD": str(int(plan.recorded)),
            }
            if plan.same_disk:
                del settings["DATABASE_URL"]
            agent = await enter(open_server(folder, agent_core, settings, port))
            base = await until_ready(agent)
            await starting.aclose()  # the embedded server is the agent's alone from now on
            figures = await _measure(plan, folder, say, outside=outside, agent=agent, base=base, disk=disk)
            await agent.stop()
            await model.stop()
    return figures


async def _measure(
    plan: FullDiskPlan, folder: Path, say: Say, *, outside: Outside, agent: Child, base: str, disk: SmallDisk
) -> FullDiskFigures:
    leaving = [call_sid(call) for call in range(plan.calls)]
    async with open_callers(plan.load, base, folder / "carrier.json", None) as callers:
        window = await window_of(callers)
        await until(window.begin_s + plan.talk_s - 1.5)
        async with trio.open_nursery() as filling:
            filling.start_soon(_keep_full, disk)
            say(f"the disk is full; {plan.calls} calls end")
            await until(window.begin_s + plan.talk_s + _WITHIN_S + 1.0)
            await outside.tell_ended(leaving)
            if plan.same_disk:
                say("Postgres is killed")
                _kill_postgres(disk.path)
            await until(window.begin_s + plan.talk_s + _WITHIN_S + plan.full_s)
            filling.cancel_scope.cancel(reason="there is to be room")
        held, freed_at_s = _held(agent.log), time.time()
        disk.free()
        say(f"there is room again; at most {held} records were held in memory")
        await callers.until_done()
        await outside.tell_ended([call_sid(plan.calls)])
    with trio.move_on_after(LONGEST_S):
        while await _completed(outside) < plan.calls + 1:  # noqa: ASYNC110 - asked from outside
            await trio.sleep(_LOOK_S)
    ledger = await read_ledger(outside)
    finished_at_s = [call.finished_at_s for call in ledger.calls if call.call_sid in leaving]
    return FullDiskFigures(
        plan=plan,
        records=sum(call.has_record for call in ledger.calls if call.call_sid in leaving),
        completed=sum(set(call.steps.values()) == {"done"} for call in ledger.calls if call.call_sid in leaving),
        verdict=judge(dict.fromkeys([*leaving, call_sid(plan.calls)], 0), ledger),
        completed_s=max((each or float("nan") for each in finished_at_s), default=float("nan")) - freed_at_s,
        held=held,
        is_alive=agent.process.returncode is None,
    )


async def _keep_full(disk: SmallDisk) -> None:
    """What Postgres gives back of its logs is no room for records."""
    while True:
        disk.fill()
        await trio.sleep(_FILL_S)


def _held(log: Path) -> int:
    """The most records that the server held in memory, as it said."""
    said = [line for line in log.read_text(errors="replace").splitlines() if '"RECORD_HELD"' in line]
    return max((msgspec.json.decode(line)["held"] for line in said), default=0)


async def _completed(outside: Outside) -> int:
    """How many calls are; none while Postgres is away."""
    with suppress(psycopg.OperationalError):
        return await count_rows(outside.conninfo, "postcall_steps WHERE step = 'webhook' AND state = 'done'")
    return 0


@asynccontextmanager
async def _embedded(data: Path) -> AsyncIterator[str]:
    """The embedded Postgres in ``data``, made and migrated; others may share it."""
    async with open_embedded_postgres(data) as conninfo:
        async with open_connection(conninfo) as connection:
            await migrate(connection)
        yield conninfo


def _kill_postgres(data: Path) -> None:
    os.kill(int((data / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

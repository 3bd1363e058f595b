"""Many calls that end in the same second, and one worker for all of them, beside calls that go on.

The server is on a core of its own; on the other are the worker, Postgres, and all the simulators. Every call was
recorded by the carrier: a worker downloads each recording and has both channels transcribed.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Final

import attrs
import trio

from bench.after_calls.aftermath import BurstFigures, burst_figures
from bench.after_calls.outside import Outside, open_outside
from bench.after_calls.own_postgres import open_postgres
from bench.after_calls.reading import count_rows, read_ledger
from bench.generator.observations import CarrierReport
from bench.generator.plan import LoadPlan, call_sid
from bench.rig.players import (
    open_callers,
    open_model,
    open_server,
    read_report,
    server_settings,
    until,
    until_ready,
    window_of,
)
from bench.rig.processes import Child, Say, cores, moved_to

BURST: Final = LoadPlan(calls=70, leaving=50, leaving_within_s=1.0, seconds=25.0)
DELAY_MS: Final = 200
"""Of the model API."""
LONGEST_S: Final = 60.0
"""What is not completed then is not waited for."""
_LOOK_S: Final = 0.25


async def run_burst(plan: LoadPlan, folder: Path, say: Say, *, delay_ms: int = DELAY_MS) -> BurstFigures:
    """Run it. Raises BenchError when a process fails, DatabaseError; a cancel kills all of them."""
    agent_core, other_core = cores() or (None, None)
    with moved_to(other_core):
        async with (
            open_postgres(other_core) as postgres,
            open_outside(await postgres.make_database("burst"), folder, other_core, delay_ms=delay_ms) as outside,
            open_model(plan, folder, other_core) as (model, model_url),
        ):
            port = free_port()
            settings = {
                **server_settings(plan, model_url, folder / "data"),
                **outside.settings,
                "AGENT_PUBLIC_URL": f"http://127.0.0.1:{port}",
            }
            async with (
                open_server(folder, agent_core, settings, port) as agent,
                outside.open_worker(folder / "data", other_core) as worker,
            ):
                figures = await _measure(plan, folder, say, outside=outside, agent=agent, core=other_core)
                await worker.stop()
                await agent.stop()
            await model.stop()
    return figures


async def _measure(
    plan: LoadPlan, folder: Path, say: Say, *, outside: Outside, agent: Child, core: int | None
) -> BurstFigures:
    base = await until_ready(agent)
    say(f"{plan.calls} callers begin; {plan.leaving} of them will hang up in the same second")
    async with open_callers(plan, base, folder / "carrier.json", core) as callers:
        window = await window_of(callers)
        await until(window.begin_s + plan.leaving_at_s + plan.leaving_within_s)
        leaving = [call_sid(call) for call in range(plan.leaving)]
        await outside.tell_ended(leaving)
        say(f"{plan.leaving} hung up; one worker begins")
        with trio.move_on_after(LONGEST_S):
            done = 0
            while done < plan.leaving:
                await trio.sleep(_LOOK_S)
                done = await count_rows(
                    outside.conninfo, "postcall_steps WHERE step = 'webhook' AND state = 'done'"
                )
            say(f"all completed after {time.monotonic() - window.begin_s:.1f} s; the others still talk")
        # The others' calls, which end now, are not what is measured.
        ledger, asked = await read_ledger(outside), await outside.asked()
        if time.monotonic() > window.end_s:
            say("the others ended before all was completed, and are worked on too: give them more seconds")
            ledger = attrs.evolve(ledger, calls=tuple(call for call in ledger.calls if call.call_sid in leaving))
        await until(window.end_s)
        await callers.until_done()
    return burst_figures(
        read_report(folder / "carrier.json", CarrierReport),
        ledger,
        dict.fromkeys(leaving, 0),
        monotonic_to_unix_s=time.time() - time.monotonic(),
        asked=sum(asked.values()),
    )


def free_port() -> int:
    """A port for a server whose public URL has to be known before it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

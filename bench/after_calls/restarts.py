"""Postgres is restarted again and again during calls: as they begin, while they talk, and as all hang up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from agent.store.spool import decode_record
from bench.after_calls.aftermath import RestartFigures, restart_figures
from bench.after_calls.outside import Outside, open_outside
from bench.after_calls.own_postgres import OwnPostgres, StopMode, open_postgres
from bench.after_calls.reading import count_rows, read_ledger
from bench.generator.observations import CarrierReport
from bench.generator.plan import LoadPlan
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
from bench.rig.processes import Say, cores, moved_to

AWAY_S: Final = 0.5
"""How long the server is away each time, besides what its stopping and starting take."""
FIRST_S: Final = 1.0
"""The first restart, after the first calls have begun; the others still do."""
KEPT_S: Final = 60.0
"""How long the records may take to get into the database after the last restart."""
_MODES: Final[tuple[StopMode, StopMode]] = ("immediate", "fast")
_BAD: Final = ("error", "critical")
_LOOK_S: Final = 0.2


@attrs.frozen(kw_only=True)
class RestartPlan:
    """Of the ``restarts`` the first comes while calls begin, the last while all hang up."""

    calls: int = 50
    restarts: int = 10
    seconds: float = 30.0

    @property
    def load(self) -> LoadPlan:
        """The calls."""
        return LoadPlan(calls=self.calls, seconds=self.seconds)


async def run_restarts(plan: RestartPlan, folder: Path, say: Say) -> RestartFigures:
    """Run it. Raises BenchError when a process fails, DatabaseError; a cancel kills all of them."""
    agent_core, other_core = cores() or (None, None)
    with moved_to(other_core):
        async with (
            open_postgres(other_core) as postgres,
            open_outside(await postgres.make_database("restarts"), folder, other_core, delay_ms=200) as outside,
            open_model(plan.load, folder, other_core) as (model, model_url),
        ):
            settings = {**server_settings(plan.load, model_url, folder / "data"), **outside.settings}
            async with open_server(folder, agent_core, settings) as agent:
                base = await until_ready(agent)
                async with open_callers(plan.load, base, folder / "carrier.json", other_core) as callers:
                    began_s = time.monotonic()
                    window = await window_of(callers)
                    away_s = await _restart_all(plan, postgres, began_s, window.end_s, say)
                    await callers.until_done()
                await _until_kept(outside, plan.calls)
                ledger = await read_ledger(outside)
                await agent.stop()
            await model.stop()
    records = [decode_record(path.read_bytes()) for path in (folder / "data").glob("calls/*.json")]
    return restart_figures(
        read_report(folder / "carrier.json", CarrierReport),
        ledger,
        {record.call_sid: len(record.turns) for record in records},
        list(_errors(folder / "agent.log")),
        restarts=plan.restarts,
        away_s=away_s,
    )


async def _restart_all(plan: RestartPlan, postgres: OwnPostgres, began_s: float, end_s: float, say: Say) -> float:
    """Restart at even distances; the last time it is away as all hang up. How long it was away, altogether."""
    first_s, last_s = began_s + FIRST_S, end_s - AWAY_S / 2
    away_s = 0.0
    for number in range(plan.restarts):
        await until(first_s + (last_s - first_s) * number / max(plan.restarts - 1, 1))
        mode = _MODES[number % len(_MODES)]
        say(f"restart {number + 1} of {plan.restarts} ({mode})")
        gone_s = time.monotonic()
        await postgres.stop(mode)
        await trio.sleep(AWAY_S)
        await postgres.start()
        away_s += time.monotonic() - gone_s
    return away_s


async def _until_kept(outside: Outside, calls: int) -> None:
    """Wait until all records are in the database; what is not after KEPT_S will show as lost."""
    with trio.move_on_after(KEPT_S):
        while await count_rows(outside.conninfo, "calls WHERE record IS NOT NULL") < calls:  # noqa: ASYNC110
            await trio.sleep(_LOOK_S)


def _errors(log: Path) -> Iterator[str]:
    """What the server logged as an error, or said besides its log."""
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = msgspec.json.decode(line, type=dict[str, object])
        except msgspec.DecodeError:
            yield line
            continue
        if entry.get("level") in _BAD:
            yield line

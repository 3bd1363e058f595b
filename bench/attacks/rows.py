"""What the attacks must not do, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from bench.attacks.beside import Beside, measure, open_rig
from bench.attacks.stranger import Attack
from bench.reporting.table import Row
from bench.rig.processes import Say, cores, moved_to

GAP_MS: Final = 60.0
RSS_MB: Final = 20.0
ANSWERED_MS: Final = 500.0
_MB: Final = 1 << 20
_P99: Final = 0.99


def run_attacks(chosen: Sequence[Attack], folder: Path, say: Say) -> list[Row]:
    """One after the other, against one server and beside one call. Raises BenchError."""
    server_core, load_core = cores() or (None, None)
    with moved_to(load_core):
        return trio.run(_run, chosen, folder, say, server_core, load_core)


async def _run(
    chosen: Sequence[Attack], folder: Path, say: Say, server_core: int | None, load_core: int | None
) -> list[Row]:
    rows: list[Row] = []
    async with open_rig(folder, server_core, load_core) as rig:
        for attack in chosen:
            found = await measure(rig, attack)
            say(f"{attack}: {found.strangers}")
            rows += attack_rows(found)
    return rows


def attack_rows(found: Beside) -> list[Row]:
    """Gap, memory and webhooks beside one attack."""
    what = f"{found.attack}, {found.connections} connection{'' if found.connections == 1 else 's'}"
    grown_mb = (found.rss_after - found.rss_before) / _MB
    count = len(found.answered_ms)
    p99_ms = found.answered_ms[min(int(count * _P99), count - 1)] if count else float("inf")
    return [
        Row(
            f"{what}: largest gap of a live call",
            f"< {GAP_MS:.0f} ms, no hole",
            f"{found.gap_ms:.0f} ms, {found.underruns} holes",
            found.gap_ms < GAP_MS and not found.underruns,
        ),
        Row(
            f"{what}: memory of the server after it, against before",
            f"<= {RSS_MB:.0f} MB",
            f"{grown_mb:+.1f} MB of {found.rss_before / _MB:.0f}",
            grown_mb <= RSS_MB,
        ),
        Row(
            f"{what}: signed webhooks answered meanwhile",
            f"all, < {ANSWERED_MS:.0f} ms p99",
            f"{count} of {count + found.unanswered}, {p99_ms:.0f} ms; {found.connected} connected",
            not found.unanswered and p99_ms < ANSWERED_MS,
        ),
    ]

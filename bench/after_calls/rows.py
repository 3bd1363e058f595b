"""The rows of what is done with a database: after calls, and while they go on. Pure."""

from __future__ import annotations

from typing import Final

from bench.after_calls.aftermath import BurstFigures, KillFigures, RestartFigures, few
from bench.after_calls.full_disk import FullDiskFigures
from bench.parts import keeping, pg_queries
from bench.parts.keeping import KeepingFigures
from bench.parts.pg_queries import QueryFigures
from bench.reporting.figures import MAX_GAP_MS
from bench.reporting.table import Row

BURST_S: Final = 20.0


def burst_rows(seen: BurstFigures) -> list[Row]:
    """The rows of calls that ended in the same second."""
    return [
        Row(
            f"{seen.calls} calls end in the same second, one worker: all steps done, webhook taken",
            f"{seen.calls}, all < {BURST_S:.0f} s",
            f"{seen.calls} in {seen.completed_s:.1f} s, half of them in {seen.half_s:.1f} s; "
            f"{seen.asked} requests; problems: {few(seen.problems)}",
            seen.completed_s < BURST_S and not seen.problems,
        ),
        Row(
            f"meanwhile: longest gap in the audio of {seen.others} other calls on that server",
            f"< {MAX_GAP_MS:.0f} ms",
            f"{seen.max_gap_ms:.1f} ms",
            seen.max_gap_ms < MAX_GAP_MS,
        ),
    ]


def kills_row(seen: KillFigures) -> Row:
    """The row of the workers that were killed."""
    verdict = seen.verdict
    return Row(
        f"kill -9 of the worker, {seen.kills} times, while {seen.calls} calls end",
        "0 lost, 0 duplicated",
        f"lost: {few(verdict.lost)}, duplicated: {few(verdict.duplicated)}; {seen.in_a_step} kills hit a step, "
        f"{verdict.redelivered} webhooks came again under their one key (seed {seen.seed}, "
        f"{seen.seconds:.0f} s)",
        not verdict.lost and not verdict.duplicated,
    )


def restart_rows(seen: RestartFigures) -> list[Row]:
    """The rows of the database that was restarted."""
    what = f"Postgres restarted {seen.restarts} times during {seen.calls} calls"
    return [
        Row(
            f"{what}: calls harmed",
            f"0, gaps < {MAX_GAP_MS:.0f} ms",
            f"{few(seen.harmed)}, longest gap {seen.max_gap_ms:.1f} ms; it was away for {seen.away_s:.1f} s",
            not seen.harmed and seen.max_gap_ms < MAX_GAP_MS,
        ),
        Row(
            f"{what}: records lost",
            "0, with all turns",
            f"{few(seen.lost)}; {seen.turns} turns are in the database",
            not seen.lost,
        ),
    ]


def full_disk_row(seen: FullDiskFigures) -> Row:
    """The row of calls that ended on a full disk."""
    plan, verdict = seen.plan, seen.verdict
    where = "with the embedded Postgres on it, killed meanwhile" if plan.same_disk else "Postgres elsewhere"
    when = f"{abs(seen.completed_s):.1f} s {'before' if seen.completed_s < 0 else 'after'} there was room"
    return Row(
        f"records' disk full at {plan.calls} hang-ups, {where}, freed after {plan.full_s:.0f} s",
        f"{plan.calls} records, {plan.calls} post-call runs, 0 twice, no restart",
        f"{seen.records} records, {seen.completed} post-call runs, the last {when}; lost: {few(verdict.lost)}, "
        f"twice: {few(verdict.duplicated)}; at most {seen.held} held in memory; "
        f"{'no restart' if seen.is_alive else 'the server ended'}",
        seen.met,
    )


def keeping_row(seen: KeepingFigures) -> Row:
    """The row of what a turn costs that is kept."""
    return Row(
        "call row and turn saving: added event-loop time per turn",
        f"< {keeping.MUST_MS:.0f} ms",
        f"{seen.turn_us / 1000:.2f} ms, {seen.enqueue_us:.1f} us of it in the call; at most "
        f"{seen.longest_us / 1000:.2f} ms in one go (p99)",
        seen.met,
    )


def queries_row(seen: QueryFigures) -> Row:
    """The row of the Trio connection."""
    return Row(
        "query through the Trio connection against psycopg's asyncio connection",
        f"<= {pg_queries.MUST} x",
        f"{seen.ratio:.2f} x ({seen.trio_us:.0f} against {seen.asyncio_us:.0f} us)",
        seen.ratio <= pg_queries.MUST,
    )

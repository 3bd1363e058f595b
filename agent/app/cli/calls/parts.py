"""The parts of a call's view: recording, lead, appointments, deliveries, steps. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from agent.app.cli.grids import facts_table, grid
from agent.app.cli.terminal_text import length, moment, shown
from agent.core.tenant_fields import zone_of
from agent.store.sql.values import AppointmentRow, DeliveryRow, LeadRow, RecordingRow, StepRow

STYLES: Final = {
    "active": "cyan",
    "open": "yellow",
    "waiting": "bold yellow",
    "done": "green",
    "dead": "bold red",
    "pending": "dim",
    "running": "cyan",
    "failed": "yellow",
}
"""Of the states of calls and steps."""
_MEGABYTE: Final = 1_000_000


def tell_steps(steps: Sequence[StepRow], now: datetime) -> RenderableType:
    """Each post-call step: its state, attempts, next try, and why it failed or what it found."""
    table = grid(Column(no_wrap=True), Column(no_wrap=True), Column(style="dim", no_wrap=True))
    for row in steps:
        attempts = f"{row.attempts} attempt{'' if row.attempts == 1 else 's'}" if row.attempts else ""
        table.add_row(row.step, Text(row.state, STYLES[row.state]), attempts, _step_words(row, now))
    return table


def section(title: str, body: RenderableType) -> RenderableType:
    """A part under its title."""
    return Group(Text(title, "bold"), body)


def named(pairs: Iterable[tuple[str, Any]]) -> Table:
    """A row for each pair that has a value."""
    table = facts_table()
    for name, value in pairs:
        if value not in (None, ""):
            table.add_row(words(name), Text(shown(str(value))))
    return table


def tell_recording(row: RecordingRow) -> RenderableType:
    """What became of the recording."""
    told = "" if row.duration_s is None else f", {length(row.duration_s)}"
    channels = {None: "", 1: ", mono", 2: ", caller and agent on a channel each"}.get(row.channels, "")
    pairs: list[tuple[str, Any]] = [("state", f"{words(row.status)}{told}{channels}")]
    if row.path:
        pairs.append(("file", f"{row.path} ({_size(row.size_bytes or 0)})"))
        pairs.append(("sha256", row.sha256))
    elif row.url:
        pairs.append(("at the carrier", row.url))
    if row.deleted_at:
        pairs.append(("deleted", "at the carrier"))
    return named(pairs)


def tell_lead(row: LeadRow) -> RenderableType:
    """What is known of the caller."""
    return named(
        (
            ("phone", row.phone),
            ("name", row.name),
            ("city", row.city),
            ("service", row.service),
            ("status", row.status),
            ("note", row.note),
        )
    )


def tell_appointments(rows: Sequence[AppointmentRow], time_zone: str, zone: tzinfo | None) -> RenderableType:
    """What was agreed on."""
    lines: list[RenderableType] = []
    for row in rows:
        what = ", ".join(part for part in (row.name, row.phone, row.service, row.note) if part)
        lines += [when(row.starts_at, time_zone, zone), Padding(Text(shown(what)), (0, 0, 0, 2))]
    return Group(*lines)


def tell_deliveries(rows: Sequence[DeliveryRow], zone: tzinfo | None) -> RenderableType:
    """Each try to deliver the webhook."""
    table = grid(Column(style="dim", no_wrap=True, justify="right"), Column(no_wrap=True))
    for row in rows:
        answer = f"HTTP {row.http_status}" if row.http_status is not None else "no answer"
        good = row.http_status is not None and row.http_status // 100 == 2  # noqa: PLR2004  (HTTP's class of success)
        said = Text.assemble((answer, "green" if good else "yellow"), f" in {row.duration_ms} ms")
        if row.error and not good:
            said.append(f": {shown(row.error)}")
        table.add_row(f"{row.attempt}", moment(row.at, zone), said.append(f"  {shown(row.url)}", "dim"))
    return Group(table, Text(f"Idempotency-Key: {shown(rows[-1].idempotency_key)}", "dim"))


def _step_words(row: StepRow, now: datetime) -> Text:
    words = []
    if row.state == "done" and (skipped := (row.result or {}).get("skipped")):
        words.append(f"nothing to do: {skipped}")
    if row.state == "done" and (segments := (row.result or {}).get("segments")):
        words.append(f"{len(segments)} utterances, by {(row.result or {}).get('model', '')}")
    if row.state == "running" and row.claimed_by:
        words.append(f"by {row.claimed_by}")
    if row.state in ("failed", "pending") and row.next_try_at is not None:
        words.append(f"next try {_until(row.next_try_at - now)}")
    if row.error and row.state != "done":
        words.append(row.error)
    return Text(shown("; ".join(words)), "dim" if row.state == "done" else "")


def when(at: datetime, time_zone: str, zone: tzinfo | None) -> Text:
    """In the reader's zone, and on the tenant's clock if it shows another time."""
    ours, theirs = at.astimezone(zone), at.astimezone(zone_of(time_zone))
    text = Text(moment(at, zone))
    if ours.utcoffset() != theirs.utcoffset():
        text.append(f" ({moment(at, zone_of(time_zone))} at {time_zone})", "dim")
    return text


def words(name: str) -> str:
    """A name of the code as people write it."""
    return name.replace("_", " ")


def _until(rest: timedelta) -> str:
    return f"in {length(seconds(rest))}" if rest > timedelta() else "now"


def seconds(span: timedelta) -> float:
    """A span in seconds, none before zero."""
    return round(max(span, timedelta()).total_seconds(), 3)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= _MEGABYTE else f"{size_bytes / 1e3:.0f} kB"

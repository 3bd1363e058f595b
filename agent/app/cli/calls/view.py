"""Calls for people to read, and for scripts: the list, and everything about one. Pure.

Moments are shown in the reader's zone, and in the tenant's too where clocks differ.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import attrs
from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from agent.app.cli.calls.parts import (
    STYLES,
    named,
    seconds,
    section,
    tell_appointments,
    tell_deliveries,
    tell_lead,
    tell_recording,
    tell_steps,
    when,
    words,
)
from agent.app.cli.calls.transcript_view import tell_transcript
from agent.app.cli.grids import facts_table
from agent.app.cli.terminal_text import length, shown
from agent.store.sql.values import CallLine, CallView

_PARTICULARS: Final = ("name", "city", "service", "intent", "lead_status", "follow_up")


def tell_list(calls: Sequence[CallLine], zone: tzinfo | None = None) -> RenderableType:
    """A row for each call, as given; moments in ``zone`` (None: the local one)."""
    table = Table(
        Column(justify="right", no_wrap=True, style="dim"),
        Column("answered", no_wrap=True),
        Column("who", no_wrap=True),
        Column("tenant", overflow="fold"),
        Column("length", justify="right", no_wrap=True),
        Column("outcome", overflow="fold"),
        Column("after the call", no_wrap=True),
        box=SIMPLE,
        header_style="dim",
        pad_edge=False,
    )
    for call in calls:
        arrow = "\N{LEFTWARDS ARROW}" if call.direction == "inbound" else "\N{RIGHTWARDS ARROW}"
        table.add_row(
            str(call.id),
            f"{call.answered_at.astimezone(zone):%Y-%m-%d %H:%M}",
            Text(f"{arrow} {shown(other_party(call))}"),
            call.tenant_id,
            _length(call),
            words(call.outcome or "going on"),
            Text(call.postcall, STYLES[call.postcall]),
        )
    return table


def tell_call(view: CallView, now: datetime, zone: tzinfo | None = None) -> RenderableType:
    """Everything about one call; ``now`` is what next tries are counted from."""
    parts: list[RenderableType] = [_title(view), _facts(view, zone)]
    if view.turns:
        parts.append(tell_transcript(view.turns))
    parts += _sections(view, zone)
    if view.steps:
        parts.append(section("After the call", tell_steps(view.steps, now)))
    return Group(*[part for whole in parts for part in (whole, "")][:-1])


def other_party(call: CallLine) -> str:
    """The number at the other end: who called, or who was called."""
    return (call.caller if call.direction == "inbound" else call.called) or "(withheld)"


def line_as_json(call: CallLine) -> dict[str, Any]:
    """A call of the list, for scripts; moments are ISO 8601 in UTC."""
    return {
        **_plain(call),
        "length_s": None if call.ended_at is None else seconds(call.ended_at - call.answered_at),
    }


def call_as_json(view: CallView) -> dict[str, Any]:
    """Everything about one call, for scripts."""
    whole = _plain(view)
    return {**line_as_json(view.line), **{name: value for name, value in whole.items() if name != "line"}}


def _title(view: CallView) -> Text:
    return Text.assemble(("Call ", "bold"), (f"{view.line.id}", "bold"), f"  {shown(view.line.call_sid)}")


def _facts(view: CallView, zone: tzinfo | None) -> RenderableType:
    line = view.line
    table = facts_table()
    verb = "called" if line.direction == "inbound" else "was called by"
    table.add_row("who", Text(f"{shown(other_party(line))} {verb} {shown(_our_number(line) or '(no number)')}"))
    table.add_row("tenant", Text(f"{shown(view.tenant_name)} ({line.tenant_id})"))
    table.add_row("answered", when(line.answered_at, view.time_zone, zone))
    table.add_row("length", _length(line))
    why = f": {view.reason}" if view.reason else ""
    table.add_row("outcome", Text(shown(f"{words(line.outcome)}{why}") if line.outcome else "the call goes on"))
    if view.dtmf:
        table.add_row("keys pressed", Text(shown(view.dtmf)))
    if view.metrics:
        table.add_row("sound", _metrics(view.metrics))
    return table


def _sections(view: CallView, zone: tzinfo | None) -> Iterator[RenderableType]:
    """What the post-call work found, each part only if there is something to say."""
    if view.recording is not None:
        yield section("Recording", tell_recording(view.recording))
    summary = view.result("summary").get("text")
    if summary:
        yield section("Summary", Text(shown(str(summary))))
    found = view.result("extraction")
    if any(found.get(name) for name in _PARTICULARS):
        yield section("Found out", named((name, found.get(name)) for name in _PARTICULARS))
    if view.lead is not None:
        yield section("Lead", tell_lead(view.lead))
    if view.appointments:
        yield section("Appointments", tell_appointments(view.appointments, view.time_zone, zone))
    if view.deliveries:
        yield section("Webhook", tell_deliveries(view.deliveries, zone))


def _metrics(metrics: dict[str, Any]) -> Text:
    parts = [f"{metrics.get('barge_in_events', 0)} barge-ins"]
    for name, unit in (("first_audio_ms", "ms to the first word"), ("max_gap_ms", "ms longest gap")):
        if metrics.get(name) is not None:
            parts.append(f"{metrics[name]:.0f} {unit}")
    return Text(", ".join(parts))


def _our_number(call: CallLine) -> str:
    return call.called if call.direction == "inbound" else call.caller


def _length(call: CallLine) -> str:
    return "" if call.ended_at is None else length(seconds(call.ended_at - call.answered_at))


def _plain(row: CallLine | CallView) -> dict[str, Any]:
    return attrs.asdict(row, value_serializer=lambda *of: _moment(of[-1]))


def _moment(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value

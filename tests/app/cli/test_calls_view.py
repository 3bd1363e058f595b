"""A call as people see it, and as scripts get it."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import attrs
from demo_calls import turn
from rich.console import Console, RenderableType

from agent.app.cli.calls.view import call_as_json, line_as_json, tell_call, tell_list
from agent.core.steps import STEPS
from agent.store.sql.values import (
    AppointmentRow,
    CallLine,
    CallView,
    DeliveryRow,
    LeadRow,
    RecordingRow,
    StepRow,
)

PERSON = "Anna Miller, +15550001111"
NOW = datetime(2026, 3, 1, 10, 5, tzinfo=UTC)
ANSWERED = NOW - timedelta(minutes=5)
LINE = CallLine(
    id=17,
    call_sid="CA" + "5f" * 16,
    tenant_id="harbour-dental",
    direction="inbound",
    caller="+15550001111",
    called="+15552223333",
    answered_at=ANSWERED,
    ended_at=ANSWERED + timedelta(seconds=75),
    outcome="caller_hung_up",
    postcall="open",
)


def step(name: str, state: str, **more: Any) -> StepRow:
    blank: dict[str, Any] = dict.fromkeys(attrs.fields_dict(StepRow))
    return StepRow(**{**blank, "step": name, "state": state, "attempts": 0, **more})


RESULTS: dict[str, dict[str, object]] = {
    "summary": {"text": "Anna wants a [bold]cleaning[/bold]."},
    "extraction": {"name": "Anna Miller", "city": "Boston", "service": "cleaning", "intent": "", "follow_up": ""},
    "lead": {"skipped": "the caller's number is withheld"},
}
VIEW = CallView(
    line=LINE,
    tenant_name="מרפאת שיניים",
    time_zone="Asia/Jerusalem",
    reason="the caller hung up",
    dtmf="12#",
    metrics={"barge_in_events": 2, "first_audio_ms": 80, "max_gap_ms": 38.4},
    turns=(turn("agent", "Hello, this is the assistant.", 80, heard="Hello, this"), turn("caller", "שלום", 1300)),
    recording=RecordingRow(
        "RE1", "completed", "https://api.twilio.com/RE1", 75, 2, "/data/RE1.wav", "ab" * 32, 2_400_000, NOW
    ),
    steps=(
        *(step(name, "done", attempts=1, result=RESULTS.get(name, {"ok": True})) for name in STEPS[:5]),
        step("status", "dead", attempts=12, error="nonsense for an answer"),
        step("webhook", "failed", attempts=3, error="HTTP 500", next_try_at=NOW + timedelta(seconds=247)),
    ),
    lead=LeadRow(4, "harbour-dental", "+15550001111", "Anna Miller", "Boston", None, "qualified", None, NOW, NOW),
    appointments=(AppointmentRow(1, NOW + timedelta(days=1), "cleaning", "Anna Miller", "+15550001111", ""),),
    deliveries=(
        DeliveryRow(1, "call.completed-CA1", "https://example.com/calls", NOW, None, "timed out", 10_000),
        DeliveryRow(2, "call.completed-CA1", "https://example.com/calls", NOW, 200, None, 31),
    ),
)


def rendered(what: RenderableType, width: int = 160) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(what)
    return file.getvalue()


def lines(what: RenderableType) -> list[str]:
    """Each without its padding, columns divided by one space."""
    return [" ".join(line.split()) for line in rendered(what).splitlines()]


def test_everything_about_a_call() -> None:
    text = lines(tell_call(VIEW, NOW, UTC))
    for expected in (
        "Call 17 CA" + "5f" * 16,
        "who +15550001111 called +15552223333",
        "tenant \u2068מרפאת שיניים\u2069 (harbour-dental)",
        "answered Sun 2026-03-01 10:00:00 UTC (Sun 2026-03-01 12:00:00 IST at Asia/Jerusalem)",
        "length 1:15",
        "outcome caller hung up: the caller hung up",
        "keys pressed 12#",
        "sound 2 barge-ins, 80 ms to the first word, 38 ms longest gap",
        "0.1 s agent Hello, this [not heard: is the assistant.]",
        "state completed, 1:15, caller and agent on a channel each",
        "file /data/RE1.wav (2.4 MB)",
        "Anna wants a [bold]cleaning[/bold].",
        "city Boston",
        "status qualified",
        "Mon 2026-03-02 10:05:00 UTC (Mon 2026-03-02 12:05:00 IST at Asia/Jerusalem)",
        f"{PERSON}, cleaning",
        "1 Sun 2026-03-01 10:05:00 UTC no answer in 10000 ms: timed out https://example.com/calls",
        "2 Sun 2026-03-01 10:05:00 UTC HTTP 200 in 31 ms https://example.com/calls",
        "Idempotency-Key: call.completed-CA1",
        "recording done 1 attempt",
        "lead done 1 attempt nothing to do: the caller's number is withheld",
        "status dead 12 attempts nonsense for an answer",
        "webhook failed 3 attempts next try in 4:07; HTTP 500",
    ):
        assert expected in text


def test_one_time_where_the_clocks_agree() -> None:
    text = lines(tell_call(VIEW, NOW, ZoneInfo("Asia/Jerusalem")))
    assert "answered Sun 2026-03-01 12:00:00 IST" in text


def test_a_call_that_goes_on_has_nothing_after_it() -> None:
    line = attrs.evolve(LINE, ended_at=None, outcome=None, postcall="active", caller="")
    view = attrs.evolve(
        VIEW, line=line, steps=(), recording=None, lead=None, appointments=(), deliveries=(), turns=(), reason=""
    )
    text = rendered(tell_call(view, NOW, UTC))
    assert "the call goes on" in text
    assert "(withheld) called +15552223333" in text
    for title in ("Transcript", "Recording", "Summary", "Lead", "Webhook", "After the call"):
        assert title not in text


def test_a_next_try_that_is_due_and_a_step_at_work() -> None:
    steps = (
        step("summary", "running", claimed_by="host:41"),
        step("webhook", "failed", next_try_at=NOW, error="x"),
    )
    text = lines(tell_call(attrs.evolve(VIEW, steps=steps), NOW, UTC))
    assert "summary running by host:41" in text
    assert "webhook failed next try now; x" in text


def test_the_list() -> None:
    calls = [
        LINE,
        attrs.evolve(LINE, id=16, direction="outbound", postcall="dead", outcome="agent_hung_up"),
        attrs.evolve(LINE, id=15, ended_at=None, outcome=None, postcall="active"),
    ]
    text = lines(tell_list(calls, ZoneInfo("Europe/London")))
    assert "17 2026-03-01 10:00 ← +15550001111 harbour-dental 1:15 caller hung up open" in text
    assert "16 2026-03-01 10:00 → +15552223333 harbour-dental 1:15 agent hung up dead" in text
    assert "15 2026-03-01 10:00 ← +15550001111 harbour-dental going on active" in text


def test_a_narrow_terminal_loses_nothing() -> None:
    text = rendered(tell_call(VIEW, NOW, UTC), 80)
    assert all(len(line) <= 80 + 2 for line in text.splitlines())  # two isolates have no width
    assert "nonsense for an answer" in " ".join(text.split())


def test_json_is_whole() -> None:
    whole = json.loads(json.dumps(call_as_json(VIEW), ensure_ascii=False))
    assert (whole["id"], whole["length_s"], whole["tenant_name"]) == (17, 75.0, "מרפאת שיניים")
    assert whole["answered_at"] == "2026-03-01T10:00:00+00:00"
    assert whole["turns"][0]["heard_text"] == "Hello, this"
    assert [row["state"] for row in whole["steps"]][-2:] == ["dead", "failed"]
    assert line_as_json(attrs.evolve(LINE, ended_at=None))["length_s"] is None

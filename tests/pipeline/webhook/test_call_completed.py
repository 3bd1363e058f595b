"""``call.completed``: the published schema is in use, the same facts give the same bytes, nothing leaks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_shapes import check, passes, values

from agent.core.records import CallMetrics, Turn
from agent.core.tenant import Tenant
from agent.pipeline.analysis.extraction import Extraction
from agent.pipeline.call_context import CallContext
from agent.pipeline.transcription.transcription import Segment, Transcription
from agent.pipeline.webhook.call_completed import CallCompleted, encode, moment, public_url, schema
from agent.pipeline.webhook.payload import call_shown, make_payload
from agent.store.sql.claims import Claim
from agent.store.sql.ledger import ClaimedCall
from agent.store.sql.values import AppointmentRow, LeadRow, RecordingRow

PUBLISHED = Path(__file__).parents[3] / "docs" / "call-completed.schema.json"
TENANT = Tenant(
    id="haifa-dental",
    name="מרפאת שיניים",
    language="he",
    time_zone="Asia/Jerusalem",
    webhook_url="https://example.com/calls",
    webhook_secret="whsec_never_shown",  # noqa: S106
)
ANSWERED = datetime(2026, 3, 1, 10, 0, 0, 123_456, UTC)


def call(ended_after_s: float) -> ClaimedCall:
    """A call as the worker knows it."""
    return ClaimedCall(
        id=1,
        call_sid="CA" + "1" * 32,
        tenant_id=TENANT.id,
        direction="inbound",
        caller="+972501234567",
        called="+97241234567",
        answered_at=ANSWERED,
        ended_at=ANSWERED + timedelta(seconds=ended_after_s),
        outcome="caller_hung_up",
        reason="",
        dtmf="",
        has_record=True,
        metrics=msgspec.to_builtins(
            CallMetrics(61_500, 1, 50.0, 31.0, 420, (510,), 3000, 95, 0, 0, 0, {"BARGE_IN": 1, "AT_FIRST": 2})
        ),
        recorded_from_ms=0,
    )


def example(metrics: dict[str, Any] | None = None) -> bytes:
    """The payload of a call with everything in it."""
    turn = Turn("agent", "item", "שלום! How can I help?", "שלום!", 0, 1900, 700, interrupted=True)
    claimed = call(61.5)
    facts = CallContext(
        claim=Claim(1, UUID(int=1), claimed.call_sid),
        call=attrs.evolve(claimed, metrics=metrics or claimed.metrics),
        tenant=TENANT,
        turns=(turn,),
        appointments=(AppointmentRow(1, ANSWERED, "סתימה", "", "+972501234567", ""),),
        recording=RecordingRow("RE1", "completed", "https://AC1:token@api.twilio.com/x", channels=2),
        results={
            "transcription": Transcription((Segment("caller", 700, 900, "הלו"),), 2, "a model").as_json(),
            "summary": {"text": "סיכום"},
            "extraction": attrs.asdict(Extraction(name="דנה")),
        },
        dead={"transcription": "HTTP 500\nfor hours" + "x" * 900},
    )
    lead = LeadRow(1, TENANT.id, "+972501234567", None, None, None, "qualified", None, ANSWERED, ANSWERED)
    return make_payload(facts, lead)


def test_the_published_schema_is_the_one_in_use() -> None:
    """After a change write what is made here into the file, and think of who reads it."""
    made = msgspec.json.format(msgspec.json.encode(schema()), indent=2) + b"\n"
    assert made.decode() == PUBLISHED.read_text("utf-8")


def test_an_example_fits_the_published_schema_and_says_everything() -> None:
    published = json.loads(PUBLISHED.read_bytes())
    body = json.loads(example())
    check(body, published, published)
    assert list(body)[:3] == ["id", "type", "version"]
    assert body["id"] == "call.completed-CA" + "1" * 32
    assert body["call"]["answered_at"] == {
        "utc": "2026-03-01T10:00:00.123Z",
        "local": "2026-03-01T12:00:00.123+02:00",
    }
    assert body["call"]["duration_s"] == 61.5
    assert body["transcript"][0]["heard_text"] == "שלום!"
    assert body["transcription"] == [{"channel": "caller", "start_ms": 700, "end_ms": 900, "text": "הלו"}]
    assert (body["extraction"]["name"], body["extraction"]["city"]) == ("דנה", "")
    assert (body["tenant"]["name"], body["lead"]["status"]) == (TENANT.name, "qualified")
    assert body["dead_steps"][0]["reason"].startswith("HTTP 500 for hours")
    assert len(body["dead_steps"][0]["reason"]) == 500


def test_a_wrong_payload_does_not_fit() -> None:
    """The checker of these tests does find faults."""
    published = json.loads(PUBLISHED.read_bytes())
    body = json.loads(example())
    for wrong in ({**body, "version": 2}, {**body, "summary": 1}, {**body, "call": None}):
        assert not passes(wrong, published, published)
    del body["metrics"]
    assert not passes(body, published, published)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_the_schema_and_the_types_are_the_same(data: st.DataObject) -> None:
    """Whatever fits the published schema is a payload and comes back as it was: neither lacks a field."""
    published = json.loads(PUBLISHED.read_bytes())
    document = data.draw(values(published, published))
    check(document, published, published)
    payload = msgspec.json.decode(json.dumps(document), type=CallCompleted)
    assert json.loads(encode(payload)) == document


def test_the_same_facts_give_the_same_bytes() -> None:
    """Also when a dictionary came back from the database in another order."""
    metrics = call(61.5).metrics
    assert metrics is not None
    other = {**metrics, "events": dict(reversed(metrics["events"].items()))}
    assert list(other["events"]) != list(metrics["events"])
    assert example(other) == example(metrics) == example()


def test_the_secret_is_not_told() -> None:
    assert b"whsec" not in example()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://AC1:token@api.twilio.com/2010/RE1?key=x#y", "https://api.twilio.com/2010/RE1"),
        ("https://api.twilio.com/2010/RE1", "https://api.twilio.com/2010/RE1"),
        ("", None),
        (None, None),
    ],
)
def test_credentials_of_a_url_are_not_told(url: str | None, shown: str | None) -> None:
    assert public_url(url) == shown


def test_times_are_on_both_clocks_in_winter_and_in_summer() -> None:
    winter = datetime(2026, 1, 1, 23, 30, tzinfo=timezone(timedelta(hours=1)))
    assert moment(winter, "America/New_York").utc == "2026-01-01T22:30:00.000Z"
    assert moment(winter, "America/New_York").local == "2026-01-01T17:30:00.000-05:00"
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    assert moment(summer, "America/New_York").local == "2026-06-30T20:00:00.000-04:00"
    assert moment(summer, "Asia/Kathmandu").local.endswith("+05:45")


@pytest.mark.parametrize("zone", ["Atlantis/Capital", "", "../etc/passwd", "Europe"])
def test_a_zone_that_is_not_known_is_utc(zone: str) -> None:
    """What no zone data is found for must not keep a call's webhook back."""
    assert moment(ANSWERED, zone).local == "2026-03-01T10:00:00.123+00:00"


def test_a_clock_that_was_set_back_makes_no_negative_call() -> None:
    assert call_shown(call(-3), TENANT.time_zone).duration_s == 0

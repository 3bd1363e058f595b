"""What the demo says of a call: its checks, its transcript, its figures, its picture."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
import typer
from demo_calls import ANSWERED, METRICS, RECORD, SIGHT, turn
from rich.console import Console, RenderableType

from agent.app.cli.calls.transcript_view import tell_transcript
from agent.app.demo.checks import (
    Check,
    Received,
    broken,
    check_after_call,
    check_audio,
    check_found,
    check_script,
    contains,
)
from agent.app.demo.command import tell
from agent.app.demo.report import tell_checks, tell_metrics
from agent.app.demo.run import Demo, Files
from agent.app.demo.timeline.lanes import Words, make_timeline
from agent.app.demo.timeline.picture import draw
from agent.app.demo.timeline.stream_analysis import Frames, Gap, StreamAnalysis
from agent.core.records import CallRecord, Outcome
from agent.core.steps import STEPS
from agent.sim.carrier.tape import Tape
from agent.sim.sounds import tone
from agent.store.sql.values import CallLine, CallView, LeadRow, StepRow, StepState


def checks(record: CallRecord = RECORD, seen: StreamAnalysis = SIGHT) -> list[Check]:
    return check_audio(record, seen) + check_script(record, seen)


def test_a_good_call_breaks_nothing() -> None:
    assert broken(checks()) == ""


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (attrs.evolve(SIGHT, heard_ms=0), "0.0 s of the agent"),
        (attrs.evolve(SIGHT, underruns=(Gap(2.0, 0.1),)), "playback ran dry 1 times"),
        (
            attrs.evolve(SIGHT, frames=Frames(max_gap_ms=60.0, long_gaps=(Gap(4.5, 0.06),))),
            r"longest gap .* was 60 ms, at 4\.5 s",
        ),
        (attrs.evolve(SIGHT, frames=Frames(stale=1)), "1 frames of a cancelled answer"),
        (attrs.evolve(SIGHT, clears_s=(1.0,)), "told to clear 1 times"),
        (attrs.evolve(SIGHT, unplayed_ms=20), "last answer was cut off"),
        (attrs.evolve(SIGHT, protocol_errors=("media for stream 'x'",)), "media for stream 'x'"),
    ],
)
def test_what_the_carrier_saw_breaks_the_call(seen: StreamAnalysis, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        assert not broken(checks(seen=seen)), broken(checks(seen=seen))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (attrs.evolve(RECORD, outcome=Outcome.IDLE), "ended as idle"),
        (attrs.evolve(RECORD, turns=RECORD.turns[:3]), "lacks Anna Miller and Boston"),
        (attrs.evolve(RECORD, turns=()), "cut off"),
        (attrs.evolve(RECORD, turns=(*RECORD.turns, turn("agent", "Bye now", 9, heard="Bye"))), "cut off"),
        (attrs.evolve(RECORD, metrics=attrs.evolve(METRICS, barge_in_events=1)), "interrupted 1 times"),
        (attrs.evolve(RECORD, metrics=attrs.evolve(METRICS, max_gap_ms=61.0)), "61 ms"),
        (
            attrs.evolve(RECORD, metrics=attrs.evolve(METRICS, events={"POST_CANCEL_AUDIO_VIOLATION": 1})),
            "POST_CANCEL_AUDIO_VIOLATION 1 times",
        ),
    ],
)
def test_what_the_agent_recorded_breaks_the_call(record: CallRecord, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        assert not broken(checks(record)), broken(checks(record))


def step(name: str, state: StepState = "done", /, **result: Any) -> StepRow:
    error = "HTTP 410" if state == "dead" else None
    return StepRow(name, state, 1, result if state == "done" else None, error, NOW, None, None, NOW)


NOW = RECORD.ended_at
FOUND = {"name": "Anna Miller", "city": "Boston"}
LEAD = LeadRow(4, "harbour-dental", RECORD.caller, "Anna Miller", "Boston", None, "contacted", None, NOW, NOW)
LINE = CallLine(
    17, RECORD.call_sid, "harbour-dental", "inbound", RECORD.caller, RECORD.called, ANSWERED, NOW, "idle", "done"
)
RESULTS: dict[str, dict[str, Any]] = {"extraction": FOUND, "lead": {"lead": 4}}
AFTER = CallView(
    line=LINE,
    tenant_name="Harbour Dental",
    time_zone="UTC",
    reason="",
    dtmf="",
    metrics=None,
    turns=RECORD.turns,
    recording=None,
    steps=tuple(step(name, **RESULTS.get(name, {"ok": True})) for name in STEPS),
    lead=LEAD,
    appointments=(),
    deliveries=(),
)
TAKEN = Received(taken=1, unsigned=0)


def after_checks(view: CallView = AFTER, received: Received = TAKEN) -> list[Check]:
    return check_after_call(view, received) + check_found(view, RECORD.caller)


def test_a_good_ending_breaks_nothing() -> None:
    assert broken(after_checks()) == ""


@pytest.mark.parametrize(
    ("view", "received", "reason"),
    [
        (AFTER, Received(0, 0), "taken 0 times"),
        (AFTER, Received(1, 1), "1 requests were not signed right"),
        (attrs.evolve(AFTER, steps=AFTER.steps[:-1]), TAKEN, "webhook is missing"),
        (attrs.evolve(AFTER, steps=()), TAKEN, "recording is missing"),
        (attrs.evolve(AFTER, steps=(*AFTER.steps[:-1], step("webhook", "dead"))), TAKEN, "given up .HTTP 410."),
        (
            attrs.evolve(AFTER, steps=(step("recording", skipped="it was not recorded"), *AFTER.steps[1:])),
            TAKEN,
            "recording had nothing to do .it was not recorded.",
        ),
        (attrs.evolve(AFTER, lead=None), TAKEN, "there is no lead"),
        (attrs.evolve(AFTER, lead=attrs.evolve(LEAD, city=None)), TAKEN, "Anna Miller, None: contacted"),
        (attrs.evolve(AFTER, lead=attrs.evolve(LEAD, id=3)), TAKEN, "a lead of the caller is required"),
    ],
)
def test_what_came_after_breaks_the_call(view: CallView, received: Received, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        assert not broken(after_checks(view, received)), broken(after_checks(view, received))


def test_words_are_found_whatever_their_case_and_punctuation() -> None:
    assert contains("I'm anna MILLER, from boston.", "Anna Miller")
    assert not contains("I'm Anna Millerson.", "Anna Miller")


def shown(what: RenderableType, *, colour: bool = False) -> str:
    file = io.StringIO()
    colours: Literal["standard"] | None = "standard" if colour else None
    Console(file=file, width=100, force_terminal=colour, color_system=colours).print(what)
    return file.getvalue()


def test_the_transcript_marks_what_was_not_heard() -> None:
    """PL-8, for people: in words, and struck out where there are colours."""
    text = shown(tell_transcript(RECORD.turns))
    assert "Hello, this [not heard: is the assistant.]" in text
    assert "1.3 s  caller  When are you open?" in text
    assert text.count("[not heard") == 2
    assert "\x1b[2;9mis the assistant." in shown(tell_transcript(RECORD.turns), colour=True)
    assert "(no words)" in shown(tell_transcript([turn("caller", "", 10)]))


def test_other_scripts_and_markup_survive() -> None:
    """Right-to-left text is isolated, so that a terminal does not turn its neighbours round."""
    said = shown(tell_transcript([turn("agent", "שלום [bold]עולם", 0, heard="שלום")]))
    assert "שלום [not heard: [bold]עולם]" in said.replace("\u2068", "").replace("\u2069", "")
    assert (said.count("\u2068"), said.count("\u2069")) == (2, 2)


def test_what_was_said_does_not_move_the_cursor() -> None:
    assert "\x1b" not in shown(tell_transcript([turn("caller", "I am \x1b[2J\x07 Ada", 0)]))


def test_the_figures_of_both_sides_stand_beside_each_other() -> None:
    """NB-3; the latency is the carrier's: from the caller's last sound to the answer's first frame."""
    lines = shown(tell_metrics(METRICS, SIGHT)).splitlines()
    [latency] = [line.split() for line in lines if "goal 900" in line]
    assert latency[-4:] == ["450", "ms", "500", "ms"]
    assert any("38.2 ms, 0 underruns" in line for line in lines)
    nothing = attrs.evolve(SIGHT, latencies=(), first_audio_s=None)
    silent = attrs.evolve(METRICS, fps=None, max_gap_ms=None, first_audio_ms=None, turn_latencies_ms=())
    assert "None" not in shown(tell_metrics(silent, nothing))


def test_checks_say_what_was_found() -> None:
    text = shown(tell_checks([Check("a", True, "fine"), Check("b", False, "it was cut")]))
    assert "ok" in text
    assert "BROKEN  b  it was cut" in text


def test_a_broken_call_is_told_whole_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The report comes first, the reason last, in one sentence on standard error."""
    files = Files(Path("call.wav"), Path("timeline.png"), Path("call.json"))
    good = Demo(RECORD, SIGHT, tuple(checks()), files, AFTER)
    tell(Console(), good)
    out, _ = capsys.readouterr()
    assert "call.wav  stereo" in out
    report, _, view = out.partition("$ AGENT_DATA_DIR=data call-agent calls show 17")
    assert "Transcript" not in report
    assert "Transcript: what was heard" in view
    assert "webhook" in view.splitlines()[-1]
    gapped = attrs.evolve(good, checks=tuple(checks(seen=attrs.evolve(SIGHT, underruns=(Gap(2.0, 0.1),)))))
    with pytest.raises(typer.Exit) as left:
        tell(Console(), gapped)
    assert left.value.exit_code == 1
    out, err = capsys.readouterr()
    assert "timeline.png" in out
    reason = "playback ran dry 1 times (no underrun is required)"
    assert err == f"call-agent: the call broke a requirement: {reason}\n"


def tapes() -> tuple[Tape, Tape]:
    """Caller and agent of SIGHT, on a clock that began at 100."""
    said, heard = Tape(), Tape()
    for tape, intervals in ((said, SIGHT.caller), (heard, SIGHT.heard)):
        for interval in intervals:
            length_ms = round((interval.end_s - interval.begin_s) * 1000)
            tape.write(100 + interval.begin_s, tone(length_ms), joined=False)
    return said, heard


def test_the_timeline_lays_the_record_over_what_the_carrier_saw() -> None:
    """The first frame, timed by both sides, is the same moment: here the agent's clock runs 20 ms behind."""
    timeline = make_timeline(RECORD, SIGHT, *tapes(), 100.0)
    assert list(timeline.barge_ins_s) == pytest.approx([1.12, 5.02])
    first, second, last = timeline.answers
    assert [first.begin_s, first.heard_s, first.end_s] == pytest.approx([0.1, 1.1, 2.1])
    assert (second.heard_text, second.unheard_text) == ("From nine", "to five, all week.")
    assert (last.interrupted, last.unheard_text) == (False, "")
    assert timeline.said[0] == Words(1.0, 3.5, "When are you open?")
    assert timeline.said[1].begin_s == 4.9
    assert [envelope.begin_s for envelope in timeline.caller] == [pytest.approx(1.0), pytest.approx(4.9)]
    assert max(timeline.heard[0].peaks) == pytest.approx(0.355, abs=0.01)
    assert "agent hung up" in timeline.title
    assert "500 ms" in timeline.subtitle


def png_size(path: Path) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", path.read_bytes(), 16)
    return width, height


def test_the_picture_is_drawn_whatever_happened(tmp_path: Path) -> None:
    """Also of a call in which nobody spoke, and one with gaps, Hebrew and what looks like a formula."""
    odd = attrs.evolve(RECORD, turns=(*RECORD.turns, turn("agent", "שלום $x^$ עולם", 10_000, heard="שלום")))
    gaps = attrs.evolve(SIGHT, underruns=(Gap(4.5, 0.2),), latencies=())
    silent = attrs.evolve(SIGHT, caller=(), sent=(), heard=(), latencies=(), clears_s=(), first_audio_s=None)
    empty = attrs.evolve(RECORD, turns=(), timeline=(), metrics=attrs.evolve(METRICS, first_audio_ms=None))
    for number, (record, seen, recorded) in enumerate(
        [(RECORD, SIGHT, tapes()), (odd, gaps, tapes()), (empty, silent, (Tape(), Tape()))]
    ):
        path = tmp_path / f"{number}.png"
        draw(make_timeline(record, seen, *recorded, 100.0), path)
        assert png_size(path) == (1600, 700)

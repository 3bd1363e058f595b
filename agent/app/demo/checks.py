"""The requirements of a demo call: whether each held, and the figures that show it. Pure."""

import re
from collections.abc import Sequence
from typing import Final

import attrs

from agent.app.demo.script import CITY, NAME
from agent.app.demo.timeline.stream_analysis import Gap, StreamAnalysis
from agent.core.records import CallRecord, Outcome
from agent.core.steps import STEPS
from agent.sim.carrier.arrivals import GAP_LIMIT_S
from agent.store.sql.values import CallView, StepRow

MAX_GAP_MS: Final = round(GAP_LIMIT_S * 1000)
"""TX-3."""
BARGE_INS: Final = 2
"""The greeting and one answer."""
TARGET_LATENCY_MS: Final = 900
"""Median from the end of the caller's speech to the answer, on the embedded model."""


@attrs.frozen
class Received:
    """What the receiver of the tenant's webhook says of one call."""

    taken: int
    unsigned: int


@attrs.frozen
class Check:
    """One requirement: ``said`` tells in one sentence what was found, whether it held or not."""

    name: str
    held: bool
    said: str


def check_audio(record: CallRecord, seen: StreamAnalysis) -> list[Check]:
    """What must hold of every call: gapless audio, nothing stale, all of it as the carrier's protocol wants."""
    longest_ms = max(seen.frames.max_gap_ms, record.metrics.max_gap_ms or 0.0)
    where = _where(seen.frames.long_gaps)
    violations = record.metrics.events.get("POST_CANCEL_AUDIO_VIOLATION", 0)
    errors = seen.protocol_errors
    first = f", the first: {errors[0]}" if errors else ""
    return [
        Check("the agent spoke", seen.heard_ms > 0, f"{seen.heard_ms / 1000:.1f} s of the agent were heard"),
        Check("no underrun", not seen.underruns, f"playback ran dry {len(seen.underruns)} times"),
        Check(
            f"gaps under {MAX_GAP_MS} ms",
            longest_ms < MAX_GAP_MS,
            f"the longest gap between two frames of an answer was {longest_ms:.0f} ms{where}",
        ),
        Check(
            "no stale frame",
            not seen.frames.stale,
            f"{seen.frames.stale} frames of a cancelled answer came after the clear",
        ),
        Check(
            "nothing sent after a cancel",
            not violations,
            f"the agent logged POST_CANCEL_AUDIO_VIOLATION {violations} times",
        ),
        Check(
            "the carrier understood everything",
            not errors,
            f"the carrier could not take {len(errors)} messages{first}",
        ),
    ]


def check_script(record: CallRecord, seen: StreamAnalysis) -> list[Check]:
    """What must also hold of the scripted call: interrupted, understood, ended by the agent after its goodbye."""
    said = " ".join(turn.text for turn in record.turns if turn.role == "caller")
    missing = [fact for fact in (NAME, CITY) if not contains(said, fact)]
    barge_ins = record.metrics.barge_in_events
    last = next((turn for turn in reversed(record.turns) if turn.role == "agent"), None)
    heard_out = last is not None and not last.interrupted and not seen.unplayed_ms
    ending = "heard to its end" if heard_out else "cut off"
    clears = len(seen.clears_s)
    return [
        Check(
            "interrupted twice",
            barge_ins >= BARGE_INS and clears >= BARGE_INS,
            f"the caller interrupted {barge_ins} times, the carrier was told to clear {clears} times",
        ),
        Check(
            "name and city understood",
            not missing,
            f"the transcript lacks {' and '.join(missing)}" if missing else f"{NAME}, {CITY}",
        ),
        Check(
            "ended by the agent",
            record.outcome is Outcome.AGENT_HUNG_UP,
            f"the call ended as {record.outcome.value}: {record.reason or 'no reason given'}",
        ),
        Check(
            "last word heard",
            heard_out,
            f"the agent's last answer was {ending}",
        ),
    ]


def check_after_call(view: CallView, webhook: Received) -> list[Check]:
    """What must hold after every call: no step given up, and the tenant told with a right signature."""
    done = [row.step for row in view.steps if row.state == "done"]
    dead = [f"{row.step} was given up ({row.error})" for row in view.steps if row.state == "dead"]
    skipped = [f"{row.step} had nothing to do ({why})" for row in view.steps if (why := _skipped(row))]
    missing = [f"{step} is missing" for step in STEPS if step not in {row.step for row in view.steps}]
    wrong = [*missing, *dead, *skipped]
    told = f"the webhook was taken {webhook.taken} times, {webhook.unsigned} requests were not signed right"
    return [
        Check("every step after the call", len(done) == len(STEPS) and not wrong, "; ".join(wrong or done)),
        Check("the webhook signed and taken", webhook.taken > 0 and not webhook.unsigned, told),
    ]


def check_found(view: CallView, caller: str) -> list[Check]:
    """What must also be found out about the scripted call: who called, from where, and the lead it makes."""
    found, lead = view.result("extraction"), view.lead
    particulars = f"{found.get('name') or 'no name'}, {found.get('city') or 'no city'}"
    right = (found.get("name"), found.get("city")) == (NAME, CITY)
    named = lead is not None and (lead.phone, lead.name, lead.city) == (caller, NAME, CITY)
    of_this_call = lead is not None and view.result("lead").get("lead") == lead.id
    who = "there is no lead" if lead is None else f"{lead.phone}, {lead.name}, {lead.city}: {lead.status}"
    return [
        Check("name and city extracted", right, particulars),
        Check("a lead of the caller", named and of_this_call, who),
    ]


def broken(checks: Sequence[Check]) -> str:
    """What was broken, in one sentence; empty if nothing was."""
    return "; ".join(f"{check.said} ({check.name} is required)" for check in checks if not check.held)


def contains(text: str, words: str) -> bool:
    """Whether ``words`` follow each other in ``text``, whatever the case and punctuation."""
    return f" {_plain(words)} " in f" {_plain(text)} "


def _skipped(row: StepRow) -> str:
    return str((row.result or {}).get("skipped", ""))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _where(gaps: Sequence[Gap]) -> str:
    return f", at {' and '.join(f'{gap.at_s:.1f} s' for gap in gaps)}" if gaps else ""

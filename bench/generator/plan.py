"""What a load run does: how many callers, for how long, who speaks when. Values only."""

from __future__ import annotations

from typing import Final

import attrs

from agent.core.units import ULAW_SILENCE

GOLDEN: Final = 0.6180339887498949
"""Multiples of it, less their whole part, spread any number of calls evenly over a period."""
OUR_NUMBER: Final = "+15550000000"
SIGNATURE_BITS: Final = 16
_ONE: Final = ULAW_SILENCE
_ZERO: Final = 0xFE
"""The quietest sound mu-law has: a signature is far below any speech detection."""


@attrs.frozen
class AnswerPlan:
    """One answer of the model: its length, and how many times faster than it plays it is generated."""

    length_ms: int
    speed: float


@attrs.frozen(kw_only=True)
class LoadPlan:
    """Everyone talks. A cycle is a question and two interruptions: a caller speaks each ``every_s``.

    The first two answers of a cycle are longer than the caller's patience. The first is generated to its end
    before it is interrupted (truncate alone), the second is not (cancel, too); the third is heard to its end.
    """

    calls: int = 80
    seconds: float = 20.0
    """Measured, after the warm-up."""
    every_s: float = 5.0
    speech_ms: int = 800
    greeting: AnswerPlan = AnswerPlan(2_500, 4.0)
    answers: tuple[AnswerPlan, ...] = (AnswerPlan(12_000, 4.0), AnswerPlan(9_000, 1.8), AnswerPlan(2_300, 2.0))
    chunk_bytes: tuple[int, ...] = (2000, 1200, 800)
    """Of the model's audio. The first is the largest: the model, too, has to keep ahead of the pacer's lead."""
    first_delta_ms: int = 200
    lead_ms: int = 100
    per_call_s: float = 0.03
    """From one call's begin to the next one's."""
    first: int = 0
    """The number of the first call; the others follow."""
    leaving: int = 0
    """So many callers, the first ones, hang up in mid-run; the others go on."""
    leaving_at_s: float = 0.0
    """When the first does, after the measurement's begin; the last does ``leaving_within_s`` later."""
    leaving_within_s: float = 0.0
    knocking: int = 0
    """So many more phone in mid-run, in the order of their numbers; they stay to the end, if they are let in."""
    knocking_at_s: float = 0.0
    """When the first does, after the measurement's begin; the last does ``knocking_within_s`` later."""
    knocking_within_s: float = 0.0
    auth_token: str = ""
    """With which the carrier signs webhooks and handshakes; empty: it signs nothing."""

    @property
    def ramp_s(self) -> float:
        """Over which the calls begin."""
        return max(1.0, self.per_call_s * self.calls)

    @property
    def listen_s(self) -> float:
        """A caller lets the greeting play so long before speaking first."""
        return self.greeting.length_ms / 1000 + 1.0

    @property
    def warm_up_s(self) -> float:
        """From the last call's begin to the first measurement: everyone has begun to speak."""
        return self.listen_s + self.every_s

    def speaks_after_s(self, call: int) -> float:
        """When a caller speaks first, counted from the begin of the call."""
        return self.listen_s + self.every_s * (call * GOLDEN % 1.0)

    def leave_s(self, call: int, begin_s: float, end_s: float) -> float:
        """When a caller hangs up, by the times that the measurement begins and ends."""
        if call >= self.leaving:
            return end_s
        return begin_s + self.leaving_at_s + self.leaving_within_s * call / self.leaving

    def answer(self, call: int, number: int) -> AnswerPlan:
        """The answer of a call by its number; 0 is the greeting. Calls begin at different places of the cycle."""
        return self.answers[(number - 1 + call) % len(self.answers)] if number else self.greeting


@attrs.frozen(kw_only=True)
class Order:
    """What a process of the load is told: on its command line, as JSON. ``result`` is the path of its report."""

    plan: LoadPlan
    result: str
    url: str = ""
    """The agent's: a media stream's (ws:), or its webhooks' (http:)."""
    tls: bool = False
    """Of the model."""


def call_sid(call: int) -> str:
    """The SID of a call by its number."""
    return f"CA{call:032x}"


def number_of(call: int) -> str:
    """Who calls: each caller has a number of their own."""
    return f"+1555{call:07d}"


def silence(call: int) -> bytes:
    """A frame of silence in which is written which call it is, so that model and carrier can be compared."""
    bits = [_ONE if call >> bit & 1 else _ZERO for bit in range(SIGNATURE_BITS)]
    return bytes(bits).ljust(160, bytes([ULAW_SILENCE]))


def read_signature(audio: bytes) -> int | None:
    """The call whose silence ``audio`` is; None if it is none's."""
    head = audio[:SIGNATURE_BITS]
    if len(head) < SIGNATURE_BITS or set(head) - {_ONE, _ZERO} or _ZERO not in head:
        return None
    return sum((code == _ONE) << bit for bit, code in enumerate(head))

"""What a load run does: how many callers, for how long, who speaks when. Values only."""

from __future__ import annotations

from typing import Final

import attrs

from agent.core.units import ULAW_SILENCE

SIGNATURE_BITS: Final = 16
LEAVING_S: Final = 1.0
_ONE: Final = ULAW_SILENCE
_ZERO: Final = 0xFE
"""The quietest sound mu-law has: a signature is far below any speech detection."""


@attrs.frozen(kw_only=True)
class LoadPlan:
    """Everyone talks: each caller speaks ``speech_ms`` every ``every_s``, into an answer that is longer."""

    calls: int = 80
    seconds: float = 60.0
    """Measured, after the warm-up."""
    every_s: float = 7.5
    """Twice in 15 s."""
    speech_ms: int = 800
    answers: tuple[tuple[int, float], ...] = ((9_000, 4.0), (12_000, 1.8))
    """Lengths in milliseconds, and how many times faster they come than they play, in turn: the first is
    generated to its end before it is interrupted (truncate alone), the second is not (cancel, too)."""
    chunk_bytes: tuple[int, ...] = (2000, 1200, 800)
    """Of the model's audio. The first is the largest: the model, too, has to keep ahead of the pacer's lead."""
    first_delta_ms: int = 200
    lead_ms: int = 100
    leaving: int = 0
    """So many callers, the first ones, hang up within the first second of the measurement; the others go on."""

    @property
    def ramp_s(self) -> float:
        """Over which the calls begin."""
        return max(1.0, 0.05 * self.calls)

    def leave_s(self, call: int, begin_s: float, end_s: float) -> float:
        """When a caller hangs up, by the times that the measurement begins and ends."""
        return begin_s + LEAVING_S * call / self.leaving if call < self.leaving else end_s

    @property
    def warm_up_s(self) -> float:
        """From the last call's begin to the first measurement: everyone was interrupted once."""
        return min(self.every_s, self.seconds) + 2.0


@attrs.frozen(kw_only=True)
class SimulatorOrder:
    """What a simulator's process is told: on its command line, as JSON. ``result`` is the path of its report."""

    plan: LoadPlan
    result: str
    url: str = ""


OUR_NUMBER: Final = "+15550000000"


def call_sid(call: int) -> str:
    """The SID of a call by its number."""
    return f"CA{call:032x}"


def number_of(call: int) -> str:
    """Who calls: each caller has a number of their own."""
    return f"+1555{call:07d}"


def signature(call: int) -> bytes:
    """One frame of near-silence that says which call it is, so that model and carrier can be compared."""
    bits = [_ONE if call >> bit & 1 else _ZERO for bit in range(SIGNATURE_BITS)]
    return bytes(bits).ljust(160, bytes([ULAW_SILENCE]))


def read_signature(audio: bytes) -> int | None:
    """The call whose signature ``audio`` is; None if it is none."""
    head = audio[:SIGNATURE_BITS]
    if len(head) < SIGNATURE_BITS or set(head) - {_ONE, _ZERO} or _ZERO not in head:
        return None
    return sum((code == _ONE) << bit for bit, code in enumerate(head))

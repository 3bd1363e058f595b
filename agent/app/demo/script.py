"""What the simulated caller says, and what makes it say so. Pure; English, as the embedded model is."""

from typing import Final

import attrs

from agent.local.receptionist.business import EXAMPLE_INSTRUCTIONS

INSTRUCTIONS: Final = EXAMPLE_INSTRUCTIONS
GREETING: Final = "Hello, this is the automatic assistant of Harbour Dental. How can I help you today?"
NAME: Final = "Anna Miller"
CITY: Final = "Boston"


@attrs.frozen
class ScriptedLine:
    """One turn of the caller.

    ``after_heard_ms``: it interrupts when this much of the answer was heard; None: it waits for its end.
    """

    text: str
    after_heard_ms: int | None = None


@attrs.frozen
class SpokenLine:
    """A line with its sound: ``audio`` is 8 kHz mu-law without silence around it."""

    line: ScriptedLine
    audio: bytes = attrs.field(repr=False)


SCRIPT: Final = (
    # Each is one sentence: a pause between two is long enough to end a turn.
    ScriptedLine("Hello, what are your opening hours, please?", after_heard_ms=1100),
    ScriptedLine("And how much is a cleaning?"),
    ScriptedLine(f"Okay, my name is {NAME}, and I live in {CITY}.", after_heard_ms=3200),
    ScriptedLine("No thank you, goodbye!"),
)
"""Interrupts the greeting and one answer, asks two questions, gives a name and a city, says goodbye."""

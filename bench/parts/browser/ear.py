"""What a tab hears: a second pair of worklets beside the page's own, which trust nothing that it says.

``LISTEN`` goes into the tab before the page does. It keeps the level of the microphone and of the speaker each
5 ms, on the clock of the audio, and what the page's speaker says it has played. The rest here is pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from playwright.sync_api import Page

LISTEN: Final = Path(__file__).with_suffix(".js").read_text("utf-8")
SPEECH: Final = 0.01
"""Level of the quietest block that counts as speech: -40 dB."""
PAUSE_MS: Final = 600.0
"""A shorter pause is within somebody's speech."""
SHORTEST_MS: Final = 100.0


@attrs.frozen
class Spell:
    """Somebody speaks, on the clock of the audio."""

    start_ms: float
    end_ms: float


@attrs.frozen
class Heard:
    """What one tab heard of one call."""

    microphone: Sequence[Spell]
    speaker: Sequence[Spell]
    output_ms: float
    """From the worklet to the ear, as the browser says."""
    played: Mapping[str, float]
    """Milliseconds the page played of each generation, in their order."""


def listen_to(page: Page) -> Heard:
    """What was heard so far."""
    kept: dict[str, Any] = page.evaluate(
        "() => ({ ...theEar, outputMs: theEar.outputMs ? theEar.outputMs() : 0 })"
    )
    blocks = kept["blocks"]
    return Heard(
        spells([(block[0] * 1000, block[1]) for block in blocks]),
        spells([(block[0] * 1000, block[2]) for block in blocks]),
        kept["outputMs"],
        played_of_each(kept["told"]),
    )


def spells(levels: Sequence[tuple[float, float]]) -> list[Spell]:
    """When somebody spoke, from the level at each time."""
    found: list[Spell] = []
    for at_ms, level in levels:
        if level < SPEECH:
            continue
        if found and at_ms - found[-1].end_ms <= PAUSE_MS:
            found[-1] = Spell(found[-1].start_ms, at_ms)
        else:
            found.append(Spell(at_ms, at_ms))
    return [spell for spell in found if spell.end_ms - spell.start_ms >= SHORTEST_MS]


def played_of_each(told: Sequence[tuple[str, float]]) -> dict[str, float]:
    """From the marks that playback reached and the clears: how much of each generation was played."""
    played: dict[str, float] = {}
    generation, began_ms, last_ms = "", 0.0, 0.0
    for mark, at_ms in told:
        name = mark.rpartition(":")[0]
        if name and name != generation:
            generation, began_ms = name, last_ms
        if generation:
            played[generation] = at_ms - began_ms
        last_ms = at_ms
    return played


def answer_times_ms(heard: Heard) -> list[float]:
    """From the end of each speech at the microphone to the next one in the speaker that begins after it."""
    found = []
    for mine, following in zip(heard.microphone, [*heard.microphone[1:], None], strict=True):
        until_ms = following.start_ms if following else float("inf")
        starts = [spell.start_ms for spell in heard.speaker if mine.end_ms <= spell.start_ms < until_ms]
        found += [starts[0] - mine.end_ms + heard.output_ms] if starts else []
    return found


def silence_times_ms(heard: Heard) -> list[float]:
    """From the start of each speech at the microphone into the agent's own until the speaker is silent."""
    return [
        theirs.end_ms - mine.start_ms + heard.output_ms
        for mine in heard.microphone
        for theirs in heard.speaker
        if theirs.start_ms < mine.start_ms < theirs.end_ms
    ]

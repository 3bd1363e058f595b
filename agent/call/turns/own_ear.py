"""Our own ear on the caller: it hears who speaks before, and where, the model says nothing. Pure.

It decides no turns: it keeps a line open, interrupts while no session is there, and tells that words were lost.
"""

from math import inf
from typing import Final

import attrs

from agent.audio.level_meter import LevelMeter
from agent.core.units import FRAME_MS

INTERRUPTS_MS: Final = 200
"""Voice that interrupts an answer while no session is there to hear it."""
WORDS_MS: Final = 400
"""Voice that is taken for words, should the model not say so."""
FRESH_S: Final = 0.3
"""How old the last audio may be for the ear to say anything: it is deaf while the carrier sends nothing."""


@attrs.define(eq=False)
class OwnEar:
    """What one caller's audio tells by its level."""

    meter: LevelMeter
    fed_s: float = -inf
    """When audio of the caller last came."""
    _noticed_frames: int = 0
    """Voiced frames when the model was last heard from."""

    def feed(self, audio: bytes, now: float) -> None:
        """Audio of the caller came, mu-law of any length but none at all."""
        self.fed_s = now
        self.meter.feed(audio)

    def model_noticed(self) -> None:
        """The model is heard from: what the caller said before is its business."""
        self._noticed_frames = self.meter.voiced_total

    def voiced(self, now: float) -> bool:
        """Whether the caller speaks."""
        return self.meter.voiced and now - self.fed_s < FRESH_S

    def voiced_now(self, now: float) -> bool:
        """Whether the caller's last frame was voiced."""
        return self.meter.voiced_now and self.voiced(now)

    def interrupts(self, now: float) -> bool:
        """Whether the caller has spoken long enough for an interruption."""
        return self.voiced(now) and self.meter.voiced_frames * FRAME_MS >= INTERRUPTS_MS

    @property
    def unnoticed_words(self) -> bool:
        """Whether the caller said something since the model was last heard from."""
        return (self.meter.voiced_total - self._noticed_frames) * FRAME_MS >= WORDS_MS

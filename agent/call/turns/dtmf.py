"""Keys the caller presses, gathered into one message for the model. Pure."""

from typing import Final

import attrs

PAUSE_S: Final = 1.5
"""Keys with less than this between them belong together."""
END_KEY: Final = "#"
KEYS: Final = frozenset("0123456789*#ABCDabcd")
MOST_KEYS: Final = 64


@attrs.define(eq=False)
class DtmfCollector:
    """Digits pressed and not yet told to the model, and all of them for the record."""

    all_keys: str = ""
    _pending: str = ""
    _due_s: float | None = None

    def pressed(self, key: str, now: float) -> bool:
        """Take a key; False if it is none or there are too many at once."""
        if key not in KEYS or len(self._pending) >= MOST_KEYS:
            return False
        self._pending += key
        self.all_keys += key
        self._due_s = now if key == END_KEY else now + PAUSE_S
        return True

    @property
    def due_s(self) -> float | None:
        """When to ask ``take``; None if nothing is pending."""
        return self._due_s

    def take(self, now: float) -> str:
        """The keys to tell the model now, or an empty string."""
        if self._due_s is None or now < self._due_s:
            return ""
        keys, self._pending, self._due_s = self._pending, "", None
        return keys

"""Values in the order of their keys, each replaced where it stands: nothing is sorted or made anew. Pure."""

from bisect import bisect_left
from typing import Generic, TypeVar

import attrs

_T = TypeVar("_T")
Key = tuple[float, int, int]
"""A time in seconds, and what decides between two things at the same time."""


@attrs.define(eq=False)
class Ordered(Generic[_T]):
    """``values`` in the order of ``keys``."""

    keys: list[Key] = attrs.field(factory=list)
    values: list[_T] = attrs.field(factory=list)

    def put(self, key: Key, value: _T) -> None:
        """Put ``value`` in its place, or in place of the one that has its key."""
        place = bisect_left(self.keys, key)
        if place < len(self.keys) and self.keys[place] == key:
            self.values[place] = value
        else:
            self.keys.insert(place, key)
            self.values.insert(place, value)

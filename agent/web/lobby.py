"""Who may stand in the lobby: connections that have proven nothing yet, few for each address. No I/O.

A place is a connection's. It is idle while its client is waited for: for a request, or for the rest of one.
Nobody is turned away for the crowd alone, because only a request can prove that it is the carrier's: whoever
has been idle for longest makes room, of the address that has most of what it may have.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import attrs

FRESH_S: Final = 1.0
"""How long a connection may be idle though its own address needs the place: a burst of webhooks is no crowd."""
EVICTION_EACH_S: Final = 0.01
"""Whoever is sent away comes again at once, and that costs more than a connection that may stay."""
PACE_S: Final = 0.05
"""Between two requests of an address in the long run: one connection that asks without end had half of a core."""
BURST: Final = 20
"""Requests that an address may have at once before they are paced."""
_PACED: Final = 4096
_SPARE: Final = 1.25
VOUCHED_S: Final = 600.0
"""How long an address from which a signed request came is believed to be the carrier's, or a proxy's."""


@attrs.define(eq=False)
class Place:
    """One connection's, or one request's that a proxy hands on. Made by ``Lobby.enter``."""

    key: str
    leave: Callable[[], None] = attrs.field(repr=False)
    """Ends the connection."""
    idle_since_s: float | None
    """None while a whole request is served."""
    asks: bool = False
    """Whether a request has begun and is not answered."""

    def begins(self, now_s: float) -> None:
        """A request's head is there."""
        self.asks, self.idle_since_s = True, now_s

    def serves(self) -> None:
        """All of the request is there."""
        self.asks, self.idle_since_s = True, None

    def waits(self, now_s: float) -> None:
        """The connection waits for the next request, or for the client to go."""
        self.asks, self.idle_since_s = False, now_s


@attrs.define(eq=False)
class Lobby:
    """The places, by address."""

    per_address: int
    most: int
    """Places in all."""
    _places: dict[str, set[Place]] = attrs.field(factory=dict)
    _vouched: dict[str, float] = attrs.field(factory=dict)
    _due_s: dict[str, float] = attrs.field(factory=dict)
    """When the last request of each address was due, as if they came at an even pace."""
    _count: int = 0
    _next_eviction_s: float = 0.0

    def __len__(self) -> int:
        """Connections in the lobby."""
        return self._count

    def refuses(self, key: str, now_s: float) -> bool:
        """Whether a connection of ``key`` need not even be looked at: there is no room, and it has its share."""
        return self._count >= self.most and len(self._places.get(key, ())) >= self._limit(key, now_s)

    def enter(self, key: str, leave: Callable[[], None], now_s: float) -> tuple[Place | None, Place | None]:
        """A place for a connection from ``key``, and the place that has to be left for it, if one has.

        When all of ``most`` are busy, there are some more, for addresses that have few, and as many as they may
        have for those from which signed requests came; else no place.
        """
        place, given_up = Place(key, leave, now_s), None
        crowd, limit = self._places.get(key, set()), self._limit(key, now_s)
        if self._count >= self.most:
            given_up = self._most_dispensable(key, now_s)
            is_full = self._count >= self.most * _SPARE and not self.is_vouched(key, now_s)
            if given_up is None and (len(crowd) >= limit or is_full):
                return None, None
        elif len(crowd) >= limit and now_s >= self._next_eviction_s:
            given_up = _oldest_idle(crowd, now_s - FRESH_S)
            self._next_eviction_s = now_s + EVICTION_EACH_S
        if given_up is not None:
            self.left(given_up)
        self._places.setdefault(key, set()).add(place)
        self._count += 1
        return place, given_up

    def left(self, place: Place) -> None:
        """The connection is gone, or proven; may be repeated."""
        crowd = self._places.get(place.key, set())
        if place in crowd:
            crowd.remove(place)
            self._count -= 1
        if not crowd:
            self._places.pop(place.key, None)

    def may_serve(self, key: str, now_s: float) -> bool:
        """Whether one more request of ``key`` may be served that does not look signed."""
        busy = sum(place.asks for place in self._places.get(key, ()))
        return busy < self._limit(key, now_s)

    def wait_s(self, key: str, now_s: float) -> float:
        """How long a request of ``key`` is to wait for its turn; asking counts as one."""
        if self.is_vouched(key, now_s):
            return 0.0
        if len(self._due_s) > _PACED:
            self._due_s = {known: due_s for known, due_s in self._due_s.items() if due_s > now_s - BURST * PACE_S}
        due_s = max(self._due_s.get(key, -inf), now_s - BURST * PACE_S) + PACE_S
        self._due_s[key] = due_s
        return max(0.0, due_s - now_s)

    def vouch(self, key: str, now_s: float) -> None:
        """A signed request came from ``key``."""
        self._vouched = {known: until_s for known, until_s in self._vouched.items() if until_s > now_s}
        self._vouched[key] = now_s + VOUCHED_S

    def is_vouched(self, key: str, now_s: float) -> bool:
        """Whether a signed request came from ``key`` lately."""
        return self._vouched.get(key, 0.0) > now_s

    def _limit(self, key: str, now_s: float) -> int:
        return max(self.per_address, self.most // 2) if self.is_vouched(key, now_s) else self.per_address

    def _most_dispensable(self, newcomer: str, now_s: float) -> Place | None:
        """The oldest idle one of the address with most of its share, and with no less than ``newcomer``."""
        shares = {key: len(crowd) / self._limit(key, now_s) for key, crowd in self._places.items()}
        least = shares.get(newcomer, 0.0)
        for key in sorted(shares, key=shares.__getitem__, reverse=True):
            if shares[key] < least:
                break
            if (place := _oldest_idle(self._places[key], now_s)) is not None:
                return place
        return None


def _oldest_idle(crowd: set[Place], since_s: float) -> Place | None:
    idle = [place for place in crowd if place.idle_since_s is not None and place.idle_since_s <= since_s]
    return min(idle, key=lambda place: place.idle_since_s or 0.0, default=None)

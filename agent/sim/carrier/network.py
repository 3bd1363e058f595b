"""What happens to messages between carrier and agent. No I/O, no clock."""

from math import inf
from random import Random
from typing import Final

import attrs

from agent.sim.profile import Profile

DELAY_S: Final = (0.02, 0.08)
JITTER_S: Final = (0.005, 0.03)
STALL_EVERY_S: Final = 12.0
STALL_S: Final = 0.6
"""In ``real``; a stall of 600 ms in the middle of a sentence was seen."""


@attrs.frozen(kw_only=True)
class Network:
    """A network's faults. Nothing is reordered: TCP never does, it only waits.

    ``delay_s`` is one way and the same both ways, ``jitter_s`` the most that is added to it at random (from
    ``seed``), ``loss`` the share of caller frames that never come (their timestamps jump). Without ``silence``
    a silent caller sends nothing at all. About every ``stall_every_s`` the line stalls for up to ``stall_s``, and
    then all comes in a burst.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    silence: bool = True
    seed: int = 0
    stall_every_s: float = inf
    stall_s: float = 0.0

    @property
    def latest_s(self) -> float:
        """How long a message is on its way at the most."""
        return self.delay_s + self.jitter_s + self.stall_s


def network_of(profile: Profile) -> Network:
    """The network of a simulated world: perfect in ``kind``; in ``real`` late, uneven, and at times stalled."""
    if not profile.is_real:
        return Network()
    chance = profile.chance("network")
    return Network(
        delay_s=chance.uniform(*DELAY_S),
        jitter_s=chance.uniform(*JITTER_S),
        stall_every_s=STALL_EVERY_S,
        stall_s=STALL_S,
        seed=chance.getrandbits(32),
    )


@attrs.define(eq=False)
class OneWay:
    """One direction of a connection: says when what is sent now arrives."""

    _network: Network
    _random: Random = attrs.field(init=False)
    _last_s: float = -inf
    _stall: tuple[float, float] = (-inf, -inf)
    """From when to when nothing arrives: the present stall, or the next."""

    @_random.default
    def _make_random(self) -> Random:
        return Random(self._network.seed)  # noqa: S311  (repeatable on purpose)

    def arrival_s(self, now: float) -> float:
        """When a message sent ``now`` arrives, never before the one sent before it."""
        jitter_s = self._random.uniform(0, self._network.jitter_s) if self._network.jitter_s else 0.0
        self._last_s = max(self._last_s, now + self._network.delay_s + jitter_s)
        if self._network.stall_every_s < inf:
            self._last_s = self._after_stalls(self._last_s)
        return self._last_s

    def _after_stalls(self, at_s: float) -> float:
        if self._stall[1] <= at_s:
            begins_s = at_s + self._network.stall_every_s * self._random.uniform(0.5, 1.5)
            self._stall = begins_s, begins_s + self._random.uniform(0, self._network.stall_s)
        return self._stall[1] if self._stall[0] <= at_s else at_s

    def loses(self) -> bool:
        """Whether the next frame is lost."""
        return self._network.loss > 0 and self._random.random() < self._network.loss

"""What happens to messages between carrier and agent. No I/O, no clock."""

from math import inf
from random import Random

import attrs


@attrs.frozen(kw_only=True)
class Network:
    """A network's faults. Nothing is reordered: TCP never does, it only waits.

    ``delay_s`` is one way and the same both ways, ``jitter_s`` the most that is added to it at random (from
    ``seed``), ``loss`` the share of caller frames that never come (their timestamps jump). Without ``silence``
    a silent caller sends nothing at all.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    silence: bool = True
    seed: int = 0


@attrs.define(eq=False)
class OneWay:
    """One direction of a connection: says when what is sent now arrives."""

    _network: Network
    _random: Random = attrs.field(init=False)
    _last_s: float = -inf

    @_random.default
    def _make_random(self) -> Random:
        return Random(self._network.seed)  # noqa: S311  (repeatable on purpose)

    def arrival_s(self, now: float) -> float:
        """When a message sent ``now`` arrives, never before the one sent before it."""
        jitter_s = self._random.uniform(0, self._network.jitter_s) if self._network.jitter_s else 0.0
        self._last_s = max(self._last_s, now + self._network.delay_s + jitter_s)
        return self._last_s

    def loses(self) -> bool:
        """Whether the next frame is lost."""
        return self._network.loss > 0 and self._random.random() < self._network.loss

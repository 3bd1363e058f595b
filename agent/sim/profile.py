"""How unkind the simulated world is: ``kind``, in which only what a test asks for goes wrong, or ``real``.

In ``real`` model and carrier do what was seen of the real services, by chance. All chance comes from one seed, so
a run can be repeated: each part draws from numbers of its own, whatever the others do.
"""

from random import Random
from typing import Literal, Self

import attrs

ProfileName = Literal["kind", "real"]


@attrs.frozen
class Profile:
    """``kind`` by default; ``Profile.real(7)`` is the real world with 7 as its seed."""

    name: ProfileName = "kind"
    seed: int = 0
    quiet_room: bool = False
    """In ``real``: the model takes neither noise nor the agent's own echo for speech."""

    @classmethod
    def real(cls, seed: int, *, quiet_room: bool = False) -> Self:
        """The real world; everything that happens by chance follows from ``seed``."""
        return cls("real", seed, quiet_room)

    @property
    def is_real(self) -> bool:
        """Whether anything happens by chance."""
        return self.name == "real"

    def chance(self, part: str) -> Random:
        """The numbers that ``part`` of the simulation draws."""
        return Random(f"{self.seed} {part}")  # noqa: S311  (repeatable on purpose)

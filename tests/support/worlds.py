"""Whole calls in both worlds of the simulators: ``@in_worlds(real=range(10))`` above any test of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partialmethod
from typing import Any, TypeVar

import pytest
import trio

from agent.sim.carrier import stream
from agent.sim.carrier.network import network_of
from agent.sim.model.server import ScriptedRealtime
from agent.sim.profile import Profile

Test = TypeVar("Test", bound=Callable[..., Any])


def in_worlds(*, real: Iterable[int], quiet_room: bool = True) -> Callable[[Test], Test]:
    """Run a test in the kind world and in the real ones with these seeds.

    What it says of its model's profile or its carrier's network by itself stays. A test that counts barge-ins or
    turns has a quiet room, as noise that is taken for speech adds to both.
    """
    worlds = [Profile(), *(Profile.real(seed, quiet_room=quiet_room) for seed in real)]
    chosen = pytest.mark.parametrize("world", worlds, indirect=True, ids=_name)

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.usefixtures("world")(chosen(test))
        return marked

    return mark


def _name(world: Profile) -> str:
    return f"real-{world.seed}" if world.is_real else world.name


def live_in(world: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every simulator that is not told otherwise be of this world, and have tasks run in its order."""
    if world.is_real:
        began = partialmethod(ScriptedRealtime.__init__, profile=world)
        monkeypatch.setattr(ScriptedRealtime, "__init__", began)
        monkeypatch.setattr(stream, "Network", lambda: network_of(world))
        monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio._core._run._r.seed(world.seed)

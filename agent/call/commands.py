"""What the conversation decides, as values, and how they reach the one who carries them out. Pure.

A step is one synchronous decision: an event of the model, a turn of the clock, something that we want said. What
it wants done is handed over as a whole when it ends, also if that is nothing: its state may have changed, and
whoever waits for that is woken there and nowhere else, so that no place has to remember to.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import attrs

from agent.audio.generation import Generation
from agent.model.events import FunctionCallDone


@attrs.frozen
class ToModel:
    """Send an event to the model, behind those before it."""

    message: str


@attrs.frozen(eq=False)
class Speak:
    """Give the generation its scope and its task, and let it speak after those before it."""

    generation: Generation


@attrs.frozen(eq=False)
class Complete:
    """The generation takes no more audio: the pacer may have to be woken for its end."""

    generation: Generation


@attrs.frozen(eq=False)
class Interrupt:
    """Cancel the scopes of these generations and have the carrier clear what it holds."""

    generations: tuple[Generation, ...]


@attrs.frozen(eq=False)
class Withdraw:
    """Cancel the scope of a generation of which nothing was sent."""

    generation: Generation


@attrs.frozen
class CallTool:
    """Run a tool as a guest of the call."""

    call: FunctionCallDone


@attrs.frozen
class GiveUp:
    """The model is of no use any more: apologise and hang up."""

    reason: str


@attrs.frozen
class RenewSession:
    """This session with the model is over: open another."""

    reason: str


@attrs.frozen
class RateLimited:
    """The provider answers nobody for ``wait_s``: new calls would hear silence."""

    wait_s: float


Command = RateLimited | ToModel | Speak | Complete | Interrupt | Withdraw | CallTool | GiveUp | RenewSession


@attrs.define(eq=False)
class Commands:
    """The commands of the step under way.

    ``carry_out`` gets them in order when the step ends, an empty sequence included; it may neither block nor
    raise, and may begin steps of its own. A command that is added outside of a step is a step by itself.
    """

    carry_out: Callable[[Sequence[Command]], None]
    _waiting: list[Command] = attrs.field(factory=list)
    _depth: int = 0

    def add(self, command: Command) -> None:
        """Have something done at the end of the step."""
        with self.step():
            self._waiting.append(command)

    @contextmanager
    def step(self) -> Iterator[None]:
        """One decision; one within another is a part of it. What was decided before an error is carried out."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                taken, self._waiting = self._waiting, []
                self.carry_out(taken)


class Decides(Protocol):
    """Whoever makes decisions."""

    @property
    def commands(self) -> Commands:
        """Where they go."""


P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D", bound=Decides)


def decision(method: Callable[Concatenate[D, P], R]) -> Callable[Concatenate[D, P], R]:
    """Make a method one step."""

    @functools.wraps(method)
    def step(self: D, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.commands.step():
            return method(self, *args, **kwargs)

    return step

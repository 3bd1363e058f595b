"""Leaving: whether the call is about to end, why, and whether the caller lets it (MO-7). Pure.

There is one ``Departure`` in a call. It moves in the step in which something is decided; any speech start takes a
leaving back until the line is closed: nobody is hung up on while speaking.
"""

import enum
from collections.abc import Mapping
from typing import Final

import attrs

from agent.core.records import Outcome


class Presence(enum.Enum):
    """Whether the call goes on."""

    STAYING = "staying"
    LEAVING = "leaving"
    """It ends when its last word was heard, unless the caller speaks."""
    GIVEN_UP = "given up"
    """The model is gone for good: nobody is there who could answer, and nobody is asked."""
    GONE = "gone"
    """The line is closed, or the carrier has the call."""


class Move(enum.Enum):
    """What happens to it."""

    LEAVE = "leave"
    """The model wants to hang up or to transfer, or a farewell is due."""
    CALL_BACK = "call back"
    """The caller speaks or presses a key, or there is nowhere to go."""
    GIVE_UP = "give up"
    """No session with the model can be had any more."""
    END = "end"
    """The call is over, for whatever reason: also for a caller who goes on past the time limit, and the drain."""


MOVES: Final[Mapping[Presence, Mapping[Move, Presence]]] = {
    Presence.STAYING: {
        Move.LEAVE: Presence.LEAVING,
        Move.GIVE_UP: Presence.GIVEN_UP,
        Move.END: Presence.GONE,
    },
    Presence.LEAVING: {
        Move.CALL_BACK: Presence.STAYING,
        Move.GIVE_UP: Presence.GIVEN_UP,
        Move.END: Presence.GONE,
    },
    Presence.GIVEN_UP: {Move.END: Presence.GONE},
    Presence.GONE: {},
}
"""What is not here changes nothing: the first reason to leave counts until it is taken back."""


@attrs.frozen(eq=False)
class Why:
    """Why a call ends, or is about to."""

    outcome: Outcome
    reason: str


@attrs.define(eq=False)
class Departure:
    """The end of one call, from the first thought of it."""

    presence: Presence = Presence.STAYING
    why: Why | None = None
    """None while it stays. Who waits to leave for one reason looks whether it is still this one."""

    @property
    def staying(self) -> bool:
        """Whether nobody thinks of leaving."""
        return self.presence is Presence.STAYING

    @property
    def final(self) -> bool:
        """Whether it cannot be taken back: nobody is asked anything any more."""
        return self.presence in (Presence.GIVEN_UP, Presence.GONE)

    @property
    def ended(self) -> Why | None:
        """Why the call is over; None while it is not."""
        return self.why if self.presence is Presence.GONE else None

    def move(self, move: Move, why: Why | None = None) -> bool:
        """Make a move of the table, with its reason; False if it makes none from here."""
        presence = MOVES[self.presence].get(move)
        if presence is not None:
            self.presence, self.why = presence, why
        return presence is not None

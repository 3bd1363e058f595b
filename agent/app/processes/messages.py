"""What parent and children tell each other."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec

Role = Literal["calls", "worker"]


class Birth(msgspec.Struct, tag="birth", frozen=True):
    """To a child, first; with the descriptors of the board and of the listeners."""

    number: int
    place: int
    """Of its row on the board."""
    role: Role
    settings: dict[str, Any]
    """What beats the environment, by field of Settings."""
    server_id: UUID
    secret: bytes
    """Of the tokens that all processes give and take."""
    model_url: str
    """Where the parent's embedded model is; empty: it has none."""
    listeners: int
    """The descriptors of so many follow that of the board; the others are the operators' port."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """From a child: it takes calls."""


class Retire(msgspec.Struct, tag="retire", frozen=True):
    """To a child: others take the calls now; leave when your last one has ended."""


class PassOn(msgspec.Struct, tag="pass_on", frozen=True):
    """From a child to the parent, and from there to the child ``to``; with the descriptor of a connection."""

    to: int
    unread: bytes
    """To be read before the connection."""


class Report(msgspec.Struct, tag="report", frozen=True):
    """To a child: say your figures."""


class Figures(msgspec.Struct, tag="figures", frozen=True):
    """From a child: its own, as Prometheus reads them. Also its last word."""

    text: str


class AskAll(msgspec.Struct, tag="ask_all", frozen=True):
    """From a child: somebody asked it for the figures of all."""


class AllFigures(msgspec.Struct, tag="all_figures", frozen=True):
    """The answer to it."""

    text: str


Message = Birth | Ready | Retire | PassOn | Report | Figures | AskAll | AllFigures

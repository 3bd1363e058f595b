"""A table of states, printed for ``docs/`` and for whoever debugs a call. Pure."""

import enum
from collections.abc import Mapping
from typing import TypeVar

_S = TypeVar("_S", bound=enum.Enum)
_E = TypeVar("_E", bound=enum.Enum)


def as_markdown(name: str, table: Mapping[_S, Mapping[_E, _S]], events: type[_E]) -> str:
    """A row for each state and a column for each event; where the table has nothing, the state stays.

    ``name`` is what a state is called.
    """
    rows = [[name, *(event.value for event in events)], ["---"] * (len(events) + 1)]
    rows += [[at.value, *(to.get(event, at).value for event in events)] for at, to in table.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

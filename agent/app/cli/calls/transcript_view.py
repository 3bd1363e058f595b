"""A transcript for people to read: who said what when, and what was heard of it. Pure."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Column
from rich.text import Text

from agent.app.cli.grids import grid
from agent.app.cli.terminal_text import shown
from agent.core.records import Turn


def unheard(turn: Turn) -> str:
    """The words of an agent's turn that the caller did not hear."""
    return turn.text.removeprefix(turn.heard_text).strip()


def tell_transcript(turns: Iterable[Turn]) -> RenderableType:
    """Who said what when; of an interrupted answer what was heard, and what was not."""
    table = grid(Column(justify="right", style="dim", no_wrap=True), Column(no_wrap=True))
    for turn in turns:
        who = Text(turn.role, "bold cyan" if turn.role == "caller" else "bold yellow")
        table.add_row(f"{turn.started_ms / 1000:.1f} s", who, _words(turn))
    return Group(Text("Transcript: what was heard", "bold"), table)


def _words(turn: Turn) -> Text:
    if not turn.text:
        return Text("(no words)", "dim")
    words = Text(shown(turn.heard_text))
    if turn.interrupted and (rest := unheard(turn)):
        words.append(" " if turn.heard_text else "")
        words.append("[not heard: ", "dim").append(shown(rest), "dim strike").append("]", "dim")
    return words

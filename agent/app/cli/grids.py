"""Tables without lines, for people to read. Pure."""

from rich.table import Column, Table


def grid(*columns: Column) -> Table:
    """A table without lines of ``columns`` and one more, the last, which folds what is too long for it."""
    return Table.grid(*columns, Column(overflow="fold"), padding=(0, 2))


def facts_table() -> Table:
    """Names on the left, values on the right."""
    return grid(Column(style="dim", no_wrap=True))

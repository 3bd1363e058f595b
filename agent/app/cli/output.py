"""How commands print: tables as wide as the terminal, wider where there is none, and JSON for scripts."""

import json
import os
from typing import Any, Final

from rich.console import Console

WIDE: Final = 200
"""Columns of a file or a pipe, which has no width of its own."""


def open_console() -> Console:
    """Standard output for people."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=WIDE)
    return console


def print_json(value: Any) -> None:
    """Standard output for scripts: UTF-8 as it is."""
    print(json.dumps(value, ensure_ascii=False, indent=2))  # noqa: T201  (the command's output, not a log)

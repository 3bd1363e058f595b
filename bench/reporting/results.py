"""The benchmark's results, one JSON document a line: kept beside the report that is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.load import RunResult
from bench.machine import Machine
from bench.reporting.table import Row
from bench.search import Largest

RESULTS: Final = Path("docs/benchmarks.jsonl")


class RunLine(msgspec.Struct, tag="run", tag_field="kind"):
    """A load run."""

    when: str
    machine: Machine
    command: str
    result: RunResult


class LargestLine(msgspec.Struct, tag="largest", tag_field="kind"):
    """What a search found."""

    when: str
    machine: Machine
    command: str
    result: Largest


class RowLine(msgspec.Struct, tag="row", tag_field="kind"):
    """A row of another part."""

    when: str
    machine: Machine
    command: str
    result: Row


Line = RunLine | LargestLine | RowLine


def append(path: Path, lines: Sequence[Line]) -> None:
    """Add ``lines``. Numbers that are none are written as Python's json does (NaN, Infinity)."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(msgspec.to_builtins(line)) + "\n" for line in lines)


def read(path: Path) -> list[Line]:
    """All lines. Raises OSError, ValueError for what is none."""
    texts = path.read_text().splitlines()
    return [msgspec.convert(json.loads(text), type=Line) for text in texts]

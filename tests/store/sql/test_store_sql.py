"""The SQL of the store can be read, pasted and found: each statement is one constant, and the server takes it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import agent.store

STORE = Path(agent.store.__file__).parent
PARAMETER = re.compile(r"%\((\w+)\)s")
OTHERS = {"_BOOKS", "step.sql", "psycopg.sql.SQL('LISTEN {}').format(psycopg.sql.Identifier(channel))"}
"""What is executed and stands elsewhere: the table of migrations, those themselves, the name of a channel."""


def executed() -> Iterator[tuple[str, ast.expr]]:
    """Where something is executed, and what."""
    for path in sorted([*STORE.glob("*.py"), *STORE.glob("sql/*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("execute", "fetch_all", "fetch_one")
            ):
                yield f"{path.relative_to(STORE)}:{node.args[0].lineno}", node.args[0]


STATEMENTS = {
    where: what.value
    for where, what in executed()
    if isinstance(what, ast.Constant) and isinstance(what.value, str)
}


def test_nothing_is_put_together() -> None:
    """No f-string, no joined pieces: what is not a constant of its own is known."""
    assert {ast.unparse(what) for where, what in executed() if where not in STATEMENTS} == OTHERS
    for where, what in executed():
        name, _, line = where.partition(":")
        first = (STORE / name).read_text("utf-8").splitlines()[int(line) - 1]
        assert what.lineno == what.end_lineno or first.strip().endswith('"""'), f"{where}: more than one string"


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_parameters_have_names(sql: str) -> None:
    assert "%" not in PARAMETER.sub("", sql)


@pytest.mark.sockets
def test_the_server_takes_each(postgres: str) -> None:
    """Parsed and planned against the schema, without a value."""
    prepared = 0
    with psycopg.connect(postgres, autocommit=True) as connection:
        for where, sql in STATEMENTS.items():
            if sql.split()[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
                continue
            numbers = {name: number for number, name in enumerate(dict.fromkeys(PARAMETER.findall(sql)), 1)}
            text = sql
            for name, number in numbers.items():
                text = text.replace(f"%({name})s", f"${number}")
            try:
                connection.execute(f"PREPARE one AS {text}".encode())
            except psycopg.Error as error:
                pytest.fail(f"{where}: {error}")
            connection.execute("DEALLOCATE one")
            prepared += 1
    assert prepared == len(STATEMENTS) - 1, "all but the one that sets the isolation"

"""AGENT_TOOLS: the README's example works, and what cannot be used is said at start."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.call.tools.declare import END_CALL, ToolCall
from agent.call.tools.loading import load_tools
from agent.core.errors import SettingsError
from agent.core.tenant import Tenant

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


async def test_the_readmes_example(modules: Path) -> None:
    [example] = re.findall(r"```python\n(# shop_tools\.py\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    (modules / "shop_tools.py").write_text(example, "utf-8")
    [stock] = load_tools("shop_tools", [END_CALL])
    assert stock.name == "in_stock"
    call = ToolCall("call_1", "CA1", Tenant("shop", "Shop"), "+15550001111", datetime.now(UTC))
    assert stock.function is not None
    assert await stock.function(call, **stock.read('{"article": "Umbrella"}')) == {"pieces": 3}


def test_none_are_none() -> None:
    assert load_tools("") == load_tools(" , ") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no function decorated with @tool"),
        ("1 / 0", "cannot be imported.*ZeroDivisionError"),
        ("from agent.call.tools.declare import END_CALL", "two tools named end_call"),
        ("from agent.call.tools.declare import tool\n@tool\nasync def f(call): pass", "a docstring is needed"),
    ],
)
def test_what_cannot_be_used_is_named(modules: Path, text: str, said: str) -> None:
    (modules / "broken_tools.py").write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=said):
        load_tools("broken_tools", [END_CALL])


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="AGENT_TOOLS: no_such_module cannot be imported"):
        load_tools("no_such_module")

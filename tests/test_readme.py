"""The README's settings table is the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from agent.core.settings import DEFAULT_INSTRUCTIONS, Settings

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_rows() -> list[str]:
    """The table's rows as ``agent/core/settings.py`` has them."""
    rows = []
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        assert isinstance(alias, AliasChoices)
        rows.append(f"| `{alias.choices[0]}` | {_shown(field.default)} | {field.description} |")
    return rows


def _shown(default: Any) -> str:
    if default is None or default == "":
        return ""
    if default == DEFAULT_INSTRUCTIONS:
        return "a friendly receptionist"
    if isinstance(default, bool):
        return str(int(default))
    if isinstance(default, float):
        return f"{default:g}"
    return str(default)


def test_the_settings_table_is_the_settings() -> None:
    """Every setting, with its default and description, and no other."""
    text = README.read_text(encoding="utf-8")
    table = text.partition("<!-- settings:")[2].partition("<!-- /settings -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == settings_rows()

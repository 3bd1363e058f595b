"""The documents say what the code is: the table of settings, the files to read, the links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from agent.core.settings import DEFAULT_INSTRUCTIONS, Settings

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SETTINGS = ROOT / "docs" / "settings.md"


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
    text = SETTINGS.read_text(encoding="utf-8")
    table = text.partition("<!-- settings:")[2].partition("<!-- /settings -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == settings_rows()


def test_every_file_that_the_readme_names_is_there() -> None:
    """In code or as a link."""
    text = README.read_text(encoding="utf-8")
    named = {
        *re.findall(r"`((?:agent|bench|docs|tests)/[\w./-]*)`", text),
        *re.findall(r"\]\(([\w./-]+)\)", text),
    }
    assert named
    assert not [name for name in sorted(named) if not (ROOT / name).exists()]

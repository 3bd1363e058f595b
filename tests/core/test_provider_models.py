"""Models are named in one place, so that one that its provider retires is changed in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agent.core import provider_models
from agent.core.provider_models import language_hint, reasons, tells_times
from agent.core.settings import Settings

AGENT = Path(provider_models.__file__).parent
NAMES = re.compile(r"(gpt|whisper|tts|o[134])-[\w.-]+")
RETIRED = ("gpt-5-mini", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""By their provider, from December 2026 to February 2027."""


def named_in(path: Path) -> list[str]:
    """The models that a module names in a string of its own, prose left out."""
    constants = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str) and NAMES.fullmatch(node.value)]


def test_no_other_module_names_a_model() -> None:
    found = {path.relative_to(AGENT): models for path in AGENT.rglob("*.py") if (models := named_in(path))}
    assert list(found) == [Path(provider_models.__file__).relative_to(AGENT)]


def test_no_default_is_a_model_that_is_retired() -> None:
    fields = ("model", "transcription_model", "summary_model", "recording_model")
    defaults = [Settings.model_fields[name].default for name in fields]
    assert defaults == ["gpt-realtime-2.1", "", "gpt-6.1-terra", "gpt-transcribe"]
    assert not set(defaults) & set(RETIRED)


def test_what_a_name_tells() -> None:
    assert [reasons(model) for model in ("gpt-6.1-terra", "o4-mini", "gpt-4o-mini")] == [True, True, False]
    assert [tells_times(model) for model in ("whisper-1", "gpt-transcribe")] == [True, False]


@pytest.mark.parametrize(
    ("model", "language", "hint"),
    [
        ("gpt-transcribe", "pt-BR", {"languages": ["pt"]}),
        ("gpt-live-transcribe", "he", {"languages": ["he"]}),
        ("whisper-1", "EN", {"language": "en"}),
        ("gpt-transcribe", "", {}),
    ],
)
def test_each_model_is_told_the_language_in_its_own_field(model: str, language: str, hint: object) -> None:
    assert language_hint(model, language) == hint

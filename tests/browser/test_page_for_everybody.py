"""The page in a real Chromium before a server that plays its part: every state of it, for everybody."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.parts.browser.chromium import HOW_TO_GET_IT, chromium
from bench.parts.browser.scenes import SCENES
from bench.parts.browser.screenshots import SHAPES

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(not (find_spec("playwright") and chromium()), reason=HOW_TO_GET_IT),
]


def run(*arguments: object) -> str:
    """Run a program of this project; what it prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_state_is_for_everybody() -> None:
    """Axe finds nothing, light and dark, in both directions; buttons keep their names; errors say what to do."""
    found = json.loads(run("tests/support/page_audit.py"))
    assert found["violations"] == {}
    assert found["looked_at"] == 4 * len(SCENES)
    assert found["least_passed"] > 20, "it looked"
    for name, told in found["told"].items():
        what = name.partition("-")[0]
        assert told["state"] == {"keys": "talking", "interrupted": "talking"}.get(what, what), name
        assert bool(told["trouble"]) == ("-" in name), name
    errors = [told["trouble"] for name, told in found["told"].items() if name.startswith("error")]
    assert all(re.search(r"\w\. \w.*\w\.$|\. only this", sentence) for sentence in errors), errors


def test_a_picture_of_a_state_in_each_look(tmp_path: Path) -> None:
    run("-m", "bench", "screenshots", tmp_path, "--only", "idle", "--only", "error-refused")
    assert len(list(tmp_path.glob("*.png"))) == 2 * len(SHAPES) * 2 * 2

"""``agent`` itself: what users import for their own tools, and nothing before they do."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agent
from agent.call.tools.declare import ToolCall
from agent.core.errors import ToolError


def test_every_public_name_is_there() -> None:
    for name in agent.__all__:
        assert getattr(agent, name) is not None
        assert name in dir(agent)
    assert agent.ToolCall is ToolCall
    assert agent.ToolError is ToolError


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        _ = agent.serve


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    code = "import sys, agent; sys.exit(', '.join(m for m in sys.modules if m.startswith('agent.')) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")

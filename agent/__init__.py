"""A phone agent developers can reason about: Twilio Media Streams, OpenAI Realtime, Trio.

The public face, for tools of your own (README, "Tools"): ``from agent import tool, ToolCall, ToolError``.
Nothing is imported until it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.call.tools.declare import Tool, ToolCall, make_tool, tool
    from agent.core.errors import AgentError, ToolError

__all__ = ["AgentError", "Tool", "ToolCall", "ToolError", "make_tool", "tool"]

_HOMES = {
    "AgentError": "agent.core.errors",
    "Tool": "agent.call.tools.declare",
    "ToolCall": "agent.call.tools.declare",
    "ToolError": "agent.core.errors",
    "make_tool": "agent.call.tools.declare",
    "tool": "agent.call.tools.declare",
}


def __getattr__(name: str) -> Any:
    """The public name, imported now. Raises AttributeError for any other."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """All public names, those not imported yet included."""
    return sorted({*globals(), *__all__})

"""Tools of users: every ``agent.call.tools.declare.Tool`` in the modules that AGENT_TOOLS names."""

import importlib
from collections.abc import Iterable

from agent.call.tools.declare import Tool
from agent.core.errors import SettingsError


def load_tools(modules: str, there_are: Iterable[Tool] = ()) -> tuple[Tool, ...]:
    """Import ``modules`` (names divided by commas) and collect their tools, in the order of their definition.

    Raises SettingsError for a module that cannot be imported or has none, and for a name that ``there_are`` has.
    """
    taken = {tool.name for tool in there_are}
    found: list[Tool] = []
    for name in filter(None, (part.strip() for part in modules.split(","))):
        try:
            module = importlib.import_module(name)
        # A module is someone's code: whatever it raises, it is the setting that cannot be used.
        except Exception as error:
            raise SettingsError(f"AGENT_TOOLS: {name} cannot be imported: {error!r}") from error
        tools = [value for value in vars(module).values() if isinstance(value, Tool)]
        if not tools:
            raise SettingsError(f"AGENT_TOOLS: there is no function decorated with @tool in {name}")
        for tool in tools:
            if tool.name in taken:
                raise SettingsError(f"AGENT_TOOLS: there are two tools named {tool.name}")
            taken.add(tool.name)
        found += tools
    return tuple(found)

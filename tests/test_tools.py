"""Tools are declared as the provider's own types want them."""

from __future__ import annotations

from openai.types.realtime import RealtimeFunctionTool

from agent.tools import END_CALL, Tool


def test_end_call_is_declared_as_the_provider_wants_it() -> None:
    declared = END_CALL.declare()
    tool = RealtimeFunctionTool.model_validate(declared)
    assert tool.to_dict() == declared, "and with nothing that it does not know"
    assert tool.name == "end_call"


def test_a_declaration_is_the_callers_own_to_change() -> None:
    tool = Tool("echo", "Say it again.", {"type": "object"})
    tool.declare()["parameters"]["type"] = "string"
    assert tool.parameters == {"type": "object"}

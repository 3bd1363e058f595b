"""JSON Schema, as much as our published ones use: does a value fit, and which values would."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

_KNOWN: Final = frozenset(
    [
        "$schema",
        "$id",
        "$defs",
        "$ref",
        "title",
        "description",
        "examples",
        "type",
        "enum",
        "properties",
        "required",
        "items",
        "anyOf",
        "additionalProperties",
    ]
)
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def check(value: Any, shape: dict[str, Any], root: dict[str, Any]) -> None:
    """Raise AssertionError unless ``value`` fits; also if the schema uses a word that is not looked at here."""
    assert set(shape) <= _KNOWN
    if "$ref" in shape:
        check(value, root["$defs"][shape["$ref"].removeprefix("#/$defs/")], root)
    assert value in shape.get("enum", [value])
    if "anyOf" in shape:
        assert any(passes(value, option, root) for option in shape["anyOf"]), (value, shape)
    if "type" in shape:
        assert isinstance(value, _TYPES[shape["type"]]), (value, shape)
        assert shape["type"] == "boolean" or not isinstance(value, bool)
    _check_members(value, shape, root)


def _check_members(value: Any, shape: dict[str, Any], root: dict[str, Any]) -> None:
    if "properties" in shape:
        assert set(shape["required"]) <= set(value)
        for name, inner in shape["properties"].items():
            check(value[name], inner, root)
    elif isinstance(shape.get("additionalProperties"), dict):
        for inner in value.values():
            check(inner, shape["additionalProperties"], root)
    for inner in value if "items" in shape else ():
        check(inner, shape["items"], root)


def passes(value: Any, shape: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether ``value`` fits."""
    try:
        check(value, shape, root)
    except AssertionError:
        return False
    return True


def values(shape: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Whatever fits ``shape``."""
    if "$ref" in shape:
        return values(root["$defs"][shape["$ref"].removeprefix("#/$defs/")], root)
    if "enum" in shape:
        return st.sampled_from(shape["enum"])
    if "anyOf" in shape:
        return st.one_of([values(option, root) for option in shape["anyOf"]])
    return _values_of_type(shape, root)


def _values_of_type(shape: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    text = st.text(st.characters(codec="utf-8"), max_size=12)
    if "properties" in shape:
        return st.fixed_dictionaries({name: values(inner, root) for name, inner in shape["properties"].items()})
    if shape["type"] == "array":
        return st.lists(values(shape["items"], root), max_size=3)
    if shape["type"] == "object":
        return st.dictionaries(text, values(shape["additionalProperties"], root), max_size=3)
    simple: dict[str, st.SearchStrategy[Any]] = {
        "string": text,
        "integer": st.integers(-(2**53), 2**53),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return simple[shape["type"]]

"""MO-2: what the provider's own types allow is understood: nulls, absent or unknown fields, any output."""

from __future__ import annotations

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from agent.core.units import ResponseId
from agent.model import events as codec

CLASSES: Final[tuple[type[BaseModel], ...]] = get_args(get_args(RealtimeServerEvent)[0])
SERVER_EVENT: Final[TypeAdapter[Any]] = TypeAdapter(RealtimeServerEvent)
TEXTS: Final = st.sampled_from(["c2Fn", "resp1234"])
"""Good as words and as base64."""
STRANGE: Final = {"a_field_of_tomorrow": {"deep": [None, {"type": 7}]}}

Given = Literal["null", "absent", "any"]
"""What becomes of fields that need not be there."""


def values(annotation: Any, given_: Given) -> st.SearchStrategy[Any]:
    """JSON of a field's type."""
    origin, args = get_origin(annotation), get_args(annotation)
    found: st.SearchStrategy[Any]
    if origin is Literal:
        found = st.sampled_from(args)
    elif origin is list:
        found = st.lists(values(args[0], given_), min_size=1, max_size=3)
    elif origin is dict:
        found = st.dictionaries(TEXTS, values(args[1], given_), max_size=2)
    elif origin is not None:
        found = st.one_of([values(each, given_) for each in (args[:1] if origin is Annotated else args)])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found = objects(annotation, given_)
    else:
        found = SIMPLE[annotation]
    return found


SIMPLE: Final[dict[Any, st.SearchStrategy[Any]]] = {
    str: TEXTS,
    int: st.integers(0, 10**6),
    float: st.floats(0, 10**6),
    bool: st.booleans(),
    NoneType: st.none(),
    object: st.just({"name": None}),
}


@cache
def objects(model: type[BaseModel], given_: Given) -> st.SearchStrategy[dict[str, Any]]:
    """JSON of a type of the provider, with fields that it does not have."""
    needed, more = {}, {}
    for name, field in model.model_fields.items():
        if field.is_required() or is_needed(model, name):
            needed[field.alias or name] = values(required(field), given_)
        elif given_ == "null":
            needed[field.alias or name] = st.none()
        elif given_ == "any":
            more[field.alias or name] = values(field.annotation, given_)
    return st.fixed_dictionaries(needed, optional=more).map(lambda fields: {**fields, **STRANGE})


def is_needed(model: type[BaseModel], name: str) -> bool:
    """Without the id of a response nobody could say what its event is about."""
    return model.__name__ == "RealtimeResponse" and name == "id"


def required(field: FieldInfo) -> Any:
    """The type of a field that is there."""
    kinds = [each for each in get_args(field.annotation) if each is not NoneType]
    return kinds[0] if is_optional(field) and len(kinds) == 1 else field.annotation


def is_optional(field: FieldInfo) -> bool:
    """Whether its type has a null in it."""
    return get_origin(field.annotation) in (Union, UnionType) and NoneType in get_args(field.annotation)


def type_of(model: type[BaseModel]) -> str:
    """The name an event has on the wire."""
    return str(get_args(model.model_fields["type"].annotation)[0])


def test_the_events_we_read_are_events_of_the_provider() -> None:
    assert {type_of(model) for model in CLASSES} >= set(codec._BUILDERS)


@pytest.mark.parametrize("given_", get_args(Given))
@pytest.mark.parametrize("model", CLASSES, ids=type_of)
@settings(max_examples=30)
@given(data=st.data())
def test_every_event_of_the_provider_is_understood(
    model: type[BaseModel], given_: Given, data: st.DataObject
) -> None:
    """None is malformed, and what we read is not taken for something that nobody needs."""
    event = data.draw(objects(model, given_))
    if given_ == "absent":
        SERVER_EVENT.validate_python(event)
    decoded = codec.decode_event(msgspec.json.encode(event))
    assert isinstance(decoded, codec.OtherEvent) == (type_of(model) not in codec._BUILDERS)
    if isinstance(decoded, codec.ResponseDone):
        assert decoded.response_id == event["response"]["id"]
    if isinstance(decoded, codec.OutputItemAdded):
        assert decoded.name == (event["item"].get("name") or "")


def test_a_response_that_cannot_be_read_in_full_ends_all_the_same() -> None:
    """Its id and its status are enough."""
    troubles: list[dict[str, Any]] = [
        {"status_details": []},
        {"metadata": 7},
    ]
    for trouble in troubles:
        response = {"id": "resp_1", "status": "failed", **trouble}
        raw = msgspec.json.encode({"type": "response.done", "response": response})
        assert codec.decode_event(raw) == codec.ResponseDone(ResponseId("resp_1"), "failed", "", "")
    raw = msgspec.json.encode({"type": "response.done", "response": {"id": "resp_1", "status": {}}})
    assert codec.decode_event(raw) == codec.ResponseDone(ResponseId("resp_1"), "completed", "", "")


def test_an_event_that_nobody_needs_may_hold_anything() -> None:
    """Fields that we read elsewhere mean something else in an event of tomorrow."""
    raw = '{"type":"session.moved","session":3,"item":[],"delta":{},"error":"none","response":7}'
    assert codec.decode_event(raw) == codec.OtherEvent("session.moved")

"""Where the model is, from the settings."""

import pytest
import trio

from agent.core.errors import ModelUnavailableError
from agent.core.event_log import EventLog
from agent.core.settings import load_settings
from agent.core.telemetry import Telemetry
from agent.model.endpoint import ModelSide, model_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://127.0.0.1:9001/v1/realtime", "ws://127.0.0.1:9001/v1/realtime?model=gpt%2Fx%20y"),
        ("wss://h/v1/realtime?a=b%26c", "wss://h/v1/realtime?a=b%26c&model=gpt%2Fx%20y"),
        ("wss://h/v1/realtime?model=mine", "wss://h/v1/realtime?model=mine"),
        ("wss://h", "wss://h?model=gpt%2Fx%20y"),
    ],
)
def test_the_model_joins_the_query(url: str, expected: str) -> None:
    assert model_url(url, "gpt/x y") == expected


async def test_with_a_key_the_provider_answers_and_is_not_called_early() -> None:
    """No connection is made before the first call, so this runs without a network."""
    settings = load_settings(openai_api_key="sk-x", realtime_url="ws://127.0.0.1:1/v1/realtime", model="m")
    side = ModelSide(settings, EventLog(Telemetry()))
    assert side.not_ready
    with pytest.raises(ModelUnavailableError):
        side.connect()
    async with trio.open_nursery() as nursery:
        assert await nursery.start(side.run) == "ws://127.0.0.1:1/v1/realtime"
        assert not side.not_ready
        nursery.cancel_scope.cancel()

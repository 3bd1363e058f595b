"""For all tests: no log lines unless a test asks for them. Rendering them costs more than most tests do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import structlog


def _drop(_logger: Any, _method: str, _event: Any) -> NoReturn:
    raise structlog.DropEvent


@pytest.fixture(autouse=True, scope="session")
def quiet_logs() -> Iterator[None]:
    """Drop log events; counting and timelines are not touched."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()

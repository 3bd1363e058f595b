"""For all tests: no log lines unless a test asks for them. Rendering them costs more than most tests do."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import hypothesis
import pytest
import structlog
from databases import TestCluster, open_cluster
from worlds import live_in

from agent.sim.profile import Profile

hypothesis.settings.register_profile("without a clock", deadline=None)
hypothesis.settings.load_profile("without a clock")
"""An example's time is the machine's: beside other tests one of two milliseconds has taken half a second."""


def _drop(_logger: Any, _method: str, _event: Any) -> NoReturn:
    raise structlog.DropEvent


@pytest.fixture(autouse=True, scope="session")
def quiet_logs() -> Iterator[None]:
    """Drop log events; counting and timelines are not touched."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """SIGINT does what it does in a terminal, though the tests were started with it ignored (a shell's ``&``)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The world that ``worlds.in_worlds`` chose for a test."""
    profile: Profile = request.param
    live_in(profile, monkeypatch)
    return profile


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestCluster]:
    """A Postgres server for the session; started when the first test asks for it."""
    with open_cluster() as running:
        yield running


@pytest.fixture
def postgres(cluster: TestCluster) -> Iterator[str]:
    """Connection string of a fresh, migrated database."""
    conninfo = cluster.make_database()
    yield conninfo
    cluster.drop(conninfo)


@pytest.fixture
def empty_postgres(cluster: TestCluster) -> Iterator[str]:
    """Connection string of a database with nothing in it."""
    conninfo = cluster.make_database(migrated=False)
    yield conninfo
    cluster.drop(conninfo)

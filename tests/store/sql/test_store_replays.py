"""First answers in Postgres: one for each key, whoever asks, for as long as it lives. DO-2."""

from collections.abc import AsyncIterator

import pytest
from psycopg.rows import TupleRow

from agent.store.pg import Connection, open_connection
from agent.store.sql.replays import first_answer

pytestmark = pytest.mark.sockets
HOUR_S = 3600.0


@pytest.fixture
async def connection(postgres: str) -> AsyncIterator[Connection[TupleRow]]:
    async with open_connection(postgres) as opened:
        yield opened


async def test_the_first_answer_stays(connection: Connection[TupleRow]) -> None:
    assert await first_answer(connection, b"a", "one", HOUR_S) == "one"
    assert await first_answer(connection, b"a", "two", HOUR_S) == "one"
    assert await first_answer(connection, b"b", "two", HOUR_S) == "two"


async def test_an_answer_past_its_life_is_forgotten_and_swept(connection: Connection[TupleRow]) -> None:
    for key in (b"a", b"b", b"c"):
        await first_answer(connection, key, "one", -1.0)
    assert await first_answer(connection, b"a", "two", HOUR_S) == "two"
    assert await first_answer(connection, b"a", "three", HOUR_S) == "two"
    assert await connection.fetch_one("SELECT count(*) FROM replays") == (1,)

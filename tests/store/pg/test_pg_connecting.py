"""Where to connect: hosts, ports and addresses as libpq has them, without a server; and what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from agent.store.pg import Connection, open_connection
from agent.store.pg.connecting import list_attempts


class Names(trio.abc.HostnameResolver):
    """Knows two hosts."""

    async def getaddrinfo(self, host: Any, port: Any, *hints: int) -> list[Any]:
        """Each address comes with the hints that were given."""
        await trio.lowlevel.checkpoint()
        known = {b"one": ["10.0.0.1", "10.0.0.1"], b"two": ["10.0.0.2", "fd00::2"]}
        if host not in known:
            raise OSError("no such host")
        return [(*hints[:3], "", (address, port)) for address in known[host]]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Nobody asks."""
        raise NotImplementedError


@pytest.fixture(autouse=True)
async def names(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)


async def attempts(params: dict[str, str | int | None]) -> list[tuple[str, ...]]:
    trio.socket.set_custom_hostname_resolver(Names())
    found = await list_attempts(params)
    return [tuple(str(attempt.get(key) or "") for key in ("host", "hostaddr", "port")) for attempt in found]


async def test_each_address_of_each_host_in_order() -> None:
    found = await attempts({"host": "one,two,/run/pg", "port": "1,2,3"})
    assert found == [
        ("one", "10.0.0.1", "1"),
        ("two", "10.0.0.2", "2"),
        ("two", "fd00::2", "2"),
        ("/run/pg", "", "3"),
    ]


async def test_one_port_is_everyones_and_none_is_the_default() -> None:
    assert await attempts({"host": "one,two", "port": 7}) == [
        ("one", "10.0.0.1", "7"),
        ("two", "10.0.0.2", "7"),
        ("two", "fd00::2", "7"),
    ]
    assert await attempts({"host": "one"}) == [("one", "10.0.0.1", "")]


async def test_what_need_not_be_looked_up_is_not() -> None:
    assert await attempts({"host": "/run/pg"}) == [("/run/pg", "", "")]
    assert await attempts({"host": "192.0.2.7"}) == [("192.0.2.7", "192.0.2.7", "")]
    assert await attempts({"host": "nowhere", "hostaddr": "192.0.2.7"}) == [("nowhere", "192.0.2.7", "")]
    assert await attempts({}) == [("", "", "")]


async def test_the_environment_counts_as_for_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "one,/run/pg")
    assert await attempts({}) == [("one", "10.0.0.1", ""), ("/run/pg", "", "")]


async def test_an_unknown_host_is_passed_over_and_only_unknown_ones_are_an_error() -> None:
    assert await attempts({"host": "nowhere,one"}) == [("one", "10.0.0.1", "")]
    with pytest.raises(psycopg.OperationalError, match=r"failed to resolve host 'nowhere'.*'neither'"):
        await attempts({"host": "nowhere,neither"})


async def test_numbers_that_do_not_match_are_an_error() -> None:
    with pytest.raises(psycopg.OperationalError, match="could not match"):
        await attempts({"host": "one,two", "port": "1,2,3"})
    with pytest.raises(psycopg.OperationalError, match="could not match"):
        await attempts({"host": "one,two", "hostaddr": "10.0.0.1"})


async def test_standbys_first_when_they_are_preferred() -> None:
    trio.socket.set_custom_hostname_resolver(Names())
    found = await list_attempts({"host": "one", "target_session_attrs": "prefer-standby"})
    assert [attempt.get("target_session_attrs") for attempt in found] == ["standby", None]


async def test_nonsense_is_a_programming_error() -> None:
    with pytest.raises(psycopg.ProgrammingError):
        await Connection.connect("postgres//")
    with pytest.raises(psycopg.ProgrammingError, match="connect_timeout"):
        await Connection.connect("host=/nowhere connect_timeout=soon")


@pytest.mark.sockets
async def test_the_first_host_that_lives_is_taken(empty_postgres: str, tmp_path: Path) -> None:
    """Past one that refuses, one that is not there, and one that says nothing for its two seconds."""
    params: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(empty_postgres)
    with trio.socket.socket() as silent, trio.socket.socket() as closed:
        for each in (silent, closed):
            await each.bind(("127.0.0.1", 0))
        silent.listen(1)
        params["host"] = f"127.0.0.1,{tmp_path},127.0.0.1,{params['host']}"
        params["port"] = f"{closed.getsockname()[1]},1,{silent.getsockname()[1]},{params['port']}"
        with trio.fail_after(10):
            async with open_connection(**params, connect_timeout=2) as connection:
                assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


@pytest.mark.sockets
async def test_each_host_that_is_dead_is_named(tmp_path: Path) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        await Connection.connect(f"host={tmp_path},{tmp_path}/b port=1 dbname=x user=x")
    assert str(caught.value).count("\n- host") == 2
    with pytest.raises(psycopg.OperationalError, match="No such file"):
        await Connection.connect(f"host={tmp_path} port=1 dbname=x user=x")


@pytest.mark.sockets
async def test_a_silent_host_is_given_up_after_connect_timeout() -> None:
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        port = silent.getsockname()[1]
        with trio.fail_after(5), pytest.raises(psycopg.errors.ConnectionTimeout):
            await Connection.connect(f"host=127.0.0.1 port={port} dbname=x user=x connect_timeout=2")


@pytest.mark.sockets
async def test_a_wrong_database_is_said_so(empty_postgres: str) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        await Connection.connect(empty_postgres, dbname="nowhere")

"""Where to connect: hosts as libpq understands them, names resolved without blocking the event loop."""

import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

import psycopg
import trio
from psycopg.abc import ConnDict, PQGenConn
from psycopg.conninfo import conninfo_attempts, make_conninfo, timeout_from_conninfo

from agent.store.pg.waiting import drive_connecting

RV = TypeVar("RV")


async def connect_first(params: ConnDict, start: Callable[[str], PQGenConn[RV]]) -> RV:
    """Try the hosts in turn; return the first connection that is made.

    Args:
        params: as :func:`psycopg.conninfo.conninfo_to_dict` gives them. Each attempt has ``connect_timeout``
            seconds (libpq's rules: at least 2; psycopg's default, 130, when it is not given).
        start: makes the generator that connects with a connection string.

    A cancel closes the half-made connection and its socket.

    Raises:
        psycopg.OperationalError: no host could be reached, or each refused; one line for each.
        psycopg.errors.ConnectionTimeout: a kind of the above; the last one did not answer in time.
    """
    timeout_s = timeout_from_conninfo(params)
    failures: list[tuple[str, psycopg.Error]] = []
    for attempt in await list_attempts(params):
        try:
            with trio.move_on_after(timeout_s):
                return await drive_connecting(start(make_conninfo("", **attempt)))
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")
        except psycopg.Error as error:
            where = ", ".join(f"{key} {attempt[key]}" for key in ("host", "hostaddr", "port") if attempt.get(key))
            failures.append((where, error))
    last = failures[-1][1]
    if len(failures) == 1:
        raise last
    lines = "\n".join(f"- {where}: {error}" for where, error in failures)
    raise type(last)(f"none of {len(failures)} servers could be connected to:\n{lines}")


async def list_attempts(params: ConnDict) -> list[ConnDict]:
    """The single connections to try, in order: one for each address of each host.

    What ``params`` leave out comes from the environment (``PGHOST``...) as it does for libpq.
    ``load_balance_hosts`` and ``target_session_attrs=prefer-standby`` are heeded.

    Raises:
        psycopg.OperationalError: not one of the hosts' names could be resolved, or the numbers of hosts,
            addresses and ports do not match.
    """
    hosts = _listed(params, "host", "PGHOST")
    addresses = _listed(params, "hostaddr", "PGHOSTADDR") or [""] * len(hosts)
    ports = _listed(params, "port", "PGPORT") or [""]
    if len(ports) == 1:
        ports *= len(hosts)
    if not hosts or not len(hosts) == len(addresses) == len(ports):
        return conninfo_attempts(params)  # nothing to resolve; or it says what does not match
    reachable: list[tuple[str, str, str]] = []
    failures: list[str] = []
    for host, address, port in zip(hosts, addresses, ports, strict=True):
        if address or not _is_name(host):
            reachable.append((host, address, port))
            continue
        try:
            reachable.extend((host, found, port) for found in await _resolve(host))
        except OSError as error:
            failures.append(f"failed to resolve host {host!r}: {error}")
    if not reachable:
        raise psycopg.OperationalError("; ".join(failures))
    joined = (",".join(column) for column in zip(*reachable, strict=True))
    return conninfo_attempts({**params, **dict(zip(("host", "hostaddr", "port"), joined, strict=True))})


def _listed(params: ConnDict, key: str, variable: str) -> list[str]:
    """A setting that may have several values, from the parameters or the environment."""
    value = params[key] if key in params else os.environ.get(variable)
    return str(value).split(",") if value not in (None, "") else []


def _is_name(host: str) -> bool:
    """Whether ``host`` must be looked up: neither empty, nor the directory of a Unix socket, nor an address."""
    if not host or host.startswith(("/", "@")):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


async def _resolve(host: str) -> list[str]:
    """The addresses of a host, in the resolver's order, without repetition."""
    found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

"""No descriptors left: the server lives, running calls are unharmed, new ones come when there are some again."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import httpx
import msgspec
import pytest
import trio
from virtual_call import make_settings

from agent.app.cli.doctor.checks import check_descriptors
from agent.app.descriptors import ReservingListener, places_for, raise_limit
from agent.core.event_log import EventLog
from agent.core.telemetry import Telemetry
from bench.generator.observations import CarrierReport
from bench.generator.plan import LoadPlan
from bench.rig.players import open_callers, open_model, read_report, server_settings, until_ready, window_of
from bench.rig.processes import Child, open_child

pytestmark = pytest.mark.sockets
FEW = 64
SERVE_WITH_FEW = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}))
sys.argv = ["agent", "serve", "--port", "0"]
runpy.run_module("agent", run_name="__main__")
"""


@contextmanager
def crowd(base: str, count: int) -> Iterator[None]:
    """So many connections that say nothing, from five addresses: the carrier has one of its own."""
    url = httpx.URL(base)
    with ExitStack() as stack:
        for number in range(count):
            one = stack.enter_context(socket.socket())
            one.bind((f"127.0.0.{2 + number % 5}", 0))
            one.setblocking(False)
            one.connect_ex((url.host, url.port or 80))
        yield


def said(agent: Child, event: str) -> int:
    """How often the server's log has it."""
    found = 0
    for line in agent.log.read_text(errors="replace").splitlines():
        assert "Traceback" not in line, line
        found += msgspec.json.decode(line).get("event") == event if line.startswith("{") else 0
    return found


async def test_do_3_two_hundred_connections_with_64_descriptors(tmp_path: Path) -> None:
    """Three calls go on meanwhile, records, embedded Postgres and all; afterwards the door is open as before."""
    plan = LoadPlan(calls=3, seconds=6.0)
    with trio.fail_after(120):
        async with open_model(plan, tmp_path, None) as (model, model_url):
            settings = server_settings(plan, model_url, tmp_path / "data")
            async with open_child(
                "agent", ["-c", SERVE_WITH_FEW], core=None, folder=tmp_path, settings=settings
            ) as agent:
                base = await until_ready(agent)
                async with open_callers(plan, base, tmp_path / "carrier.json", None) as callers:
                    await window_of(callers)
                    await trio.sleep(2.0)
                    with crowd(base, 200):
                        await trio.sleep(2.0)
                        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=20.0) as client:
                            assert (await client.get("/readyz")).status_code == httpx.codes.OK
                        await callers.until_done()
                        assert agent.process.returncode is None
                await agent.stop()
            await model.stop()
    report = read_report(tmp_path / "carrier.json", CarrierReport)
    assert [(call.failure, call.protocol_errors) for call in report.calls] == [("", [])] * 3
    assert len(list((tmp_path / "data" / "calls").glob("*.json"))) == 3
    assert said(agent, "DESCRIPTORS_FEW") == 1
    assert said(agent, "DESCRIPTORS_LOW") <= 1, "the lobby is small enough, or it is said once"


@pytest.mark.parametrize(("soft", "state"), [(4096, "ok"), (64, "problem")])
async def test_do_3_the_doctor_counts_descriptors(monkeypatch: pytest.MonkeyPatch, soft: int, state: str) -> None:
    monkeypatch.setattr("agent.app.cli.doctor.checks.raise_limit", lambda: soft)
    finding = await check_descriptors(make_settings(max_calls=200))
    assert finding.state == state
    assert f"{soft} files" in finding.detail
    assert "200 calls need 1752" in finding.detail


@pytest.mark.parametrize(("limit", "places"), [(2**20, 1024), (1752, 1024), (1652, 924), (64, 8)])
def test_do_3_the_lobby_is_as_large_as_the_calls_leave_it(limit: int, places: int) -> None:
    """So the crowd makes room for the carrier, before the listener has to pause for both."""
    assert places_for(limit, 200) == places


def test_the_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert raise_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_do_3_a_listener_pauses_says_so_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where accepting itself fails, for a limit of the machine, say."""
    events = EventLog(Telemetry())
    [inner] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = inner.socket.getsockname()
    async with inner:
        listener = ReservingListener(inner, events, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        listener.limit = 0
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept_one, listener)
                client = await trio.open_tcp_stream(*address)
                while not events.counts["DESCRIPTORS_LOW"]:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await trio.sleep(0.3)
                listener.limit = 1000
            await client.aclose()
            failures = [OSError(errno.ENFILE, "too many in the system"), OSError(errno.EPERM, "another")]

            async def fail(_: object) -> NoReturn:
                await trio.lowlevel.checkpoint()
                raise failures.pop(0)

            monkeypatch.setattr(trio.SocketListener, "accept", fail)
            with pytest.raises(OSError, match="another"):
                await listener.accept()
    assert events.counts == {"DESCRIPTORS_LOW": 1}


async def _accept_one(listener: ReservingListener) -> None:
    await (await listener.accept()).aclose()

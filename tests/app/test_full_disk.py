"""DO-3: a server that ends while no disk and no database takes a record leaves it to the next one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from small_disks import open_small_disk
from virtual_call import make_settings

from agent.app.cli.doctor.checks import check_data_dir
from agent.store.spool import Spool
from bench.generator.plan import LoadPlan, call_sid
from bench.rig.players import open_callers, open_model, open_server, server_settings, until_ready, window_of

pytestmark = pytest.mark.sockets
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


async def test_do_3_what_is_held_as_the_server_ends_is_left_to_the_next(tmp_path: Path) -> None:
    """The disk is full and Postgres is away: the record goes to the last resort, and is brought back."""
    plan, elsewhere = LoadPlan(calls=1, seconds=1.0), tmp_path / "elsewhere"
    with open_small_disk(tmp_path / "data") as disk, trio.fail_after(120):
        async with open_model(plan, tmp_path, None) as (model, model_url):
            settings = {
                **server_settings(plan, model_url, disk.path),
                "DATABASE_URL": NOWHERE,
                "AGENT_LAST_RESORT_DIR": str(elsewhere),
                "AGENT_ADMIN_PORT": "0",
            }
            async with open_server(tmp_path, None, settings) as agent:
                base = await until_ready(agent)
                async with open_callers(plan, base, tmp_path / "carrier.json", None) as callers:
                    await window_of(callers)
                    disk.fill()
                    await callers.until_done()
                while "RECORD_HELD" not in agent.log.read_text():  # noqa: ASYNC110
                    await trio.sleep(0.05)
                await agent.stop()
            said = re.findall(r'"event": "(RECORD\w*)"', agent.log.read_text())
            assert [event for event in said if event != "RECORDS_WAIT"] == [
                "RECORD_HELD",
                "RECORD_NOT_KEPT",
                "RECORD_KEPT",
            ]
            assert await Spool(elsewhere).waiting() == [call_sid(0)]
            disk.free()
            async with open_server(tmp_path, None, settings) as agent:
                await until_ready(agent)
                while await Spool(disk.path).waiting() != [call_sid(0)]:  # noqa: ASYNC110
                    await trio.sleep(0.05)
                while await Spool(elsewhere).waiting():  # noqa: ASYNC110
                    await trio.sleep(0.05)
                await agent.stop()
            await model.stop()
        assert await Spool(disk.path).load(call_sid(0)) is not None


@pytest.mark.parametrize(("free", "state"), [(2_000_000_000, "ok"), (10_000_000, "todo")])
async def test_the_doctor_looks_at_the_room_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert (await check_data_dir(make_settings(data_dir=tmp_path))).state == state

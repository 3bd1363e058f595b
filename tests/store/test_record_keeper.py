"""DO-3: a record is tried until it is kept, wherever there is a place for it, once, and never silently lost."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import trio
import trio.testing
from cancelling import strike
from ended_calls import make_record, sid
from small_disks import open_small_disk
from typing_extensions import override

from agent.core import durable
from agent.core.errors import DatabaseError
from agent.core.event_log import EventLog
from agent.core.records import CallRecord
from agent.core.telemetry import Telemetry
from agent.core.units import CallSid
from agent.store import record_keeper, spool
from agent.store.record_keeper import RecordKeeper, place_of_last_resort
from agent.store.spool import Spool, encode_record

pytestmark = pytest.mark.sockets
FULL = OSError(errno.ENOSPC, "No space left on device")


@attrs.define(eq=False)
class MoodyDisk(Spool):
    """A disk that raises ``trouble``; None: it works. With ``hangs`` it does not answer."""

    trouble: OSError | None = None
    hangs: bool = False

    @override
    async def save(self, record: CallRecord) -> Path:
        await self._be_moody()
        return await super().save(record)

    @override
    async def save_encoded(self, call_sid: CallSid, record: bytes) -> Path:
        await self._be_moody()
        return await super().save_encoded(call_sid, record)

    async def _be_moody(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble


@attrs.define(eq=False)
class Places:
    """Where records can go, and what was said of it."""

    disk: MoodyDisk
    last_resort: MoodyDisk
    away: Exception | None = attrs.field(factory=lambda: DatabaseError("away"))
    kept: list[str] = attrs.field(factory=list)
    said: list[tuple[str, dict[str, Any]]] = attrs.field(factory=list)
    looks: int = 0
    keeper: RecordKeeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        events = EventLog(Telemetry(), listener=lambda event, fields: self.said.append((event, fields)))
        self.keeper = RecordKeeper(self.disk, self.last_resort, self._keep, events, self._look)

    @property
    def held(self) -> float:
        """The metric."""
        return self.keeper.events.telemetry.registry.get_sample_value("agent_records_held") or 0.0

    def said_of(self, event: str) -> list[dict[str, Any]]:
        """The fields of each such event."""
        return [fields for name, fields in self.said if name == event]

    async def hang_up(self, number: int) -> None:
        """A call ends; its record is durable, or held."""
        with suppress(OSError):
            await self.keeper.save(make_record(number))

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until it is so."""
        with trio.fail_after(10):
            while not is_so():  # noqa: ASYNC110
                await trio.sleep(0.005)

    async def _keep(self, record: CallRecord) -> None:
        await trio.lowlevel.checkpoint()
        if self.away is not None:
            raise self.away
        self.kept.append(record.call_sid)

    def _look(self) -> None:
        self.looks += 1


@asynccontextmanager
async def open_places(tmp_path: Path) -> AsyncIterator[Places]:
    """Places with a keeper at work; pauses are short."""
    places = Places(MoodyDisk(tmp_path / "data"), MoodyDisk(tmp_path / "elsewhere", is_elsewhere=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(places.keeper.run)
        yield places
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_keeper, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(record_keeper, "LONGEST_PAUSE_S", 0.02)


async def test_do_3_a_full_disk_costs_no_record(tmp_path: Path) -> None:
    """A real one: twenty calls end on it; freed, each record is on it, waits for Postgres, and was told of."""
    with open_small_disk(tmp_path / "data") as disk:
        async with open_places(tmp_path) as places:
            await places.keeper.save(make_record(0))
            disk.fill()
            for number in range(1, 21):
                with pytest.raises(OSError, match="No space left"):
                    await places.keeper.save(make_record(number))
            assert places.held == 20
            assert len(places.said_of("RECORD_HELD")) == 20
            assert not list((tmp_path / "data").rglob("*.part")), "nothing half written takes the room"
            disk.free()
            await places.until(lambda: places.held == 0)
        waiting = await Spool(tmp_path / "data").waiting()
        assert sorted(waiting) == [sid(number) for number in range(21)]
        for name in waiting:
            assert isinstance(await Spool(tmp_path / "data").load(name), CallRecord)
    assert places.looks == 20
    assert {fields["where"] for fields in places.said_of("RECORD_KEPT")} == {"disk"}


async def test_do_3_postgres_takes_what_the_disk_does_not(tmp_path: Path) -> None:
    """The call is completed before there is room; nothing is held, so that not even a kill loses it."""
    async with open_places(tmp_path) as places:
        places.disk.trouble, places.away = FULL, None
        for number in (1, 2):
            await places.hang_up(number)
        await places.until(lambda: places.held == 0)
    assert places.kept == [sid(1), sid(2)]
    assert [fields["where"] for fields in places.said_of("RECORD_KEPT")] == ["database", "database"]


@pytest.mark.parametrize("refusal", [psycopg.DataError("a date in the year 12026"), ValueError("a mistake")])
async def test_a_record_that_postgres_refuses_is_in_the_way_of_no_other(
    tmp_path: Path, refusal: Exception
) -> None:
    async with open_places(tmp_path) as places:
        places.disk.trouble, places.away = FULL, refusal
        await places.hang_up(1)
        await places.until(lambda: bool(places.said_of("RECORD_REFUSED")))
        places.disk.trouble = None
        await places.until(lambda: places.held == 0)
    assert await places.disk.waiting() == [sid(1)]


async def test_do_3_a_disk_that_hangs_has_no_record_for_itself(tmp_path: Path) -> None:
    """The call's ending leaves the write; the record is Postgres's, as soon as the disk took too long."""
    async with open_places(tmp_path) as places:
        places.disk.hangs, places.away = True, None
        with trio.move_on_after(0.05):
            await places.keeper.save(make_record(1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_keeper, "WRITE_S", 0.05)
            await places.until(lambda: places.held == 0)
    assert places.kept == [sid(1)]
    assert places.said_of("RECORD_HELD")[0]["error"] == "the disk does not answer"


@pytest.mark.parametrize(
    ("most", "of"), [(2, "MOST_RECORDS"), (2.5 * len(encode_record(make_record())), "MOST_BYTES")]
)
async def test_do_3_what_passes_the_bounds_goes_to_the_last_resort_and_is_brought_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: float, of: str
) -> None:
    monkeypatch.setattr(record_keeper, of, most)
    async with open_places(tmp_path) as places:
        places.disk.trouble = FULL
        for number in range(1, 6):
            await places.hang_up(number)
        await places.until(lambda: places.held == 2)
        assert sorted(await places.last_resort.waiting()) == [sid(1), sid(2), sid(3)], "the oldest"
        places.disk.trouble = None
        await places.until(lambda: places.looks == 5)
        assert sorted(await places.disk.waiting()) == [sid(number) for number in range(1, 6)]
        await places.until(lambda: not list((tmp_path / "elsewhere").rglob("*.json")))
    assert places.said_of("RECORDS_LOST") == []


async def test_do_3_what_no_place_takes_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_keeper, "MOST_RECORDS", 1)
    async with open_places(tmp_path) as places:
        places.disk.trouble = places.last_resort.trouble = FULL
        for number in (1, 2):
            await places.hang_up(number)
        await places.until(lambda: places.held == 1)
    assert places.said_of("RECORDS_LOST") == [{"count": 1, "calls": [sid(1)]}]
    assert places.keeper.events.counts["RECORDS_LOST"] == 1


async def test_do_3_what_an_earlier_process_left_in_the_last_resort_is_brought_back(tmp_path: Path) -> None:
    await MoodyDisk(tmp_path / "elsewhere", is_elsewhere=True).save(make_record(7))
    async with open_places(tmp_path) as places:
        await places.until(lambda: places.looks == 1)
    assert await places.disk.waiting() == [sid(7)]
    assert await places.last_resort.waiting() == []


@pytest.mark.parametrize("mode", [0o755, 0o777])
async def test_a_last_resort_that_others_can_write_to_is_neither_read_nor_used(tmp_path: Path, mode: int) -> None:
    """Anybody can make a directory in /var/tmp: a record in it might be anybody's."""
    await Spool(tmp_path / "elsewhere").save(make_record(1))
    (tmp_path / "elsewhere").chmod(mode)
    async with open_places(tmp_path) as places:
        await places.until(lambda: bool(places.said_of("LAST_RESORT_WAITS")))
        with pytest.raises(PermissionError):
            await places.last_resort.save(make_record(2))
    assert places.looks == 0


@pytest.mark.parametrize(("disk", "database", "last_resort"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)])
async def test_do_3_at_the_end_of_the_process_each_place_is_tried_once_more(
    tmp_path: Path, *, disk: int, database: int, last_resort: int
) -> None:
    places = Places(MoodyDisk(tmp_path / "data"), MoodyDisk(tmp_path / "elsewhere", is_elsewhere=True))
    places.disk.trouble = FULL
    for number in (1, 2):
        await places.hang_up(number)
    places.disk.trouble = None if disk else FULL
    places.away = None if database else DatabaseError("away")
    places.last_resort.trouble = None if last_resort else FULL
    with trio.fail_after(10):
        await places.keeper.finish()
    both, found = [sid(1), sid(2)], [await places.disk.waiting(), places.kept, await places.last_resort.waiting()]
    assert [sorted(each) for each in found] == [both * disk, both * database, both * last_resort]
    lost = [] if disk or database or last_resort else [{"count": 2, "calls": both}]
    assert places.said_of("RECORDS_LOST") == lost


async def test_the_end_of_the_process_is_bounded_and_sees_what_a_hanging_disk_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_keeper, "FINISH_S", 0.1)
    places = Places(MoodyDisk(tmp_path / "data"), MoodyDisk(tmp_path / "elsewhere", is_elsewhere=True))
    places.disk.hangs = True
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(places.keeper.save, make_record(1))
            await trio.testing.wait_all_tasks_blocked()
            await places.keeper.finish()
            nursery.cancel_scope.cancel()
    assert places.said_of("RECORDS_LOST") == [{"count": 1, "calls": [sid(1)]}]


async def test_do_3_cancelled_at_any_checkpoint_every_record_is_somewhere(tmp_path: Path) -> None:
    """The keeper is cancelled as it saves, tries and brings back; its last word finds what is held."""
    struck = 0
    for at in range(500):
        begun = [sid(1), sid(3)]
        folder = tmp_path / str(at)
        places = Places(MoodyDisk(folder / "data"), MoodyDisk(folder / "elsewhere", is_elsewhere=True))
        await places.last_resort.save(make_record(3))
        places.disk.trouble = FULL
        await places.hang_up(1)
        places.disk.trouble = None

        async def work(places: Places = places, begun: list[CallSid] = begun) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(places.keeper.run)
                begun.append(sid(2))
                await places.hang_up(2)
                await places.until(lambda: places.looks == 2)
                nursery.cancel_scope.cancel()

        with trio.fail_after(20):
            _, was_struck = await strike(at, work)
            with trio.CancelScope(shield=True):
                await places.keeper.finish()
        on_disk, elsewhere = await places.disk.waiting(), await places.last_resort.waiting()
        assert sorted({*on_disk, *elsewhere}) == sorted(begun), f"cancelled before step {at}"
        assert places.said_of("RECORDS_LOST") == []
        struck += was_struck
        if not was_struck:
            break
    assert struck > 20


def test_each_data_directory_has_a_last_resort_of_its_own(tmp_path: Path) -> None:
    places = [place_of_last_resort(tmp_path / name, None) for name in ("a", "b", "a")]
    assert places[0].directory == places[2].directory != places[1].directory
    assert all(place.is_elsewhere for place in places)
    assert place_of_last_resort(tmp_path, tmp_path / "chosen").directory == tmp_path / "chosen"


# The spool itself


@pytest.mark.parametrize("umask", [0, 0o277], ids=oct)
async def test_files_of_calls_are_for_us_alone(tmp_path: Path, umask: int) -> None:
    """0600 in 0700, whatever the umask; directories of an earlier version are closed."""
    (tmp_path / "data" / "calls").mkdir(parents=True, mode=0o755)
    before = os.umask(umask)
    try:
        await Spool(tmp_path / "data").save(make_record(1))
    finally:
        os.umask(before)
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "data").rglob("*")}  # noqa: ASYNC240
    files, folders = [sid(1), f"{sid(1)}.json"], ["calls", "spool"]
    assert found == dict.fromkeys(files, "0o600") | dict.fromkeys(folders, "0o700")


async def test_do_3_a_mark_outlives_what_it_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that took long to write is not forgotten because its mark was held for a dead process's."""
    place = Spool(tmp_path)
    write = durable.write_durably

    def slow(path: Path, data: bytes) -> None:
        (tmp_path / "spool" / path.stem).unlink()  # as another process does after STALE_S
        write(path, data)

    monkeypatch.setattr(spool, "write_durably", slow)
    monkeypatch.setattr(spool, "STALE_S", 0.0)
    await place.save(make_record(1))
    assert await place.waiting() == [sid(1)]


async def test_do_3_a_mark_found_stale_as_its_record_comes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Spool(tmp_path)
    path = await place.save(make_record(1))
    mark, away = tmp_path / "spool" / sid(1), path.with_suffix(".away")
    path.rename(away)
    long_ago_s = mark.stat().st_mtime - spool.STALE_S - 1
    os.utime(mark, (long_ago_s, long_ago_s))
    age = spool._age

    def aged(entry: Path) -> float:
        if away.exists():
            away.rename(path)  # the record comes between the look at it and the look at its mark
        return age(entry)

    monkeypatch.setattr(spool, "_age", aged)
    assert await place.load(sid(1)) is None
    assert isinstance(await place.load(sid(1)), CallRecord)
    assert await place.waiting() == [sid(1)]


async def test_a_disk_that_hangs_does_not_hold_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel leaves a thread that does not come back, after its grace."""
    let_go = trio.Event()
    token = trio.lowlevel.current_trio_token()
    monkeypatch.setattr(spool, "GRACE_S", 0.05)

    def hang(*_: object) -> None:
        trio.from_thread.run(let_go.wait, trio_token=token)

    monkeypatch.setattr(spool, "write_durably", hang)
    with trio.fail_after(10):
        with trio.move_on_after(0.01) as scope:
            await Spool(tmp_path).save(make_record(1))
        let_go.set()
    assert scope.cancelled_caught

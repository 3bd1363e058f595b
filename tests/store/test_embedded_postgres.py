"""The embedded Postgres: shared, restarted, killed and found again; and a clear word when it cannot be (D16)."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg
import pytest
import trio

import agent.store.embedded_postgres as embedded
from agent.core.errors import DatabaseError
from agent.store.embedded_postgres import Cluster, open_embedded_postgres, run_watch
from agent.store.embedded_postgres import cluster as cluster_module
from agent.store.embedded_postgres import system_user as user_module
from agent.store.embedded_postgres.programs import Programs, last_words
from agent.store.embedded_postgres.socket_place import find_socket_dir

pytestmark = pytest.mark.sockets
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user to run Postgres")

USER = """
import sys, trio
from pathlib import Path
from agent.store.embedded_postgres import open_embedded_postgres

async def main():
    async with open_embedded_postgres(Path(sys.argv[1])):
        print("open", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not in pytest's directory: each new pytest closes that to the user a server runs as."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
        for process in servers_in(Path(directory)):
            process.kill()


def servers_in(data_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and Path(process.cwd()) == data_dir / "postgres":
                found.append(process)
        except psutil.Error:
            continue
    return found


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text("utf-8").splitlines()[0])


def ask(conninfo: str, sql: str) -> Any:
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone() if cursor.description else None


@contextmanager
def running(cluster: Cluster) -> Iterator[str]:
    lock = cluster.start()
    try:
        yield cluster.conninfo
    finally:
        cluster.leave(lock)


def run_user(data_dir: Path) -> subprocess.Popen[bytes]:
    """A process that uses the server until its input ends."""
    command = [sys.executable, "-c", USER, str(data_dir)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextmanager
def another_process(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    with run_user(data_dir) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            yield process
        finally:
            process.kill()


def wait_until_gone(cluster: Cluster) -> None:
    end = time.monotonic() + 10
    while cluster.state() != "gone":
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_survives_restarts_durable_and_on_no_port(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with running(cluster) as conninfo:
        ask(conninfo, "CREATE TABLE things AS SELECT 7 AS n")
        assert ask(conninfo, "SHOW fsync") == ("on",)
        assert ask(conninfo, "SHOW listen_addresses") == ("",)
        assert not psutil.Process(postmaster(data_dir)).net_connections("inet")
    assert cluster.state() == "gone"
    with running(cluster) as conninfo:
        assert ask(conninfo, "SELECT n FROM things") == (7,)
    assert not servers_in(data_dir)


async def test_a_cancel_stops_it_within_its_time(data_dir: Path) -> None:
    with trio.fail_after(20):
        with trio.CancelScope() as scope:
            async with open_embedded_postgres(data_dir) as conninfo:
                await trio.to_thread.run_sync(ask, conninfo, "SELECT 1")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert not servers_in(data_dir)


def test_a_ctrl_c_in_the_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    with running(Cluster(data_dir / "postgres")):
        pid = postmaster(data_dir)
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


def test_a_second_process_shares_it_and_the_last_to_leave_stops_it(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with another_process(data_dir) as other:
        with running(cluster):
            pid = postmaster(data_dir)
        assert cluster.state() == "ready"
        assert postmaster(data_dir) == pid
        assert other.communicate(timeout=20)[0] == b""
    assert cluster.state() == "gone"


def test_processes_that_come_at_the_same_time_make_one_cluster(data_dir: Path) -> None:
    processes = [run_user(data_dir) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
        assert [process.communicate(timeout=20)[1] for process in processes] == [None] * 3
        assert [process.returncode for process in processes] == [0] * 3
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not servers_in(data_dir)
    assert not list(data_dir.glob(".postgres-*"))


def test_one_of_two_processes_is_killed_and_the_other_stops_it(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with another_process(data_dir) as other:
        with running(cluster) as conninfo:
            other.kill()
            other.wait()
            assert ask(conninfo, "SELECT 1") == (1,)
        assert cluster.state() == "gone"


def watchdogs(data_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(data_dir / "postgres.watch.lock") in process.cmdline():
                found.append(process)
    return found


def wait_for(what: str, is_so: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def test_do_3_all_processes_are_killed_and_no_server_is_left(data_dir: Path) -> None:
    """Nobody stopped it before: it ran on until somebody came by, or for ever."""
    cluster = Cluster(data_dir / "postgres")
    with another_process(data_dir) as other, another_process(data_dir) as third:
        ask(cluster.conninfo, "CREATE TABLE things AS SELECT 7 AS n")
        for process in (other, third):
            assert cluster.state() == "ready"
            process.kill()
            process.wait()
    wait_for("the server is gone", lambda: not servers_in(data_dir))
    wait_for("so is its watchdog", lambda: not watchdogs(data_dir))
    with running(cluster) as conninfo:
        assert ask(conninfo, "SELECT n FROM things") == (7,)


def test_do_3_a_process_that_comes_just_after_all_were_killed_has_its_server(data_dir: Path) -> None:
    """It may take the server over, or start it anew when it was stopped: nothing is in its way."""
    cluster = Cluster(data_dir / "postgres")
    for _ in range(5):
        with another_process(data_dir) as other:
            other.kill()
            other.wait()
        with running(cluster) as conninfo:
            assert ask(conninfo, "SELECT 1") == (1,)
            time.sleep(0.2)
            assert ask(conninfo, "SELECT 1") == (1,)
            assert len(watchdogs(data_dir)) == 1
    assert cluster.state() == "gone"


def test_do_3_killed_while_it_starts_the_server_none_is_left(data_dir: Path) -> None:
    with running(Cluster(data_dir / "postgres")):
        pass
    for delay_s in (0.0, 0.02, 0.05, 0.1):
        with run_user(data_dir) as process:
            wait_for("it begins", lambda: bool(watchdogs(data_dir)))
            time.sleep(delay_s)
            process.kill()
        wait_for("all is gone", lambda: not servers_in(data_dir) and not watchdogs(data_dir))


def test_a_watchdog_that_was_killed_is_replaced_and_one_is_enough(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with another_process(data_dir) as other:
        [first] = watchdogs(data_dir)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            first.send_signal(number)
        assert first.memory_info().rss < 20_000_000
        first.kill()
        wait_for("it is gone", lambda: not watchdogs(data_dir))
        with another_process(data_dir), running(cluster):
            assert len(watchdogs(data_dir)) == 1
        other.kill()
        other.wait()
    wait_for("the server is gone", lambda: not servers_in(data_dir))


def test_a_server_that_its_last_user_stopped_has_no_watchdog_left(data_dir: Path) -> None:
    with running(Cluster(data_dir / "postgres")):
        pass
    wait_for("the watchdog is gone", lambda: not watchdogs(data_dir), within_s=8.0)


def test_the_server_is_killed_and_comes_back_with_what_was_committed(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with running(cluster) as conninfo:
        ask(conninfo, "CREATE TABLE things AS SELECT 7 AS n")
        assert not cluster.revive()
        with psycopg.connect(conninfo):  # a server process that outlives its parent by a moment
            os.kill(postmaster(data_dir), signal.SIGKILL)
            with running(cluster) as again:
                assert ask(again, "SELECT n FROM things") == (7,)
        os.kill(postmaster(data_dir), signal.SIGKILL)
        wait_until_gone(cluster)
        assert cluster.revive()
        assert ask(conninfo, "SELECT n FROM things") == (7,)


def test_one_that_was_just_stopped_is_started_again(data_dir: Path) -> None:
    """Its last processes are still there when pg_ctl says that it has stopped."""
    cluster = Cluster(data_dir / "postgres")
    with running(cluster):
        for mode in ("fast", "immediate") * 3:
            cluster._ctl("stop", "-m", mode, "-w")
            assert cluster.revive()
            assert cluster.state() == "ready"


async def test_a_server_that_is_killed_is_started_again(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WATCH_S", 0.05)
    with trio.fail_after(20):
        async with open_embedded_postgres(data_dir) as conninfo, trio.open_nursery() as nursery:
            nursery.start_soon(run_watch, data_dir)
            first = postmaster(data_dir)
            os.kill(first, signal.SIGKILL)
            while Cluster(data_dir / "postgres").state() != "ready" or postmaster(data_dir) == first:  # noqa: ASYNC110 - nobody is told
                await trio.sleep(0.02)
            assert await trio.to_thread.run_sync(ask, conninfo, "SELECT 1") == (1,)
            nursery.cancel_scope.cancel()


async def test_one_that_cannot_be_started_again_is_tried_again_and_said_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, or no descriptor to look at the processes with."""
    tries = 0

    def revive(self: Cluster) -> bool:
        nonlocal tries
        tries += 1
        raise DatabaseError("no space is left") if tries % 2 else OSError(24, "Too many open files")

    monkeypatch.setattr(Cluster, "revive", revive)
    monkeypatch.setattr(embedded, "WATCH_S", 0.01)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_watch, data_dir)
            while tries < 4:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records if "cannot be started" in record.getMessage()] == [
        "the embedded Postgres is gone and cannot be started, which is tried again: no space is left"
    ]


def test_a_pid_file_of_before_a_crash_that_names_a_process_of_today(data_dir: Path) -> None:
    """The machine crashed, and the number of the server is now that of somebody else, who must not be harmed."""
    cluster = Cluster(data_dir / "postgres")
    with running(cluster):
        pid_file = data_dir / "postgres" / "postmaster.pid"
        text = pid_file.read_text("utf-8")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        wait_until_gone(cluster)
    runner = user_module.runner_for(cluster.path)
    identity: dict[str, Any] = {} if runner is None else {"user": runner.uid, "group": runner.gid}
    with subprocess.Popen(["/bin/sleep", "60"], **identity) as bystander:
        try:
            pid_file.write_text(text.replace(text.split("\n")[0], str(bystander.pid), 1), "utf-8")
            assert cluster.state() == "gone"
            with running(cluster) as conninfo:
                assert ask(conninfo, "SELECT 1") == (1,)
            pid_file.write_text(text.replace(text.split("\n")[0], str(bystander.pid), 1), "utf-8")
            cluster.leave((data_dir / "postgres.users.lock").open("ab"))
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_server_in_another_container_is_not_run_over(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    with running(cluster):
        pass
    with (data_dir / "postgres.users.lock").open("wb") as others:
        others.write(b"another place")
        others.flush()
        fcntl.flock(others, fcntl.LOCK_SH)
        with pytest.raises(DatabaseError, match="another container"):
            cluster.start()
    with running(cluster):
        pass


def test_a_server_that_hangs_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(data_dir / "postgres")
    with running(cluster):
        monkeypatch.setattr(cluster_module, "START_S", 0.5)
        pid = postmaster(data_dir)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseError, match="did not answer"):
                cluster.start()
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_process_that_hangs_while_it_starts_does_not_hang_the_next(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "START_S", 0.1)
    monkeypatch.setattr(cluster_module, "STOP_S", 0.1)
    with (data_dir / "postgres.gate.lock").open("wb") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        with pytest.raises(DatabaseError, match="another process has been starting or stopping"):
            Cluster(data_dir / "postgres").start()


@pytest.mark.parametrize("name", ["x" * 100, "with a space, and a comma", "שלום", "it's"])
def test_paths_that_are_not_fit_for_sockets(data_dir: Path, name: str) -> None:
    cluster = Cluster(data_dir / name / "postgres")
    with running(cluster) as conninfo:
        assert ask(conninfo, "SHOW data_directory") == (str(cluster.path),)
        socket_dir = find_socket_dir(cluster.path)
        assert socket_dir != cluster.path
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()


def test_the_place_of_the_socket_belongs_to_somebody_else(data_dir: Path) -> None:
    cluster = Cluster(data_dir / ("x" * 100) / "postgres")
    socket_dir = find_socket_dir(cluster.path)
    socket_dir.mkdir()
    socket_dir.chmod(0o777)
    try:
        with pytest.raises(DatabaseError, match="belongs to somebody else"):
            cluster.start()
    finally:
        socket_dir.rmdir()


@pytest.mark.parametrize("name", ['a"b', "a$(touch x)b", "a`b", "a\nb"])
def test_paths_that_a_shell_would_read_are_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(DatabaseError, match="give another AGENT_DATA_DIR"):
        Cluster(data_dir / name / "postgres").start()


def test_a_directory_that_is_none(data_dir: Path) -> None:
    (data_dir / "file").touch()
    with pytest.raises(DatabaseError, match="give another AGENT_DATA_DIR"):
        Cluster(data_dir / "file" / "postgres").start()


def test_a_directory_with_something_else_in_it_is_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "holiday.jpg").touch()
    with pytest.raises(DatabaseError, match="not empty"):
        Cluster(data_dir / "postgres").start()
    assert [path.name for path in (data_dir / "postgres").iterdir()] == ["holiday.jpg"]
    assert not list(data_dir.glob(".postgres-*"))


def test_a_full_disk(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    with pytest.raises(DatabaseError, match=r"wants 200 MB .* 5 MB are free"):
        Cluster(data_dir / "postgres").start()


def test_a_cluster_of_another_version(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("11\n", "ascii")
    with pytest.raises(DatabaseError, match="made by Postgres 11, but only 16 and 18"):
        Cluster(data_dir / "postgres").start()


def test_settings_that_it_does_not_take_are_told_in_its_own_words(data_dir: Path) -> None:
    with pytest.raises(DatabaseError, match=r'FATAL.*"max_connections"'):
        Cluster(data_dir / "postgres", {"max_connections": "-1"}).start()
    assert not servers_in(data_dir)


def test_a_half_made_cluster_of_a_killed_start_is_cleared_away(data_dir: Path) -> None:
    (data_dir / ".postgres-half").mkdir()
    (data_dir / ".postgres-half" / "base").touch()
    with running(Cluster(data_dir / "postgres")):
        assert not (data_dir / ".postgres-half").exists()


def test_a_long_log_is_put_aside(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "LOG_BYTES", 10)
    cluster = Cluster(data_dir / "postgres")
    for _ in range(2):
        with running(cluster):
            pass
    assert (data_dir / "postgres" / "server.log.1").exists()


def test_its_data_was_removed_while_it_ran(data_dir: Path) -> None:
    cluster = Cluster(data_dir / "postgres")
    lock = cluster.start()
    server = psutil.Process(postmaster(data_dir))
    shutil.rmtree(data_dir)
    cluster.leave(lock)  # says so, and does not raise
    server.kill()


@as_root
def test_closed_directories_on_the_way_are_opened_to_one_user_only(data_dir: Path) -> None:
    private = data_dir / "private"
    (private / "data").mkdir(parents=True)
    (private / "data").chmod(0o755)  # whatever the mask of who runs the tests
    private.chmod(0o700)
    data_dir.chmod(0o700)
    cluster = Cluster(private / "data" / "postgres")
    for _ in range(2):
        with running(cluster) as conninfo:
            assert ask(conninfo, "SELECT 1") == (1,)
        private.chmod(0o700)  # closes it again: the mask of the list is what a mode's group is
    with running(cluster):
        pass
    assert stat.S_IMODE(private.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE((private / "data").stat().st_mode) & 0o077 == 0o055
    command = ["/bin/ls", str(private / "data")]
    assert subprocess.run(command, user=65534, check=False, capture_output=True).returncode


@as_root
def test_other_entries_of_an_access_control_list_stay(data_dir: Path) -> None:
    data_dir.chmod(0o700)
    for uid in (4001, 4002, 4001):
        user_module._grant_passing(uid, data_dir)
    named = [(tag, mode, uid) for tag, mode, uid in user_module._read_acl(data_dir) if tag == user_module._USER]
    assert sorted(named) == [(2, 1, 4001), (2, 1, 4002)]


@as_root
def test_a_directory_that_cannot_be_opened_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    data_dir.chmod(0o700)
    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(DatabaseError, match=f"chmod o\\+x {data_dir},"):
        Cluster(data_dir / "postgres").start()


@as_root
def test_no_user_can_be_made(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", unknown)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/bin/false")
    with pytest.raises(DatabaseError, match=r"could not be made .* run call-agent as another user than root"):
        Cluster(data_dir / "postgres").start()


@as_root
def test_a_cluster_of_an_ordinary_user_stays_theirs(data_dir: Path) -> None:
    """A number without a name is enough: of another container that has the same directory."""
    cluster = Cluster(data_dir / "postgres")
    with running(cluster):
        pass
    for path in (cluster.path, *cluster.path.rglob("*")):
        os.chown(path, 54321, 54321)
    with running(cluster) as conninfo:
        assert ask(conninfo, "SELECT 1") == (1,)
        assert psutil.Process(postmaster(data_dir)).uids().real == 54321


@pytest.mark.parametrize(
    ("mode", "what"), [(0o755, "did not end within 0 s, and was killed"), (0o644, "cannot be run by this user")]
)
def test_programs_that_hang_or_may_not_be_run(data_dir: Path, mode: int, what: str) -> None:
    (data_dir / "initdb").write_text("#!/bin/sh\nexec sleep 60\n", "ascii")
    (data_dir / "initdb").chmod(mode)
    with pytest.raises(DatabaseError, match=what):
        Programs(data_dir, None).run("initdb", within_s=0.2)


def test_the_wheel_is_not_installed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DatabaseError, match=r"is not installed .* or set DATABASE_URL"):
        Cluster(data_dir / "postgres").start()
    empty = SimpleNamespace(origin=str(data_dir / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: empty)
    with pytest.raises(DatabaseError, match="no programs for this machine"):
        Cluster(data_dir / "postgres").start()


def test_last_words_are_those_that_tell() -> None:
    assert last_words(b"") == "it said nothing"
    assert last_words(b"waiting\nFATAL:  no\nLOG:  down\nHINT:  do\n") == "FATAL:  no; HINT:  do"

"""Processes of a load run: started on a core of their own, asked to end, killed if they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import trio

from agent.core.errors import AgentError

STOP_S: Final = 10.0
KILL_S: Final = 1.0
_OURS: Final = ("AGENT_", "OPENAI_", "TWILIO_", "DEBUG_TX", "DATABASE_URL", "PG")
_LAST_WORDS: Final = 300
_OF_SEVERAL: Final = "agent.app.processes"
"""The module that such a process runs."""
_OWN_TREE: Final = Path(__file__).parents[2]
Say = Callable[[str], None]
"""Tells whoever waits how far it is."""


class BenchError(AgentError):
    """A part of the benchmark did not do its work; the message says which and why."""


def cores() -> tuple[int, int] | None:
    """The core for the agent and the core for the load; None where processes cannot be pinned.

    They are the same on a machine with one.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextmanager
def moved_to(core: int | None) -> Iterator[None]:
    """Run this process on ``core`` meanwhile: the agent's is the agent's alone."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@attrs.define(eq=False)
class Child:
    """A running process. Made by ``open_child``."""

    name: str
    log: Path
    process: trio.Process
    _rest: bytes = b""

    async def line(self) -> bytes:
        """The next line it prints. Raises BenchError when it ends instead."""
        stdout = self.process.stdout
        while b"\n" not in self._rest:
            some = await stdout.receive_some() if stdout is not None else b""
            if not some:
                await self.process.wait()
                raise BenchError(f"{self.name} ended early: {self.last_words()}")
            self._rest += some
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def until_done(self) -> None:
        """Wait for its end; what it prints meanwhile is dropped. Raises BenchError if it failed."""
        if self.process.stdout is not None:
            async for _ in self.process.stdout:
                pass
        if await self.process.wait():
            raise BenchError(f"{self.name} failed: {self.last_words()}")

    async def stop(self) -> None:
        """Ask it to end, and wait. Raises BenchError if it failed."""
        self.process.terminate()
        with trio.move_on_after(STOP_S) as waiting:
            await self.until_done()
        if waiting.cancelled_caught:
            raise BenchError(f"{self.name} did not end within {STOP_S:.0f} s")

    def cpu_s(self) -> float:
        """CPU seconds it has used, in user and system mode together, with its own processes that take calls."""
        return sum(_cpu_s(each) for each in self._processes())

    def children_cpu_s(self) -> float:
        """CPU seconds that the other processes it started have used: its worker, its database."""
        own = self._processes()
        return sum(_cpu_s(each) for each in own[0].children(recursive=True) if each not in own)

    async def stand_still(self, stop_s: float) -> None:
        """Stop it for ``stop_s``, as a machine that is busy elsewhere does. A cancel lets it go on."""
        own = self._processes()
        for each in own:
            each.suspend()
        try:
            await trio.sleep(stop_s)
        finally:
            for each in own:
                each.resume()

    def rss_bytes(self) -> int:
        """Memory it holds, with its own processes that take calls."""
        return sum(int(each.memory_info().rss) for each in self._processes())

    def _processes(self) -> list[Any]:
        """It, and of a server with several processes those that take calls; what it is comes first."""
        first = psutil.Process(self.process.pid)
        return [first, *(each for each in first.children() if _OF_SEVERAL in each.cmdline())]

    def last_words(self) -> str:
        """The last line of its log."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:_LAST_WORDS] if lines else "it said nothing"


def _cpu_s(process: Any) -> float:
    """0 for one that is gone."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


@asynccontextmanager
async def open_child(
    name: str,
    arguments: Sequence[str],
    *,
    core: int | None,
    folder: Path,
    settings: Mapping[str, str] | None = None,
    tree: Path | None = None,
) -> AsyncIterator[Child]:
    """Run ``python *arguments`` in ``folder`` on ``core``, with nothing of the user's settings but ``settings``.

    Its modules are those of ``tree``, a checkout; by default this one.
    It is killed when left, also by a cancel. Its standard error goes to ``<name>.log``.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as log_file:
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd=folder,
            env=_environment(settings or {}, tree or _OWN_TREE),
            start_new_session=True,
        )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield Child(name, log, process)
    finally:
        with trio.move_on_after(KILL_S, shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


def _environment(settings: Mapping[str, str], tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_OURS)}
    path = os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, **settings}

